"""HTTP/2 frames: flow control, and what becomes of peers that break the rules."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from berg.machinery.http2.connection import Connection
from berg.machinery.http2.frames import PREFACE
from berg.machinery.http2.hpack import Field, encode
from berg.machinery.http2.stream import Stream

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
REQUEST = encode([(":method", "POST"), (":path", "/x")])


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload


class Transport:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sent = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """What was sent since the last call."""
        self.connection.flush()
        out, at = [], 0
        while at < len(self.sent):
            size = int.from_bytes(self.sent[at : at + 3], "big")
            kind, flags = self.sent[at + 3], self.sent[at + 4]
            number = int.from_bytes(self.sent[at + 5 : at + 9], "big")
            out.append((kind, flags, number, bytes(self.sent[at + 9 : at + 9 + size])))
            at += 9 + size
        self.sent.clear()
        return out


class Recorder:
    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.heard: list[Any] = []

    def request(self, stream: Stream, headers: list[Field], ended: bool) -> None:
        self.streams.append(stream)
        self.heard.append((headers, ended))

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        self.heard.append((data, ended))

    def gone(self, stream: Stream) -> None:
        self.heard.append("gone")


@pytest.fixture
async def peer() -> tuple[Connection, Transport, Recorder]:
    recorder = Recorder()
    connection = Connection(recorder)
    transport = Transport(connection)
    connection.connection_made(transport)  # type: ignore[arg-type]
    connection.data_received(PREFACE + frame(SETTINGS, 0, 0))
    assert [kind for kind, *_ in transport.frames()] == [SETTINGS, WINDOW, SETTINGS]
    return connection, transport, recorder


Peer = tuple[Connection, Transport, Recorder]


async def test_a_request_and_its_answer(peer: Peer) -> None:
    connection, transport, recorder = peer
    connection.data_received(frame(HEADERS, 4, 1, REQUEST) + frame(DATA, 1, 1, b"hello"))
    assert recorder.heard == [([(":method", "POST"), (":path", "/x")], False), (b"hello", True)]
    stream = recorder.streams[0]
    stream.send_headers(b"h")
    stream.send_data(b"body")
    stream.send_headers(b"t", end=True)
    assert transport.frames() == [(HEADERS, 4, 1, b"h"), (DATA, 0, 1, b"body"), (HEADERS, 5, 1, b"t")]
    assert not connection.streams


async def test_bytes_may_come_one_by_one_and_headers_in_pieces(peer: Peer) -> None:
    connection, _, recorder = peer
    padded = b"\x03" + REQUEST[:4] + b"\0" * 3
    data = frame(HEADERS, 0x1 | 0x8, 1, padded) + frame(CONTINUATION, 4, 1, REQUEST[4:])
    for byte in data:
        connection.data_received(bytes([byte]))
    assert recorder.heard == [([(":method", "POST"), (":path", "/x")], True)]


async def test_data_waits_for_the_windows(peer: Peer) -> None:
    connection, transport, recorder = peer
    connection.data_received(frame(HEADERS, 5, 1, REQUEST))
    stream = recorder.streams[0]
    body = bytes(100_000)
    stream.send_data(body)
    stream.send_headers(b"t", end=True)
    sent = transport.frames()
    assert sum(len(p) for *_, p in sent) == 65535  # the trailers wait behind the data
    draining = asyncio.ensure_future(stream.drained())
    await asyncio.sleep(0)
    connection.data_received(frame(WINDOW, 0, 1, struct.pack(">I", 50_000)))
    assert transport.frames() == []  # the connection's window is still empty
    connection.data_received(frame(WINDOW, 0, 0, struct.pack(">I", 50_000)))
    sent = transport.frames()
    assert sum(len(p) for kind, *_, p in sent if kind == DATA) == 100_000 - 65535
    assert sent[-1] == (HEADERS, 5, 1, b"t")
    await draining


async def test_a_change_of_the_initial_window_counts_for_openstreams(peer: Peer) -> None:
    connection, transport, recorder = peer
    connection.data_received(frame(HEADERS, 5, 1, REQUEST) + frame(WINDOW, 0, 0, struct.pack(">I", 1 << 20)))
    recorder.streams[0].send_data(bytes(70_000))
    assert sum(len(p) for *_, p in transport.frames()) == 65535
    connection.data_received(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 70_000)))
    assert sum(len(p) for kind, *_, p in transport.frames() if kind == DATA) == 70_000 - 65535


async def test_received_windows_are_opened_again(peer: Peer) -> None:
    connection, transport, _ = peer
    connection.data_received(frame(HEADERS, 4, 1, REQUEST))
    for _ in range(600):
        connection.data_received(frame(DATA, 0, 1, bytes(16384)))
    updates = [(number, struct.unpack(">I", p)[0]) for kind, _, number, p in transport.frames() if kind == WINDOW]
    assert {number for number, _ in updates} == {0, 1}


async def test_a_reset_and_a_lost_connection_are_told(peer: Peer) -> None:
    connection, _, recorder = peer
    connection.data_received(frame(HEADERS, 4, 1, REQUEST) + frame(HEADERS, 4, 3, REQUEST))
    connection.data_received(frame(RST, 0, 1, struct.pack(">I", 8)))
    assert recorder.heard[-1] == "gone" and not recorder.streams[0].open
    connection.connection_lost(None)
    assert not recorder.streams[1].open and not connection.streams


async def test_ping(peer: Peer) -> None:
    connection, transport, _ = peer
    connection.data_received(frame(PING, 0, 0, b"12345678"))
    assert transport.frames() == [(PING, 1, 0, b"12345678")]


async def test_shutting_down_lets_requests_finish(peer: Peer) -> None:
    connection, transport, recorder = peer
    connection.data_received(frame(HEADERS, 5, 1, REQUEST))
    connection.shut_down()
    connection.data_received(frame(HEADERS, 5, 3, REQUEST))
    assert [kind for kind, *_ in transport.frames()] == [GOAWAY, RST]
    recorder.streams[0].send_headers(b"t", end=True)
    await asyncio.sleep(0)
    assert transport.closed


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(HEADERS, 4, 2, REQUEST), 1),  # an even stream
        (frame(DATA, 0, 5, b"x"), 1),  # of a stream that is not there
        (frame(DATA, 8, 0, b""), 1),
        (frame(HEADERS, 0, 1, REQUEST) + frame(PING, 0, 0, bytes(8)), 1),  # in the middle of headers
        (frame(CONTINUATION, 4, 1, b""), 1),
        (frame(HEADERS, 4, 1, b"\xff\xff\xff\xff\x7f"), 9),  # headers that do not decode
        (frame(WINDOW, 0, 0, bytes(4)), 1),
        (frame(WINDOW, 0, 0, b"x"), 6),
        (frame(PING, 0, 0, b"x"), 6),
        (frame(SETTINGS, 0, 0, b"x"), 6),
        (b"\x00\x50\x00\x00\x00\x00\x00\x00\x01", 6),  # longer than a frame may be
        (frame(5, 0, 1, b""), 1),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_cut_off(peer: Peer, data: bytes, code: int) -> None:
    connection, transport, _ = peer
    connection.data_received(data)
    kind, _, _, payload = transport.frames()[-1]
    assert kind == GOAWAY and transport.closed
    assert struct.unpack(">I", payload[4:8])[0] == code


async def test_not_http2_at_all() -> None:
    connection = Connection(Recorder())
    transport = Transport(connection)
    connection.connection_made(transport)  # type: ignore[arg-type]
    connection.data_received(b"PRI * HTTP/9.9 and something else entirely")
    assert transport.closed
