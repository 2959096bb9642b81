"""HTTP/1.1 as bytes: what goes in and what comes out of one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from berg.apiserver.http import protocol
from berg.apiserver.http.message import Request, Response, Stream
from berg.apiserver.http.server import HTTPServer


async def handle(request: Request) -> Response:
    if request.path == "/stream":

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        return Response(stream=chunks())
    if request.path == "/upgrade":

        async def echo(stream: Stream) -> None:
            while data := await stream.reader.read(100):
                stream.write(data.upper())
                await stream.drain()

        return Response(101, headers={"Connection": "Upgrade", "Upgrade": "x"}, upgrade=echo)
    text = f"{request.method} {request.path} {request.raw_query} {request.body.decode()}"
    return Response(200, text.encode(), "text/plain", {"X-Seen": request.headers.get("impersonate-group", "")})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = HTTPServer(handle, host="127.0.0.1", max_body_bytes=100)
    await server.start()
    yield server.port
    await server.stop()


async def exchange(port: int, data: bytes, *, until_eof: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 5) if until_eof else await reader.read(4096)
    writer.close()
    return answer


async def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    data = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
    answer = await exchange(port, data + b"GET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.index(b"GET /a") < answer.index(b"POST /b x=1 hi") < answer.index(b"GET /c")
    assert answer.count(b"HTTP/1.1 200 OK") == 3


async def test_chunked_body_and_answer(port: int) -> None:
    body = b"2\r\nhi\r\n3\r\n you\r\n0\r\n\r\n".replace(b"3\r\n you", b"4\r\n you")
    answer = await exchange(
        port,
        b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + body
        + b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    assert b"POST /p  hi you" in answer
    assert answer.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_head_has_no_body(port: int) -> None:
    answer = await exchange(port, b"HEAD /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 9\r\n" in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101,
    ],
)
async def test_too_large_a_body_is_413_and_the_end(port: int, sent: bytes) -> None:
    answer = await exchange(port, sent)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Request entity too large: limit is 100" in answer


async def test_what_is_no_http_is_400(port: int) -> None:
    assert (await exchange(port, b"hello\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_expect_continue(port: int) -> None:
    data = b"POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    assert (await exchange(port, data)).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


async def test_repeated_headers_keep_their_values_apart(port: int) -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\nImpersonate-Group: a, b\r\nImpersonate-Group: c\r\nConnection: close\r\n\r\n"
    answer = await exchange(port, data)
    assert b"X-Seen: a, b\r\nX-Seen: c\r\n" in answer


async def test_an_upgraded_connection_is_the_handlers(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly")
    assert b"101 Switching Protocols" in await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(5) == b"EARLY"
    writer.write(b"late")
    assert await reader.readexactly(4) == b"LATE"
    writer.close()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request: missing required Host header"),
        (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", b"400 Bad Request"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * ((1 << 20) + 8192) + b"\r\n\r\n",
            b"431 Request Header Fields Too Large",
        ),
    ],
    ids=["host", "escape", "colon", "size"],
)
async def test_requests_that_are_none(port: int, sent: bytes, told: bytes) -> None:
    answer = await exchange(port, sent)
    assert answer.startswith(b"HTTP/1.1 " + told[:3]) and answer.endswith(b"\r\n\r\n" + told)


async def test_a_megabyte_of_headers_is_read(port: int) -> None:
    sent = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n"
    assert (await exchange(port, sent)).startswith(b"HTTP/1.1 200")


async def test_who_speaks_too_slowly_is_cut_off() -> None:
    server = HTTPServer(handle, host="127.0.0.1", max_body_bytes=100)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    for _ in range(1000):
        if server.connections and next(iter(server.connections))._in_message:
            break
        await asyncio.sleep(0.001)
    (connection,) = server.connections
    begun = connection.last_active
    for later in range(1, 7):  # something comes all the time, but never the end
        writer.write(b"X: y\r\n")
        await asyncio.sleep(0.001)
        assert connection.overdue(begun + later * 6) is (later == 6)
    connection._deadline = 0.0
    server._sweep()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await server.stop()


async def test_who_does_not_read_a_watch_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SLOW_CLIENT_S", 0.05)
    made, ended = 0, asyncio.Event()

    async def endless(request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            nonlocal made
            try:
                while True:
                    made += 1 << 16
                    yield b"x" * (1 << 16)
            finally:
                ended.set()

        return Response(stream=events())

    server = HTTPServer(endless, host="127.0.0.1")
    await server.start()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 10)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(ended.wait(), 5)
    assert made < 32 << 20, "what nobody reads is not made: only the kernel's buffers and ours fill up"
    assert not server.connections or next(iter(server.connections)).closing
    writer.close()
    await server.stop()


async def test_repeated_headers_that_are_lists_stay_apart() -> None:
    seen: list[dict[str, str]] = []

    async def handler(request: Request) -> Response:
        seen.append(request.headers)
        return Response(200, b"{}")

    server = HTTPServer(handler, host="127.0.0.1", list_headers=["X-My-Group"])
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-My-Group: a, b\r\nX-My-Group: c\r\nVia: x\r\nVia: y\r\n\r\n")
    await reader.readline()
    assert (seen[0]["x-my-group"], seen[0]["via"]) == ("a, b\nc", "x, y")
    writer.close()
    await server.stop()
