"""An API server in memory, and a short way to ask it things."""

from __future__ import annotations

from typing import Any

import orjson

from berg.apiserver.http.message import Request, Response, User
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock

ADMIN = User("admin", groups=("system:masters", "system:authenticated"))
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


class Served:
    def __init__(self, server: APIServer, clock: FakeClock) -> None:
        self.server = server
        self.clock = clock

    async def raw(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: User | None = ADMIN,
        content_type: str = "application/json",
        **headers: str,
    ) -> Response:
        path, _, query = path.partition("?")
        sent = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        named = {"content-type": content_type, **{k.replace("_", "-"): v for k, v in headers.items()}}
        return await self.server.handle(Request(method, path, query, named, sent, user=user))

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        response = await self.raw(method, path, body, **more)
        return response.status, orjson.loads(response.body)

    async def get(self, path: str, **more: Any) -> Any:
        return (await self.ask("GET", path, **more))[1]

    async def create(self, path: str, body: Any, **more: Any) -> Any:
        code, obj = await self.ask("POST", path, body, **more)
        assert code == 201, obj
        return obj

    async def patch(self, path: str, body: Any, content_type: str = MERGE, **more: Any) -> tuple[int, Any]:
        return await self.ask("PATCH", path, body, content_type=content_type, **more)

    async def watch(self, path: str, count: int) -> list[Any]:
        """The first `count` events."""
        response = await self.raw("GET", path)
        assert response.stream is not None, response.body
        found: list[Any] = []
        async for chunk in response.stream:
            found += [orjson.loads(line) for line in chunk.splitlines()]
            if len(found) >= count:
                break
        await response.stream.aclose()  # type: ignore[attr-defined]
        return found
