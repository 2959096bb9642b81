"""The HTTP/1 side: health, version, metrics, the JSON gateway, the v2 API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web

from berg.etcd import metrics
from berg.etcd.gateway import PREFIXES, Gateway
from berg.etcd.member import CLUSTER_VERSION, VERSION, Member
from berg.etcd.rpc import Method
from berg.etcd.users import Users


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
        self._server = web.Server(self._handle, access_log=None)

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
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="Method Not Allowed\n", headers={"Allow": "GET"})
        if path in ("/health", "/readyz", "/livez"):
            return self._health(path, request.query.getall("exclude", []))
        if path == "/version":
            return _json({"etcdserver": VERSION, "etcdcluster": CLUSTER_VERSION, "storage": CLUSTER_VERSION})
        if path == "/metrics":
            return web.Response(
                text=metrics.render(self._member), headers={"Content-Type": "text/plain; version=0.0.4"}
            )
        return web.Response(status=404, text="404 page not found\n")

    def _health(self, path: str, exclude: list[str]) -> web.Response:
        alarmed = self._member.store.alarmed and "NOSPACE" not in exclude
        if path != "/health":
            return web.Response(text="ok\n")  # an alarm stops writes, not the process
        if alarmed:
            return _json({"health": "false", "reason": "ALARM NOSPACE"}, 503)
        return _json({"health": "true", "reason": ""})


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(value, separators=(",", ":")).encode(), content_type="application/json"
    )
