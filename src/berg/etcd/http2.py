"""HTTP/2, the server's side of one connection: frames in, streams out, flow control both ways.

What a request means is the business of the `Handler` that the connection is given: it is told of each request's
headers, its data and its end, and answers through the `Stream`. Data that the peer's windows do not allow yet waits
in the stream; `Stream.drained` tells who produces it to wait as well.

A peer that breaks the protocol is told so with GOAWAY and cut off; one that only breaks a stream loses that one.

Source: RFC 9113.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Protocol, cast

from berg.etcd.hpack import Decoder, Field, HpackError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_PUSH = 5
END_STREAM, _END_HEADERS, _PADDED, _PRIORITY, _ACK = 0x1, 0x4, 0x8, 0x20, 0x1
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 0, 1, 3, 5, 6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 7, 8, 9

MAX_FRAME = 16384
STREAM_WINDOW = 4 << 20
CONNECTION_WINDOW = 16 << 20
MAX_STREAMS = 10_000
_DEFAULT_WINDOW = 65535
_LARGEST_WINDOW = 0x7FFFFFFF


class Handler(Protocol):
    """What is done with requests. All are called on the loop, and must not block."""

    def request(self, stream: Stream, headers: list[Field], ended: bool) -> None: ...

    def data(self, stream: Stream, data: bytes, ended: bool) -> None: ...

    def gone(self, stream: Stream) -> None:
        """The client has taken the request back, or the connection is lost: nothing can be answered."""
        ...


class _Broken(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Stream:
    """One request. `state` belongs to the handler."""

    __slots__ = ("_pending", "_waiter", "connection", "ended", "id", "open", "received", "state", "window")

    def __init__(self, connection: Connection, number: int, window: int) -> None:
        self.connection = connection
        self.id = number
        self.window = window
        self.received = 0
        """bytes since the peer's window was last opened"""
        self.open = True
        self.ended = False
        """the client has said everything"""
        self.state: object = None
        self._pending: deque[tuple[int, bytes, int]] = deque()
        """frames that wait: (type, payload, flags), in order"""
        self._waiter: asyncio.Future[None] | None = None

    def send_headers(self, block: bytes, *, end: bool = False) -> None:
        self._send(_HEADERS, block, _END_HEADERS | (END_STREAM if end else 0))

    def send_data(self, data: bytes, *, end: bool = False) -> None:
        flag = END_STREAM if end else 0
        for at in range(0, len(data), MAX_FRAME):
            last = at + MAX_FRAME >= len(data)
            self._send(_DATA, data[at : at + MAX_FRAME], flag if last else 0)
        if not data and end:
            self._send(_DATA, b"", flag)

    def _send(self, kind: int, payload: bytes, flags: int) -> None:
        if not self.open:
            return
        if self._pending:
            self._pending.append((kind, payload, flags))
        elif kind == _DATA and not self._allowed(len(payload)):
            self._pending.append((kind, payload, flags))
            self.connection.blocked[self.id] = self
            self.push()
        else:
            self._write(kind, payload, flags)

    def _allowed(self, size: int) -> bool:
        return size <= self.window and size <= self.connection.window

    def _write(self, kind: int, payload: bytes, flags: int) -> None:
        if kind == _DATA:
            self.window -= len(payload)
            self.connection.window -= len(payload)
        self.connection.write(kind, flags, self.id, payload)
        if flags & END_STREAM:
            if not self.ended:  # answered before the client was done: it need not go on
                self.connection.write(_RST, 0, self.id, struct.pack(">I", NO_ERROR))
            self.connection.finish(self)

    def push(self) -> bool:
        """Writes what the windows allow now; whether anything still waits."""
        while self._pending and self.open:
            kind, payload, flags = self._pending[0]
            if kind == _DATA and not self._allowed(len(payload)):
                room = min(self.window, self.connection.window)
                if room > 0:  # a window smaller than a frame must not stop the stream for ever
                    self._write(_DATA, payload[:room], 0)
                    self._pending[0] = (kind, payload[room:], flags)
                return True
            self._pending.popleft()
            self._write(kind, payload, flags)
        self.wake()
        return False

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def drained(self) -> None:
        """Until everything that was sent has been handed to the network, and the network takes more."""
        while self.open and (self._pending or self.connection.paused):
            self.connection.blocked[self.id] = self
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def reset(self, code: int) -> None:
        if self.open:
            self.connection.write(_RST, 0, self.id, struct.pack(">I", code))
            self.connection.finish(self)


class Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, handler: Handler, common_name: str = "") -> None:
        self.common_name = common_name
        self.window = _DEFAULT_WINDOW
        self.paused = False
        self.blocked: dict[int, Stream] = {}
        self._handler = handler
        self._streams: dict[int, Stream] = {}
        self._decoder = Decoder()
        self._buffer = bytearray()
        self._prefaced = False
        self._peer_window = _DEFAULT_WINDOW
        self._received = 0
        self._last = 0
        self._block: tuple[int, bytearray, bool] | None = None
        """a header block whose end is still to come: (stream, so far, whether it ends the request)"""
        self._closing = False

    # -- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        settings = struct.pack(">HIHI", 0x3, MAX_STREAMS, 0x4, STREAM_WINDOW)
        self.write(_SETTINGS, 0, 0, settings)
        self.write(_WINDOW, 0, 0, struct.pack(">I", CONNECTION_WINDOW - _DEFAULT_WINDOW))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        try:
            at = self._frames(buffer)
        except _Broken as e:
            self._go_away(e.code, str(e))
            return
        except HpackError as e:
            self._go_away(COMPRESSION_ERROR, str(e))
            return
        if at:
            del buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in list(self._streams.values()):
            self.finish(stream)
            self._handler.gone(stream)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._unblock()

    def write(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        self.transport.write(struct.pack(">IBI", len(payload) << 8 | kind, flags, number) + payload)

    def shut_down(self) -> None:
        """No new requests; those under way are finished."""
        self._closing = True
        self.write(_GOAWAY, 0, 0, struct.pack(">II", self._last, NO_ERROR))
        if not self._streams:
            self.transport.close()

    def _go_away(self, code: int, text: str) -> None:
        self.write(_GOAWAY, 0, 0, struct.pack(">II", self._last, code) + text.encode())
        self.transport.close()

    def finish(self, stream: Stream) -> None:
        stream.open = False
        stream._pending.clear()
        stream.wake()
        self._streams.pop(stream.id, None)
        self.blocked.pop(stream.id, None)
        if self._closing and not self._streams:
            self.transport.close()

    # -- frames

    def _frames(self, buffer: bytearray) -> int:
        """Handles every whole frame; how far it came."""
        at, end = 0, len(buffer)
        if not self._prefaced:
            if end < len(PREFACE):
                return 0
            if not buffer.startswith(PREFACE):
                raise _Broken(PROTOCOL_ERROR, "no HTTP/2 preface")
            self._prefaced = True
            at = len(PREFACE)
        while end - at >= 9:
            head = int.from_bytes(buffer[at : at + 3], "big")
            stop = at + 9 + head
            if head > MAX_FRAME:
                raise _Broken(FRAME_SIZE_ERROR, f"a frame of {head} bytes")
            if end < stop:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            number = int.from_bytes(buffer[at + 5 : at + 9], "big") & _LARGEST_WINDOW
            payload = bytes(buffer[at + 9 : stop])
            at = stop
            if self._block is not None and kind != _CONTINUATION:
                raise _Broken(PROTOCOL_ERROR, "a header block that is interrupted")
            if kind == _DATA:
                self._on_data(number, payload, flags)
            elif kind == _HEADERS:
                self._on_headers(number, payload, flags)
            elif kind == _CONTINUATION:
                self._on_continuation(number, payload, flags)
            elif kind == _WINDOW:
                self._on_window(number, payload)
            elif kind == _SETTINGS:
                self._on_settings(number, payload, flags)
            elif kind == _PING:
                if len(payload) != 8 or number:
                    raise _Broken(FRAME_SIZE_ERROR, "a ping that is none")
                if not flags & _ACK:
                    self.write(_PING, _ACK, 0, payload)
            elif kind == _RST:
                self._on_reset(number)
            elif kind == _PUSH:
                raise _Broken(PROTOCOL_ERROR, "clients do not push")
            # anything else (priority, go-away, unknown types) says nothing to a server
        return at

    def _on_headers(self, number: int, payload: bytes, flags: int) -> None:
        payload = _unpadded(payload, flags)
        if flags & _PRIORITY:
            payload = payload[5:]
        ended = bool(flags & END_STREAM)
        if flags & _END_HEADERS:
            self._headers(number, payload, ended)
        else:
            self._block = (number, bytearray(payload), ended)

    def _on_continuation(self, number: int, payload: bytes, flags: int) -> None:
        if self._block is None or self._block[0] != number:
            raise _Broken(PROTOCOL_ERROR, "a continuation of nothing")
        _, block, ended = self._block
        block += payload
        if len(block) > 1 << 18:
            raise _Broken(PROTOCOL_ERROR, "a header block that does not end")
        if flags & _END_HEADERS:
            self._block = None
            self._headers(number, bytes(block), ended)

    def _headers(self, number: int, block: bytes, ended: bool) -> None:
        headers = self._decoder.decode(block)  # always: it keeps the table in step
        stream = self._streams.get(number)
        if stream is not None:  # trailers
            if not ended or stream.ended:
                raise _Broken(PROTOCOL_ERROR, "headers in the middle of a request")
            stream.ended = True
            self._handler.data(stream, b"", True)
            return
        if not number & 1 or number <= self._last:
            if number and number <= self._last:
                return  # of a request that is over
            raise _Broken(PROTOCOL_ERROR, f"stream {number} cannot be opened")
        self._last = number
        if self._closing or len(self._streams) >= MAX_STREAMS:
            self.write(_RST, 0, number, struct.pack(">I", REFUSED_STREAM))
            return
        stream = self._streams[number] = Stream(self, number, self._peer_window)
        stream.ended = ended
        self._handler.request(stream, headers, ended)

    def _on_data(self, number: int, payload: bytes, flags: int) -> None:
        size = len(payload)
        self._received += size
        if self._received > CONNECTION_WINDOW // 2:
            self.write(_WINDOW, 0, 0, struct.pack(">I", self._received))
            self._received = 0
        stream = self._streams.get(number)
        if stream is None:
            if not number or number > self._last:
                raise _Broken(PROTOCOL_ERROR, "data for a stream that was never opened")
            return
        if stream.ended:
            stream.reset(STREAM_CLOSED)
            self._handler.gone(stream)
            return
        stream.received += size
        ended = bool(flags & END_STREAM)
        if ended:
            stream.ended = True
        elif stream.received > STREAM_WINDOW // 2:
            self.write(_WINDOW, 0, number, struct.pack(">I", stream.received))
            stream.received = 0
        self._handler.data(stream, _unpadded(payload, flags), ended)

    def _on_reset(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            self.finish(stream)
            self._handler.gone(stream)

    def _on_settings(self, number: int, payload: bytes, flags: int) -> None:
        if number or len(payload) % 6:
            raise _Broken(FRAME_SIZE_ERROR, "settings that are none")
        if flags & _ACK:
            return
        for name, value in struct.iter_unpack(">HI", payload):
            if name == 0x4:
                if value > _LARGEST_WINDOW:
                    raise _Broken(FLOW_CONTROL_ERROR, "a window that is too large")
                for stream in self._streams.values():
                    stream.window += value - self._peer_window
                self._peer_window = value
        self.write(_SETTINGS, _ACK, 0, b"")
        self._unblock()

    def _on_window(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _Broken(FRAME_SIZE_ERROR, "a window update that is none")
        increment = int.from_bytes(payload, "big") & _LARGEST_WINDOW
        if not number:
            self.window += increment
            if not increment or self.window > _LARGEST_WINDOW:
                raise _Broken(FLOW_CONTROL_ERROR, "a window that is too large")
            self._unblock()
            return
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.window += increment
        if not increment or stream.window > _LARGEST_WINDOW:
            stream.reset(FLOW_CONTROL_ERROR)
            self._handler.gone(stream)
        elif number in self.blocked and not stream.push():
            self.blocked.pop(number, None)

    def _unblock(self) -> None:
        for number, stream in list(self.blocked.items()):
            if self.paused:
                return
            if not stream.push():
                self.blocked.pop(number, None)


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise _Broken(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
