"""HTTP/2 from strangers: what is no request, floods of frames, bombs. The stream or the connection ends, with the
code that says why; what others ask is answered."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berg.apiserver.http.http2 import HTTP2Protocol
from berg.apiserver.http.message import Request, Response
from berg.apiserver.http.server import HTTPServer
from berg.apiserver.http.tls import Peer
from berg.machinery.http2 import connection as core
from berg.machinery.http2.frames import PREFACE
from berg.machinery.http2.hpack import Decoder, encode

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
NO_ERROR, PROTOCOL, FLOW_CONTROL, STREAM_CLOSED, REFUSED, COMPRESSION, CALM = 0, 1, 3, 5, 7, 9, 11
END, END_HEADERS = 1, 4
GET = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")]


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload


def number(value: int) -> bytes:
    return struct.pack(">I", value)


class Wire:
    """The transport of a connection whose client is this test."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closing = False
        self.protocol: Any = None
        self.stuck = False
        self.decoder = Decoder()

    def write(self, data: bytes) -> None:
        self.sent += data
        if self.stuck:
            self.protocol.pause_writing()

    def close(self) -> None:
        self.closing = True

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """What has been said since the last call."""
        self.protocol.flush()
        at, sent = 0, bytes(self.sent)
        self.sent.clear()
        while at < len(sent):
            size = int.from_bytes(sent[at : at + 3], "big")
            stream = int.from_bytes(sent[at + 5 : at + 9], "big")
            yield sent[at + 3], sent[at + 4], stream, sent[at + 9 : at + 9 + size]
            at += 9 + size

    def codes(self) -> dict[int, str]:
        """stream → status, `RST n`, or of 0: `GOAWAY n`."""
        out: dict[int, str] = {}
        for kind, _, stream, payload in self.frames():
            if kind == RST:
                out[stream] = f"RST {int.from_bytes(payload, 'big')}"
            elif kind == GOAWAY:
                out[0] = f"GOAWAY {int.from_bytes(payload[4:8], 'big')}"
            elif kind == HEADERS:
                out[stream] = dict(self.decoder.decode(payload))[":status"]
        return out


async def answer(request: Request) -> Response:
    if request.path == "/hang":
        await asyncio.Event().wait()
    return Response(200, b"ok", "text/plain")


@pytest.fixture
async def wire() -> Wire:
    return await opened()


async def opened() -> Wire:
    server = HTTPServer(answer, max_body_bytes=1000)
    server.loop = asyncio.get_running_loop()
    wire = Wire()
    wire.protocol = HTTP2Protocol(server, Peer("10.0.0.1:1", None, ()))
    wire.protocol.connection_made(wire)
    wire.protocol.data_received(PREFACE + frame(SETTINGS, 0, 0))
    assert [kind for kind, *_ in wire.frames()] == [SETTINGS, WINDOW, SETTINGS]
    return wire


async def said(wire: Wire, data: bytes) -> dict[int, str]:
    wire.protocol.data_received(data)
    if wire.protocol.tasks():
        await asyncio.wait(wire.protocol.tasks(), timeout=30)
    return wire.codes()


def request(stream: int, fields: Sequence[tuple[str, str]] = GET, flags: int = END | END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, encode(list(fields)))


@pytest.mark.parametrize(
    "fields",
    [
        GET[1:],
        [GET[0], *GET[2:]],
        [*GET[:2], GET[3]],
        [*GET, ("Upper", "x")],
        [*GET, ("", "x")],
        [*GET, ("a b", "x")],
        [*GET, ("a", "x\r\ny: z")],
        [*GET, ("a", "\0")],
        [*GET, ("a", "x"), (":path", "/b")],
        [*GET, (":path", "/b")],
        [*GET, (":protocol", "websocket")],
        [*GET, (":status", "200")],
        [GET[0], (":scheme", "ftp"), *GET[2:]],
        [*GET[:2], (":path", ""), GET[3]],
        [*GET[:2], (":path", "b"), GET[3]],
        [*GET[:2], (":path", "/%zz"), GET[3]],
        [*GET, ("content-length", "-1")],
        [*GET, ("content-length", "0"), ("content-length", "0")],
        [(":method", "CONNECT"), (":scheme", "https"), (":authority", "a")],
    ],
)
async def test_what_is_no_request_is_reset_and_the_next_is_answered(wire: Wire, fields: list[tuple[str, str]]) -> None:
    assert await said(wire, request(1, fields)) == {1: f"RST {PROTOCOL}"}
    assert await said(wire, request(3)) == {3: "200"}


@pytest.mark.parametrize(
    ("field", "told"),
    [
        (("connection", "upgrade"), 'request header "Connection" is not valid in HTTP/2'),
        (("upgrade", "websocket"), 'request header "Upgrade" is not valid in HTTP/2'),
        (("transfer-encoding", "chunked"), 'request header "Transfer-Encoding" is not valid in HTTP/2'),
        (("te", "gzip"), 'request header "TE" may only be "trailers" in HTTP/2'),
    ],
)
async def test_headers_of_http_1_are_told_as_go_tells_them(wire: Wire, field: tuple[str, str], told: str) -> None:
    wire.protocol.data_received(request(1, [*GET, field]))
    (_, _, _, head), (_, _, _, body) = wire.frames()
    assert dict(Decoder().decode(head))[":status"] == "400" and body == f"{told}\n".encode()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (request(1, flags=END_HEADERS) + frame(DATA, END, 1, bytes(5)) + frame(DATA, END, 1), STREAM_CLOSED),
        (request(1, [*GET, ("content-length", "3")], END_HEADERS) + frame(DATA, END, 1, b"1234"), PROTOCOL),
        (request(1, [*GET, ("content-length", "3")], END_HEADERS) + frame(DATA, END, 1, b"12"), PROTOCOL),
        (request(1, flags=END_HEADERS) + frame(HEADERS, END_HEADERS, 1, encode([("a", "b")])), PROTOCOL),
        (request(1, flags=END_HEADERS) + frame(HEADERS, 5, 1, encode([(":path", "/b")])), PROTOCOL),
        (request(1, flags=END_HEADERS) + frame(WINDOW, 0, 1, number(0)), PROTOCOL),
        (request(1, flags=END_HEADERS) + frame(WINDOW, 0, 1, number(0x7FFFFFFF)), FLOW_CONTROL),
        (request(1, flags=END_HEADERS) + frame(PRIORITY, 0, 1, number(1) + b"\0"), PROTOCOL),
    ],
)
async def test_a_stream_that_is_broken_ends_alone(wire: Wire, sent: bytes, code: int) -> None:
    assert (await said(wire, sent))[1] == f"RST {code}"
    assert await said(wire, request(3)) == {3: "200"}


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (request(2), PROTOCOL),
        (request(3) + request(1), PROTOCOL),
        (frame(DATA, 0, 7, b"x"), PROTOCOL),
        (frame(RST, 0, 7, number(8)), PROTOCOL),
        (frame(WINDOW, 0, 7, number(8)), PROTOCOL),
        (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
        (frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 2)), PROTOCOL),
        (frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 5)), PROTOCOL),
        (frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 31)), FLOW_CONTROL),
        (frame(WINDOW, 0, 0, number(0x7FFFFFFF)), FLOW_CONTROL),
        (frame(HEADERS, END_HEADERS, 1, b"\xbf"), COMPRESSION),
        (frame(PUSH, 0, 1, bytes(4)), PROTOCOL),
    ],
)
async def test_a_connection_that_is_broken_ends_with_the_reason(wire: Wire, sent: bytes, code: int) -> None:
    assert (await said(wire, sent))[0] == f"GOAWAY {code}"
    assert wire.closing


async def test_too_many_headers_are_431_and_a_bomb_is_the_end(wire: Wire) -> None:
    big = [("a", "x" * 4000)] * 300
    block = encode([*GET, *big])
    pieces = [block[at : at + 200_000] for at in range(0, len(block), 200_000)]
    sent = frame(HEADERS, END, 1, pieces[0])
    for piece in pieces[1:]:
        sent += frame(CONTINUATION, END_HEADERS if piece is pieces[-1] else 0, 1, piece)
    assert await said(wire, sent) == {1: "431"}
    assert await said(wire, request(3)) == {3: "200"}
    bomb = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 5000  # one header, referred to again and again
    assert await said(wire, frame(HEADERS, END | END_HEADERS, 5, bomb)) == {0: f"GOAWAY {COMPRESSION}"}


async def test_what_was_on_its_way_when_an_answer_came_early_is_passed_over(wire: Wire) -> None:
    """As curl does it: all of the body that the window takes at once, and trailers."""
    assert await said(wire, request(1, [*GET, ("content-length", "5000")], END_HEADERS)) == {1: "413"}
    await asyncio.sleep(0)
    assert wire.codes() == {1: f"RST {NO_ERROR}"}
    late = frame(DATA, 0, 1, bytes(2000)) * 2 + frame(DATA, 0, 1, bytes(1000))
    assert await said(wire, late + frame(HEADERS, END | END_HEADERS, 1, encode([("a", "b")]))) == {}
    assert await said(wire, request(3)) == {3: "200"}


async def test_the_answer_that_comes_early_is_not_in_the_write_that_resets(wire: Wire) -> None:
    wire.protocol.data_received(request(1, [*GET, ("content-length", "5000")], END_HEADERS))
    assert [kind for kind, *_ in wire.frames()] == [HEADERS, DATA]
    await asyncio.sleep(0)
    assert [(kind, payload) for kind, _, _, payload in wire.frames()] == [(RST, number(NO_ERROR))]


async def test_requests_beyond_the_limit_are_refused(wire: Wire) -> None:
    hang = [*GET[:2], (":path", "/hang"), GET[3]]
    wire.protocol.data_received(b"".join(request(n, hang) for n in range(1, 203, 2)))
    assert wire.codes() == {201: f"RST {REFUSED}"}
    assert len(wire.protocol.tasks()) == 100
    wire.protocol.connection_lost(None)
    await asyncio.wait(wire.protocol.tasks(), timeout=30)
    assert not wire.protocol.tasks()


REQUESTS_TAKEN_BACK = (request(n) + frame(RST, 0, n, number(8)) for n in range(1, 1 << 20, 2))
MADE_TO_RESET = (request(n, flags=END_HEADERS) + frame(WINDOW, 0, n, number(0)) for n in range(1, 1 << 20, 2))


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(REQUESTS_TAKEN_BACK, id="rapid reset (CVE-2023-44487)"),
        pytest.param(MADE_TO_RESET, id="made to reset (CVE-2025-8671)"),
        pytest.param((frame(PING, 0, 0, bytes(8)) for _ in range(1 << 20)), id="ping (CVE-2019-9512)"),
        pytest.param((frame(SETTINGS, 0, 0) for _ in range(1 << 20)), id="settings (CVE-2019-9515)"),
        pytest.param((frame(PRIORITY, 0, 1, bytes(5)) for _ in range(1 << 20)), id="priority (CVE-2019-9513)"),
        pytest.param((frame(99, 0, 0) for _ in range(1 << 20)), id="unknown"),
        pytest.param(
            (request(1, flags=END_HEADERS) if not n else frame(DATA, 0, 1) for n in range(1 << 20)),
            id="empty data (CVE-2019-9518)",
        ),
        pytest.param(
            (frame(HEADERS, END, 1) if not n else frame(CONTINUATION, 0, 1) for n in range(1 << 20)),
            id="continuation (CVE-2024-27316)",
        ),
    ],
)
async def test_floods_end_the_connection(wire: Wire, flood: Iterator[bytes]) -> None:
    asked = 0
    for some in flood:
        wire.protocol.data_received(some)
        asked += 1
        if wire.closing:
            break
        if asked % 100 == 0:
            await asyncio.sleep(0)
    assert asked < 20_000
    assert wire.codes()[0] == f"GOAWAY {CALM}"
    assert await said(await opened(), request(1)) == {1: "200"}


async def test_a_client_of_good_will_may_do_all_of_that_now_and_then(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = wire.protocol.loop.time()
    for minute in range(20):
        monkeypatch.setattr(wire.protocol.loop, "time", lambda minute=minute: now + 60 * minute)
        for n in range(500):
            stream = 2 * (minute * 500 + n) + 1
            wire.protocol.data_received(request(stream) + frame(RST, 0, stream, number(8)))
            if n % 100 == 0:
                await asyncio.sleep(0)
        wire.protocol.data_received(frame(PING, 0, 0, bytes(8)) * 1000)
    assert not wire.closing


async def test_who_reads_nothing_makes_nothing_grow(wire: Wire) -> None:
    wire.stuck = True
    for n in range(1, 400, 2):
        wire.protocol.data_received(request(n))
        await asyncio.sleep(0)
    for _ in range(core.OWED):
        if wire.closing:
            break
        wire.protocol.data_received(frame(SETTINGS, 0, 0))
    await asyncio.sleep(0)
    assert len(wire.sent) < 1 << 19
    assert len(wire.protocol.streams) <= 100


PIECES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        frame,
        st.integers(0, 12),
        st.sampled_from([0, 1, 4, 5, 8, 9, 13, 0x20, 0x25, 0x2D]),
        st.sampled_from([0, 1, 1, 2, 3, 5, 7]),
        st.binary(max_size=30) | st.just(encode(GET)) | st.sampled_from([number(0), number(5), bytes(5), bytes(8)]),
    ),
    st.just(request(1)), st.just(request(3, flags=END_HEADERS)), st.just(frame(DATA, END, 3, b"x")),
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.lists(PIECES, max_size=8), st.integers(1, 50))
def test_the_wire(pieces: list[bytes], cut: int) -> None:
    """Nothing raises, every connection that is still open answers, and bytes may come in any pieces."""

    async def say() -> None:
        wire = await opened()
        data = b"".join(pieces)
        for at in range(0, len(data), cut):
            wire.protocol.data_received(data[at : at + cut])
        if wire.protocol.tasks():
            await asyncio.wait(wire.protocol.tasks(), timeout=30)
        codes = wire.codes()
        assert wire.closing == (0 in codes)
        wire.protocol.connection_lost(None)
        assert not wire.protocol.streams

    asyncio.run(say())
