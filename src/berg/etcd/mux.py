"""One port for HTTP/1 and HTTP/2 (gRPC), plain or TLS.

The first bytes of a connection tell: HTTP/2 starts with a fixed preface, and gRPC clients send it at once. The
connection is handed over to the protocol it speaks, in place.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from berg.machinery.http2.connection import Connection
from berg.machinery.http2.frames import PREFACE

GRACE_S = 0.2


class Mux:
    def __init__(self, http1: Callable[[], asyncio.BaseProtocol], http2: Callable[[str], Connection]) -> None:
        """`http2` is given the name in the client's certificate."""
        self.http1 = http1
        self.http2 = http2
        self._servers: list[asyncio.Server] = []
        self.connections: set[asyncio.Transport] = set()
        self.speaking: set[Connection] = set()

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Returns the port. Raises OSError when it is taken."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Front(self), host, port, ssl=tls)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for connection in self.speaking:
            if not connection.transport.is_closing():
                connection.shut_down()
        if any(not c.transport.is_closing() for c in self.speaking):
            await asyncio.sleep(GRACE_S)
        for transport in (*self.connections, *(c.transport for c in self.speaking)):
            transport.abort()


class _Front(asyncio.Protocol):
    """A connection of which nobody knows yet what it speaks."""

    transport: asyncio.Transport

    def __init__(self, mux: Mux) -> None:
        self._mux = mux
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without being derived from it
        self._mux.connections.add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._mux.connections.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._seen.startswith(PREFACE):
            connection = self._mux.http2(certificate_name(self.transport))
            self._mux.speaking = {c for c in self._mux.speaking if not c.transport.is_closing()}
            self._hand_over(connection)
            self._mux.speaking.add(connection)
        elif not PREFACE.startswith(self._seen):
            self._hand_over(cast(asyncio.Protocol, self._mux.http1()))

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        self._mux.connections.discard(self.transport)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        protocol.data_received(self._seen)


def certificate_name(transport: asyncio.BaseTransport) -> str:
    """Whom the client's certificate names; empty without one."""
    certificate = transport.get_extra_info("peercert") or {}
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return ""
