"""The HTTP/1 side: health, version, metrics, the JSON gateway, the v2 API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web

from berg.etcd import metrics
from berg.etcd.gateway import PREFIXES, Gateway
from berg.etcd.grpc_server import Counts
from berg.etcd.member import CLUSTER_VERSION, VERSION, Member
from berg.etcd.rpc import Method
from berg.etcd.users import Users

_CHECKS = {
    "livez": ("serializable_read",),
    "readyz": ("data_corruption", "serializable_read", "linearizable_read", "non_learner"),
}


class Web:
    def __init__(
        self,
        member: Member,
        users: Users,
        methods: list[Method],
        *,
        enable_v2: bool,
        by_certificate: bool = False,
        data_dir: Path | None = None,
    ) -> None:
        self._member = member
        self._gateway = Gateway(methods)
        self.methods = {m.path: m for m in methods}
        self.counts: Counts | None = None
        """of the gRPC side, for `/metrics`"""
        self._v2: Any = None
        self._enable_v2 = enable_v2
        self._by_certificate = by_certificate
        self._data_dir = data_dir
        self._users = users
        self._server: web.Server | None = None

    async def start(self) -> None:
        if self._enable_v2:
            from berg.etcd.v2.api import V2

            self._v2 = V2(self._member, by_certificate=self._by_certificate, data_dir=self._data_dir)
            await self._v2.start()
        self._server = web.Server(self._handle, access_log=None, handler_cancellation=True)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.shutdown(0.2)
        if self._v2 is not None:
            await self._v2.stop()

    def protocol(self) -> asyncio.BaseProtocol:
        assert self._server is not None
        return self._server()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        for prefix in PREFIXES:
            if path.startswith(prefix + "/"):
                return await self._gateway.handle(request, path[len(prefix) :])
        if path.startswith("/v2/") and self._v2 is not None:
            return await self._v2.handle(request)
        if path.startswith(("/livez", "/readyz")):
            found = self._checked(path, request)
            if found is not None:
                return found
        if request.method not in ("GET", "HEAD"):
            known = path in ("/health", "/version", "/metrics")
            return web.Response(status=405, text="Method Not Allowed\n", headers={"Allow": "GET"}) if known else _none()
        if path == "/health":
            return self._health(request.query.getall("exclude", []))
        if path == "/version":
            return _json({"etcdserver": VERSION, "etcdcluster": CLUSTER_VERSION, "storage": CLUSTER_VERSION})
        if path == "/metrics":
            return web.Response(
                text=metrics.render(self._member, self.counts, self.methods),
                headers={"Content-Type": "text/plain; version=0.0.4"},
            )
        return _none()

    def _health(self, exclude: list[str]) -> web.Response:
        alarmed = self._member.store.alarmed and "NOSPACE" not in exclude
        value = {"health": "false" if alarmed else "true", "reason": "ALARM NOSPACE" if alarmed else ""}
        return web.Response(
            status=503 if alarmed else 200, text=json.dumps(value, separators=(",", ":")) + "\n" * alarmed
        )

    def _checked(self, path: str, request: web.BaseRequest) -> web.Response | None:
        """`/livez`, `/readyz` and each check below them: a process that answers passes all; an alarm stops writes,
        not the process."""
        kind, _, one = path[1:].partition("/")
        checks = _CHECKS.get(kind)
        if checks is None or (one and one not in checks):
            return None
        if request.method != "GET":
            return web.Response(status=405, text="Method Not Allowed\n", headers={"Allow": "GET"})
        asked = [one] if one else [c for c in checks if c not in request.query.getall("exclude", [])]
        lines = "".join(f"[+]{check} ok\n" for check in asked) if "verbose" in request.query else ""
        return web.Response(text=lines + "ok\n")


def _none() -> web.Response:
    return web.Response(status=404, text="404 page not found\n")


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(value, separators=(",", ":")).encode(), content_type="application/json"
    )
