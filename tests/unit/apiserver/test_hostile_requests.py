"""Requests from strangers: whatever stands in a query, a body or on the wire, the answer is no server error, and the
next request is answered."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from urllib.parse import quote

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berg.apiserver.http.message import Request, Response
from berg.apiserver.http.server import HTTPServer
from tests.unit.apiserver.served_api import Served

MAPS = "/api/v1/namespaces/default/configmaps"
QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALUES = st.text(max_size=12) | st.sampled_from(
    ["", "0", "1", "-1", "true", "99999999999999999999", "1e3", "a=b", "a in (b)", "metadata.name=a", "..", "\x00", "é",
     "NotOlderThan", "Exact", "All", "Strict", "Foreground", "1h", "5", base64.b64encode(b'{"v":1}').decode()]
)  # fmt: skip
QUERIES = st.dictionaries(
    st.sampled_from(
        ["limit", "continue", "resourceVersion", "resourceVersionMatch", "labelSelector", "fieldSelector", "watch",
         "timeoutSeconds", "allowWatchBookmarks", "sendInitialEvents", "dryRun", "fieldManager", "fieldValidation",
         "force", "pretty", "timeout", "gracePeriodSeconds", "propagationPolicy", "orphanDependents", "shardSelector"]
    ),
    VALUES,
    max_size=4,
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TYPES = [
    "application/json", "application/yaml", "application/cbor", "application/vnd.kubernetes.protobuf",
    "application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json",
    "application/apply-patch+yaml", "application/apply-patch+cbor", "text/plain", "",
]  # fmt: skip
HEAD = {"apiVersion": "v1", "kind": "ConfigMap"}
BODIES = (
    st.binary(max_size=60)
    | st.binary(max_size=60).map(b"k8s\x00".__add__)
    | JSON.map(lambda v: orjson.dumps(v, default=str, option=orjson.OPT_PASSTHROUGH_SUBCLASS) if _plain(v) else b"{")
    | st.dictionaries(st.sampled_from(["metadata", "data", "binaryData", "immutable"]), JSON).map(
        lambda o: orjson.dumps({**HEAD, **o}) if _plain(o) else b"["
    )
)


TARGETS = [
    ("GET", MAPS), ("GET", f"{MAPS}/a"), ("POST", MAPS), ("PATCH", f"{MAPS}/a"), ("DELETE", f"{MAPS}/b"),
    ("GET", "/api/v1/events"), ("DELETE", "/api/v1/namespaces/x/pods"),
]  # fmt: skip


def _plain(value: Any) -> bool:
    """Whether JSON has it."""
    try:
        orjson.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


async def _asked(served: Served, method: str, path: str, query: dict[str, str], body: bytes, type_: str) -> Response:
    asked = "&".join(f"{k}={quote(v)}" for k, v in query.items())
    response = await asyncio.wait_for(served.raw(method, f"{path}?{asked}", body, content_type=type_), timeout=5)
    if response.stream is not None:
        await response.stream.aclose()  # type: ignore[attr-defined]
    return response


async def test_queries(served: Served) -> None:
    await served.create(MAPS, {"metadata": {"name": "a"}})
    loop = asyncio.get_running_loop()

    @QUICK
    @given(st.sampled_from(TARGETS), QUERIES)
    def each(target: tuple[str, str], query: dict[str, str]) -> None:
        method, path = target
        asking = _asked(
            served, method, path, query, b"{}", "application/merge-patch+json" if method == "PATCH" else TYPES[0]
        )
        response = asyncio.run_coroutine_threadsafe(asking, loop).result(10)
        upstreams = b'"message":"resourceVersion: Invalid value' in (response.body or b"")  # 500 for a watch there, too
        assert response.status < 500 or response.status == 504 or upstreams, response.body

    await asyncio.to_thread(each)


async def test_bodies(served: Served) -> None:
    await served.create(MAPS, {"metadata": {"name": "a"}})
    loop = asyncio.get_running_loop()

    @settings(QUICK, max_examples=150)
    @given(st.sampled_from([("POST", MAPS), ("PUT", f"{MAPS}/a"), ("PATCH", f"{MAPS}/a"), ("DELETE", f"{MAPS}/b")]),
           st.sampled_from(TYPES), BODIES)  # fmt: skip
    def each(target: tuple[str, str], type_: str, body: bytes) -> None:
        method, path = target
        query = {"fieldManager": "m"} if type_.startswith("application/apply") else {}
        response = asyncio.run_coroutine_threadsafe(_asked(served, method, path, query, body, type_), loop).result(10)
        text = response.body if isinstance(response.body, bytes) else b""
        typed = b"failed to create typed patch object" in text or b"failed to convert new object" in text
        assert response.status < 500 or typed, (response.status, text)

    await asyncio.to_thread(each)
    assert (await served.raw("GET", f"{MAPS}/a")).status == 200


PIECES = st.binary(max_size=30) | st.sampled_from(
    [b"GET /" + b"a" * 9000, b"A" * 300 + b": b\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"\x00\xff\x16\x03\x01", b"\r\n"]
    + [
        f"{line}\r\n".encode()
        for line in (
            "GET / HTTP/1.1", "POST /a HTTP/1.1", "GET  HTTP/1.1", "HTTP/9.9", "PRI * HTTP/2.0", "Host: a", ": ",
            "Content-Length: 3", "Content-Length: -1", "Content-Length: 99999999999999999999", "Expect: 100-continue",
            "Transfer-Encoding: chunked", "ffffffffffffffff", "Connection: upgrade", "Upgrade: websocket",
        )
    ]
)  # fmt: skip


async def test_the_wire() -> None:
    """Broken HTTP gets an answer or an end, and harms nobody else."""

    async def answer(request: Request) -> Response:
        return Response(200, b"ok", "text/plain")

    server = HTTPServer(answer, host="127.0.0.1")
    await server.start()
    loop = asyncio.get_running_loop()

    async def say(pieces: list[bytes]) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.write(b"".join(pieces))
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), 5)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    @settings(QUICK, max_examples=150)
    @given(st.lists(PIECES, max_size=7))
    def each(pieces: list[bytes]) -> None:
        said = asyncio.run_coroutine_threadsafe(say(pieces), loop).result(10)
        assert said == b"" or said.startswith(b"HTTP/1."), said
        assert b"HTTP/1.1 5" not in said or b" 501 " in said or b" 505 " in said, said

    try:
        await asyncio.to_thread(each)
        assert b"200 OK" in await say([b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"])
    finally:
        await server.stop()
