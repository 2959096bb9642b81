"""What is served beside resources: discovery, health, version, OpenAPI, keys, metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson

from berg.apiserver.discovery import Discovery
from berg.apiserver.health import Health
from berg.apiserver.http.message import Request, Response
from berg.apiserver.rest import ours
from berg.machinery import version
from berg.machinery.status import ApiError, no_such_method

Answer = Callable[[Request], Response | Awaitable[Response | None] | None]


_READ_ONLY = ("/version", "/openid/", "/.well-known/openid-configuration")
"""what is routed by method; the others answer any"""


class Paths:
    """`answers` are asked by exact path, `prefixes` by what the path begins with."""

    def __init__(self, discovery: Discovery, health: Health) -> None:
        self.discovery = discovery
        self.health = health
        self.answers: dict[str, Answer] = {
            "/version": _version,
            "/version/": _version,
            "/": self._index,
            "/index.html": self._index,
        }
        self.prefixes: dict[str, Answer] = {}

    async def handle(self, request: Request) -> Response | None:
        if request.path == "*" and request.method == "OPTIONS":
            return Response(200, b"", "")
        answer = self.answers.get(request.path)
        if answer is not None:
            if request.method != "GET" and request.path.startswith(_READ_ONLY):
                raise no_such_method()
            return await _settled(answer(request))
        if request.path.startswith("/api"):
            found = self.discovery.handle(request)
            if found is not None and request.method != "GET" and ours(request.path) and not _is_group(request.path):
                raise no_such_method()
            return found
        for prefix, prefixed in self.prefixes.items():
            if request.path.startswith(prefix):
                return await _settled(prefixed(request))
        return self.health.handle(request)

    def _index(self, request: Request) -> Response:
        paths = {p for p in self.answers if not p.endswith("/") and p != "/index.html"} | set(self.health.checks)
        for path, checks in self.health.checks.items():
            paths.update(f"{path}/{name}" for name in checks)
        paths.update(("/api", "/apis", "/apis/"), self.discovery.paths(), self.prefixes)
        return Response(200, orjson.dumps({"paths": sorted(paths)}, option=orjson.OPT_INDENT_2))


def _is_group(path: str) -> bool:
    """`/apis/GROUP`, which is answered whatever the method (but that of the aggregator itself)."""
    steps = path.rstrip("/").split("/")
    return path.startswith("/apis/") and len(steps) <= 3 and steps[-1] != "apiregistration.k8s.io"


async def _settled(found: Response | Awaitable[Response | None] | None) -> Response | None:
    return found if found is None or isinstance(found, Response) else await found


def _version(request: Request) -> Response:
    accepted = (clause.partition(";")[0].strip() for clause in request.headers.get("accept", "*/*").split(","))
    if not any(media in ("", "*/*", "application/json") for media in accepted):
        words = "406: Not Acceptable\n\nAvailable representations: application/json"
        raise ApiError(406, "NotAcceptable", words, {})
    return Response(200, orjson.dumps(version.info(), option=orjson.OPT_INDENT_2))
