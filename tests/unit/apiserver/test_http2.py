"""HTTP/2 at the listening port: what a client of good will hears. Judged by the `h2` library as that client."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from berg.apiserver.config import Config
from berg.apiserver.http import http2, listening
from berg.apiserver.http.message import Request, Response, Stream
from berg.apiserver.http.server import HTTPServer
from berg.apiserver.http.tls import server_context
from berg.machinery.pki import CertificateAuthority
from tests.unit.apiserver.http2_client import Http2Client

Connect = Callable[..., Awaitable[Http2Client]]
CANCEL = 8


class Backend:
    """What is behind the protocol: it answers by the path, and tells what became of it."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        """for what is slow"""
        self.more = asyncio.Event()
        """for watches, which begin with one event"""
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.asked: list[Request] = []
        self.made = 0
        self.closed = asyncio.Event()

    async def handle(self, request: Request) -> Response:
        self.asked.append(request)
        self.begun.put_nowait(request.path)
        try:
            return await self._answer(request)
        except asyncio.CancelledError:
            self.cancelled.put_nowait(request.path)
            raise

    async def _answer(self, request: Request) -> Response:
        if request.path == "/slow":
            await self.go.wait()
        elif request.path == "/broken":
            raise RuntimeError("on purpose")
        elif request.path == "/large":
            return Response(200, bytes(range(256)) * 4000, "application/octet-stream")
        elif request.path == "/nothing":
            return Response(204, content_type="")
        elif request.path == "/bye":
            return Response(200, b"bye", headers={"Connection": "close", "Keep-Alive": "5"})
        elif request.path == "/many":
            return Response(200, b"{}", headers={"Warning": "\n".join(f'299 - "{n:0400}"' for n in range(100))})
        elif request.path == "/watch":
            return Response(200, stream=self._events())
        elif request.path == "/upgrade":
            return Response(101, upgrade=self._never)
        said = {"method": request.method, "query": request.raw_query, "headers": request.headers}
        return Response(200, json.dumps({**said, "body": request.body.decode("latin-1")}).encode())

    async def _never(self, stream: Stream) -> None:
        raise AssertionError("there is no connection to give away")

    async def _events(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.made += 1 << 14
                yield b"e" * (1 << 14)
                await self.more.wait()
        finally:
            self.closed.set()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    pair = CertificateAuthority.create("test").issue("berg", names=["127.0.0.1"], server=True)
    cert, key = pair.write(tmp_path, "tls")
    return server_context(str(cert), str(key))


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
async def server(tls: ssl.SSLContext, backend: Backend) -> AsyncIterator[HTTPServer]:
    server = HTTPServer(backend.handle, host="127.0.0.1", tls=tls, max_body_bytes=1000)
    await server.start()
    yield server
    await server.stop(0.0)


@pytest.fixture
async def connect(server: HTTPServer) -> AsyncIterator[Connect]:
    opened: list[Http2Client] = []

    async def connect(*, window: int = 65535, reads: bool = True) -> Http2Client:
        opened.append(await Http2Client.connect(server.port, window=window, reads=reads))
        return opened[-1]

    yield connect
    for client in opened:
        await client.close()


async def test_what_the_server_allows_is_what_upstream_allows(connect: Connect) -> None:
    client = await connect()
    # SETTINGS of kube-apiserver 1.36: MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE
    assert {3: 100, 4: 262144, 5: 262144, 6: 1048896}.items() <= client.settings.items()
    assert (await client.get()).status == "200"
    assert client.h2.outbound_flow_control_window == 262144 * 100


async def test_a_client_that_does_not_offer_it_gets_http_1(server: HTTPServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_a_request_and_its_answer(connect: Connect, backend: Backend) -> None:
    client = await connect()
    repeated = [("impersonate-group", "a, b"), ("impersonate-group", "ç"), ("x", "1"), ("x", "2")]
    repeated += [("accept", "x"), ("accept", "y")]
    crumbs = [("cookie", "a=1"), ("cookie", "b=2")]
    heard = await client.get("/p?x=1", method="POST", body=b"hello", headers=[*repeated, *crumbs])
    said = json.loads(heard.data)
    assert (said["method"], said["query"], said["body"]) == ("POST", "x=1", "hello")
    assert said["headers"] == {
        "host": "berg", "impersonate-group": "a, b\nç", "x": "1, 2", "accept": "x", "cookie": "a=1; b=2",
    }  # fmt: skip
    assert backend.asked[0].protocol == "HTTP/2.0"
    headers = dict(heard.headers)
    assert headers["content-type"] == "application/json" and headers["date"].endswith(" GMT")
    assert headers["content-length"] == str(len(heard.data))


async def test_slow_answers_hold_up_nobody(connect: Connect, backend: Backend) -> None:
    client = await connect()
    slow = client.ask("/slow")
    assert [(await client.get(f"/{n}")).status for n in range(5)] == ["200"] * 5
    assert not client.streams[slow].over
    backend.go.set()
    assert (await client.answer(slow)).status == "200"


async def test_head_and_nothing(connect: Connect) -> None:
    client = await connect()
    heard = await client.get("/", method="HEAD")
    assert (heard.status, heard.data) == ("200", b"") and int(dict(heard.headers)["content-length"]) > 10
    heard = await client.get("/nothing")
    assert heard.status == "204" and "content-length" not in dict(heard.headers)


async def test_headers_larger_than_a_frame(connect: Connect) -> None:
    client = await connect()
    heard = await client.get("/many")
    assert len([v for k, v in heard.headers if k == "warning"]) == 100


async def test_expect_continue(connect: Connect) -> None:
    client = await connect()
    number = client.ask("/", "POST", headers=[("expect", "100-continue")], end=False)
    await client.until(lambda: bool(client.streams[number].informed))
    client.h2.send_data(number, b"now", end_stream=True)
    client.flush()
    assert json.loads((await client.answer(number)).data)["body"] == "now"
    assert client.streams[number].informed == ["100"]


@pytest.mark.parametrize("window", [5000, 65535, 1 << 20])
async def test_large_answers_through_any_window(connect: Connect, window: int) -> None:
    client = await connect(window=window)
    heard = await client.get("/large")
    assert heard.data == bytes(range(256)) * 4000 and heard.ended


@pytest.mark.parametrize("announced", [True, False])
async def test_too_large_a_body_is_413_and_harms_no_other(connect: Connect, backend: Backend, announced: bool) -> None:
    client = await connect()
    slow = client.ask("/slow")
    headers = [("content-length", "1001")] if announced else []
    heard = await client.get("/", method="POST", body=b"x" * 1001, headers=headers)
    assert heard.status == "413"
    assert json.loads(heard.data)["message"] == "Request entity too large: limit is 1000"
    assert [r.path for r in backend.asked] == ["/slow"]
    backend.go.set()
    assert (await client.answer(slow)).status == "200"


async def test_a_request_that_is_taken_back_is_cancelled_alone(connect: Connect, backend: Backend) -> None:
    client = await connect()
    first, second = client.ask("/slow?1"), client.ask("/slow?2")
    async with asyncio.timeout(30):
        assert [await backend.begun.get() for _ in range(2)] == ["/slow", "/slow"]
        client.h2.reset_stream(first, CANCEL)
        client.flush()
        assert await backend.cancelled.get() == "/slow"
    backend.go.set()
    assert (await client.answer(second)).status == "200"
    assert backend.cancelled.empty()


async def test_a_lost_connection_cancels_all(connect: Connect, backend: Backend, server: HTTPServer) -> None:
    client = await connect()
    for path in ("/slow", "/slow", "/slow", "/watch"):
        client.ask(path)
    await client.until(lambda: bool(client.streams[7].data))
    async with asyncio.timeout(30):
        await client.close()
        assert [await backend.cancelled.get() for _ in range(3)] == ["/slow"] * 3
        await backend.closed.wait()
    assert not server.connections


async def test_a_handler_that_fails_ends_its_stream_alone(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    client = await connect()
    assert (await client.get("/broken")).reset == 2
    assert "on purpose" in caplog.text
    assert (await client.get("/upgrade")).reset == 13, "HTTP_1_1_REQUIRED"
    assert (await client.get()).status == "200"


async def test_who_does_not_read_a_watch_loses_that_alone(
    connect: Connect, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "SLOW_CLIENT_S", 0.2)
    backend.more.set()
    client = await connect(reads=False)
    watch = client.ask("/watch")
    heard = await client.answer(watch)
    assert heard.reset == CANCEL and len(heard.data) == 65535
    await asyncio.wait_for(backend.closed.wait(), 30)
    assert backend.made <= 65535 + (2 << 14), "what nobody reads is not made"
    client.h2.increment_flow_control_window(1 << 20)
    assert (await client.get("/2")).status == "200"


async def test_a_watch_that_is_stuck_stalls_no_other(connect: Connect, backend: Backend) -> None:
    backend.more.set()
    client = await connect(reads=False)
    client.h2.increment_flow_control_window(1 << 20)
    client.ask("/watch")
    await client.until(lambda: len(client.streams[1].data) == 65535)
    for n in range(20):
        assert (await client.get(f"/{n}")).status == "200"


async def test_connection_close_and_goaway_chance(connect: Connect, server: HTTPServer) -> None:
    client = await connect()
    heard = await client.get("/bye")
    assert heard.data == b"bye" and not {"connection", "keep-alive"} & dict(heard.headers).keys()
    await client.until(lambda: client.goaway is not None)
    assert client.goaway is not None and client.goaway.error_code == 0 and client.goaway.last_stream_id == 1
    server.goaway_chance = 1.0
    client = await connect()
    assert (await client.get()).status == "200"
    await client.until(lambda: client.eof)
    assert client.goaway is not None and client.goaway.last_stream_id == 1


def test_the_chance_is_small() -> None:
    assert listening.goaway_chance(Config(goaway_chance=0.02)) == 0.02
    for wrong in (-0.1, 0.021):
        with pytest.raises(ValueError, match="--goaway-chance can not be less than 0 or greater than"):
            listening.goaway_chance(Config(goaway_chance=wrong))


async def test_it_can_be_switched_off(tmp_path: Path) -> None:
    pair = CertificateAuthority.create("test").issue("berg", names=["127.0.0.1"], server=True)
    cert, key = pair.write(tmp_path, "tls")
    config = Config(tls_cert_file=str(cert), tls_private_key_file=str(key), disable_http2_serving=True)
    server = HTTPServer(Backend().handle, host="127.0.0.1", tls=listening.context(config))
    await server.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()
    finally:
        await server.stop()


async def test_stopping_lets_answers_finish_and_ends_streams(
    connect: Connect, backend: Backend, server: HTTPServer
) -> None:
    client = await connect()
    watch, slow = client.ask("/watch"), client.ask("/slow")
    await client.until(lambda: bool(client.streams[watch].data))
    stopping = asyncio.ensure_future(server.stop(30.0))
    await client.until(lambda: client.goaway is not None)
    backend.go.set()
    assert (await client.answer(slow)).status == "200"
    assert (await client.answer(watch)).ended
    await stopping
    await client.until(lambda: client.eof)
    assert [r.path for r in backend.asked] == ["/watch", "/slow"]


async def test_idle_and_unfinished_connections_end(connect: Connect, server: HTTPServer, backend: Backend) -> None:
    client = await connect()
    stuck = client.ask("/", "POST", body=b"half", end=False)
    await client.get("/")
    (connection,) = server.connections
    now = time.monotonic()
    connection.sweep(now + 50)
    assert not client.streams[stuck].over
    connection.sweep(now + 70)
    assert (await client.answer(stuck)).reset == CANCEL
    connection.sweep(now + 80)
    assert (await client.get("/")).status == "200"
    connection.sweep(now + 1000)
    await client.until(lambda: client.eof)
    assert client.goaway is not None and client.goaway.error_code == 0
