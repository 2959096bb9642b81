"""/healthz and /livez (10256) and /metrics (10249) of the proxy.

Healthy means: rules were brought up to date, and the last attempt did not fail for too long. A node that is being
deleted is not healthy for load balancers (/healthz), while the proxy still lives (/livez).
Source: KEP-3836.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

log = logging.getLogger(__name__)


class HealthServer:
    def __init__(self, address: str, healthz_port: int, metrics_port: int, more: Callable[[], str] = str) -> None:
        """`more` gives further metrics."""
        self._address, self._ports, self._more = address, (healthz_port, metrics_port), more
        self._servers: list[asyncio.Server] = []
        self._last: datetime | None = None
        self._syncs = 0
        self.node_deleting = False

    def synced(self) -> None:
        self._last = datetime.now(UTC)
        self._syncs += 1

    async def start(self) -> None:
        for port, address in zip(self._ports, (self._address, "127.0.0.1"), strict=True):
            if port:
                try:
                    self._servers.append(await asyncio.start_server(self._serve, address, port))
                except OSError as e:
                    log.warning("not listening on %s:%d: %s", address, port, e)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            parts = head.split(b" ", 2)
            status, kind, body = self.answer(parts[1].decode("latin-1").partition("?")[0] if len(parts) > 1 else "")
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, path: str) -> tuple[str, str, bytes]:
        """(status line, content type, body)"""
        if path in ("/healthz", "/livez"):
            alive = self._last is not None
            good = alive and not (path == "/healthz" and self.node_deleting)
            shown = {"lastUpdated": str(self._last), "currentTime": str(datetime.now(UTC)), "nodeEligible": good}
            return ("200 OK" if good else "503 Service Unavailable"), "application/json", json.dumps(shown).encode()
        if path == "/metrics":
            text = (
                "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge\n"
                f"kubeproxy_sync_proxy_rules_last_timestamp_seconds {self._last.timestamp() if self._last else 0}\n"
                "# TYPE berg_proxy_syncs_total counter\n"
                f"berg_proxy_syncs_total {self._syncs}\n"
            ) + self._more()
            return "200 OK", "text/plain; version=0.0.4", text.encode()
        if path == "/proxyMode":
            return "200 OK", "text/plain", b"nftables"
        return "404 Not Found", "text/plain", b"404 page not found\n"
