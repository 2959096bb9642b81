"""HTTP/2, one connection: frames in, streams out.

What a request means is the business of the `Handler` that the connection is given: it is told of each request's
headers, its data and its end, and answers through the `Stream`. What all streams write in one turn of the loop leaves
in one write; while the network does not take it, nothing more is put behind it but what waits in the streams.

A peer that breaks the protocol is told so with GOAWAY and cut off; one that only breaks a stream loses that one. One
that keeps this server busy with frames that ask for nothing, or with requests that it takes back at once, has a
budget (`_tolerate`), and is cut off as well.

Source: RFC 9113.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from berg.machinery.http2 import frames as f
from berg.machinery.http2.frames import Broken, Limits, StreamBroken, unpadded
from berg.machinery.http2.hpack import Decoder, Field, encode
from berg.machinery.http2.huffman import HpackError
from berg.machinery.http2.stream import Stream

WRITE_BYTES = 256 << 10
"""what is put together for the network before it must have taken it"""
PATIENCE, PATIENCE_PER_S = 10_000, 1_000
"""frames that ask for nothing: how many at once, and how many for ever"""
TAKEN_BACK = 10
"""a request that is taken back before it was answered counts as so many of them"""
OWED = 10_000
"""answers to such frames for a peer that does not read them"""
_CUT_OFF = 100
_PIECE = 256
"""what a piece of a header block counts at least, against its largest size"""
_WINDOW_HEAD = 4 << 8 | f.WINDOW
_TOO_LARGE = encode([(":status", "431"), ("content-type", "text/html; charset=utf-8")])
_TOO_LARGE_BODY = b"<h1>HTTP Error 431</h1><p>Request Header Field(s) Too Large</p>"


class Handler(Protocol):
    """What is done with requests. All are called on the loop, and must not block."""

    def request(self, stream: Stream, headers: list[Field], ended: bool) -> None: ...

    def data(self, stream: Stream, data: bytes, ended: bool) -> None: ...

    def gone(self, stream: Stream) -> None:
        """The client has taken the request back, or the connection is lost: nothing can be answered."""
        ...


class Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, handler: Handler, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.window = f.DEFAULT_WINDOW
        self.peer_frame = f.SMALLEST_MAX_FRAME
        self.paused = False
        self.full = False
        """nothing more is to be put behind what waits for the network"""
        self.held = False
        """somebody is about to `flush`"""
        self.ready: dict[int, Stream] = {}
        """streams that wait for their turn to write"""
        self.starved: dict[int, Stream] = {}
        """those that wait for the connection's window"""
        self.streams: dict[int, Stream] = {}
        self.closing = False
        self._cut_off: dict[int, None] = {}
        """streams that this side ended before the client was done, who cannot know it yet; the latest"""
        self._linger_s = 0.0
        self._handler = handler
        self._decoder = Decoder(self.limits.header_list_bytes)
        self._parts: list[bytes] = []
        self._have = 0
        self._need = len(f.PREFACE)
        self._prefaced = False
        self._peer_window = f.DEFAULT_WINDOW
        self._received = 0
        self._last = 0
        self._block: tuple[int, bytearray, bool] | None = None
        """a header block whose end is still to come: (stream, so far, whether it ends the request)"""
        self._block_cost = 0
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._spent = 0.0
        self._spent_at = 0.0
        self._owed = 0

    # -- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.loop = asyncio.get_running_loop()
        self._spent_at = self.loop.time()
        limits = self.limits
        settings = (
            (f.S_FRAME, limits.frame_bytes),
            (f.S_STREAMS, limits.streams),
            (f.S_LIST, limits.header_list_bytes),
            (f.S_WINDOW, limits.stream_window),
            (f.S_NO_PRIORITIES, 1),
        )
        self.put(f.SETTINGS, 0, 0, b"".join(f.SETTING.pack(*s) for s in settings))
        self.put(f.WINDOW, 0, 0, f.NUMBER.pack(limits.connection_window - f.DEFAULT_WINDOW))

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._have += len(data)
        if self._have < self._need and self._prefaced:  # the rest of a frame: put together once, when all is there
            self._parts.append(data)
            return
        if self._parts:
            data = b"".join((*self._parts, data))
            self._parts = []
        try:
            at = self._frames(data)
        except Broken as e:
            self.go_away(e.code, str(e))
            return
        except HpackError as e:
            self.go_away(f.COMPRESSION_ERROR, str(e))
            return
        self._have = len(data) - at
        if self._have:
            self._parts = [data[at:]]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self._out.clear()
        for stream in list(self.streams.values()):
            self.finish(stream)
            self._handler.gone(stream)

    def pause_writing(self) -> None:
        self.paused = self.full = True

    def resume_writing(self) -> None:
        self.paused = False
        self._owed = 0
        self.full = self._out_bytes >= WRITE_BYTES
        self._take_turns()

    def put(self, kind: int, flags: int, number: int, payload: bytes | memoryview, behind: bytes = b"") -> None:
        """A frame, and frames that are made already, into the write that this turn of the loop ends with."""
        out = self._out
        if not out and not self.held:
            self.loop.call_soon(self.flush)
        size = len(payload)
        out += (f.HEAD.pack(size << 8 | kind, flags, number), payload, behind)
        self._out_bytes += size + len(behind)
        if self._out_bytes >= WRITE_BYTES:
            self.full = True

    def flush(self) -> None:
        if not self._out:
            return
        data = b"".join(self._out)
        self._out = []
        self._out_bytes = 0
        self.full = self.paused
        if not self.transport.is_closing():
            self.transport.write(data)
        if self.ready:
            self._take_turns()

    def _take_turns(self) -> None:
        """Each in its turn, as long as the network takes it. A stream that has more to say lines up again."""
        ready = self.ready
        while ready and not self.full:
            ready.pop(next(iter(ready))).push()

    def shut_down(self, linger_s: float = 0.0) -> None:
        """No new requests; those under way are finished. `linger_s`: how long after that the connection stays, so
        that a client that is just asking learns that it was not heard, instead of finding the connection cut."""
        self._linger_s = linger_s
        if self.closing:
            return
        self.closing = True
        self.put(f.GOAWAY, 0, 0, f.NUMBER.pack(self._last) + f.NUMBER.pack(f.NO_ERROR))
        if not self.streams:
            self._leave()

    def _leave(self) -> None:
        if self._linger_s:
            self.loop.call_later(self._linger_s, self._close)
        else:
            self._close()

    def go_away(self, code: int, text: str) -> None:
        """Broken: nothing of it is read, or answered, any more."""
        self.closing = True
        if self.paused:
            self.transport.abort()
            return
        self.put(f.GOAWAY, 0, 0, f.NUMBER.pack(self._last) + f.NUMBER.pack(code) + text.encode())
        self._close()

    def _close(self) -> None:
        self.flush()
        if not self.transport.is_closing():
            self.transport.close()

    def finish(self, stream: Stream) -> None:
        stream.drop()
        self.streams.pop(stream.id, None)
        self.ready.pop(stream.id, None)
        self.starved.pop(stream.id, None)
        if self.closing and not self.streams:
            self.loop.call_soon(self._leave)

    def cut_off(self, number: int) -> None:
        self._cut_off[number] = None
        if len(self._cut_off) > _CUT_OFF:
            del self._cut_off[next(iter(self._cut_off))]

    # -- what a peer may do

    def _tolerate(self, cost: int = 1) -> None:
        """A frame that asks for nothing. Raises Broken when there are too many."""
        self._spent += cost
        if self._spent > PATIENCE:
            now = self.loop.time()
            self._spent = max(0.0, self._spent - (now - self._spent_at) * PATIENCE_PER_S)
            self._spent_at = now
            if self._spent > PATIENCE:
                raise Broken(f.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def _reply(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Raises Broken when the peer does not read such answers."""
        if self.paused:
            self._owed += 1
            if self._owed > OWED:
                raise Broken(f.ENHANCE_YOUR_CALM, "answers that are not read")
        self.put(kind, flags, number, payload)

    # -- frames

    def _frames(self, data: bytes) -> int:
        """Handles every whole frame; how far it came."""
        at, end = 0, len(data)
        if not self._prefaced:
            if not f.PREFACE.startswith(data[: len(f.PREFACE)]):
                raise Broken(f.PROTOCOL_ERROR, "no HTTP/2 preface")
            if end < len(f.PREFACE):
                return 0
            self._prefaced = True
            at = len(f.PREFACE)
        while end - at >= 9:
            head, flags, number = f.HEAD.unpack_from(data, at)
            size = head >> 8
            if size > self.limits.frame_bytes:
                raise Broken(f.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            stop = at + 9 + size
            if end < stop:
                self._need = 9 + size
                return at
            number &= f.LARGEST_WINDOW
            try:
                if head == _WINDOW_HEAD and self._block is None:  # most frames of a client that reads a lot
                    self._on_window(number, f.NUMBER.unpack_from(data, at + 9)[0] & f.LARGEST_WINDOW)
                else:
                    self._frame(head & 0xFF, flags, number, data[at + 9 : stop])
            except StreamBroken as e:
                self._broken(e)
            at = stop
        self._need = 9
        return at

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != f.CONTINUATION:
            raise Broken(f.PROTOCOL_ERROR, "a header block that is interrupted")
        if kind == f.HEADERS:
            self._on_headers(number, payload, flags)
        elif kind == f.DATA:
            self._on_data(number, payload, flags)
        elif kind == f.WINDOW:
            raise Broken(f.FRAME_SIZE_ERROR, "a window update that is none")
        elif kind == f.CONTINUATION:
            self._on_continuation(number, payload, flags)
        elif kind == f.SETTINGS:
            self._on_settings(number, payload, flags)
        elif kind == f.PING:
            self._on_ping(number, payload, flags)
        elif kind == f.RST:
            self._on_reset(number, payload)
        elif kind == f.PRIORITY:
            self._on_priority(number, payload)
        elif kind == f.PUSH:
            raise Broken(f.PROTOCOL_ERROR, "clients do not push")
        elif kind == f.GOAWAY and number:
            raise Broken(f.PROTOCOL_ERROR, "a stream does not go away")
        else:
            self._tolerate()  # types that are not known, and clients that say farewell, ask for nothing

    def _broken(self, broken: StreamBroken) -> None:
        self._tolerate(TAKEN_BACK)
        self._reply(f.RST, 0, broken.number, f.NUMBER.pack(broken.code))
        self.cut_off(broken.number)
        stream = self.streams.get(broken.number)
        if stream is not None:
            self.finish(stream)
            self._handler.gone(stream)

    def _on_headers(self, number: int, payload: bytes, flags: int) -> None:
        if not number:
            raise Broken(f.PROTOCOL_ERROR, "headers of no stream")
        payload = unpadded(payload, flags)
        if flags & f.HAS_PRIORITY:
            if len(payload) < 5:
                raise Broken(f.FRAME_SIZE_ERROR, "a priority that is cut off")
            depends = f.NUMBER.unpack_from(payload)[0] & f.LARGEST_WINDOW
            payload = payload[5:]
        else:
            depends = 0
        ended = bool(flags & f.END_STREAM)
        if not flags & f.END_HEADERS:
            self._block = (number, bytearray(payload), ended)
            self._block_cost = len(payload)
            return
        self._headers(number, payload, ended)
        if depends == number:
            raise StreamBroken(number, f.PROTOCOL_ERROR)

    def _on_continuation(self, number: int, payload: bytes, flags: int) -> None:
        if self._block is None or self._block[0] != number:
            raise Broken(f.PROTOCOL_ERROR, "a continuation of nothing")
        _, block, ended = self._block
        block += payload
        self._block_cost += max(_PIECE, len(payload))
        if self._block_cost > 2 * self.limits.header_list_bytes:
            raise Broken(f.ENHANCE_YOUR_CALM, "a header block that does not end")
        if flags & f.END_HEADERS:
            self._block = None
            self._headers(number, bytes(block), ended)

    def _headers(self, number: int, block: bytes, ended: bool) -> None:
        headers = self._decoder.decode(block)  # always: it keeps the table in step
        stream = self.streams.get(number)
        if stream is not None:
            self._trailers(stream, headers, ended)
            return
        if number in self._cut_off:
            self._tolerate()
            return
        if not number & 1 or number <= self._last:
            raise Broken(f.PROTOCOL_ERROR, f"stream {number} cannot be opened")
        self._last = number
        if self.closing or len(self.streams) >= self.limits.streams:
            raise StreamBroken(number, f.REFUSED_STREAM)
        stream = self.streams[number] = Stream(self, number, self._peer_window)
        stream.ended = ended
        if self._decoder.too_large:
            stream.send_headers(_TOO_LARGE)
            stream.send_data(_TOO_LARGE_BODY, end=True)
            return
        self._handler.request(stream, headers, ended)

    def _trailers(self, stream: Stream, headers: list[Field], ended: bool) -> None:
        if stream.ended:
            raise StreamBroken(stream.id, f.STREAM_CLOSED)
        if not ended or any(name[:1] in (":", "\0", "") for name, _ in headers):
            raise StreamBroken(stream.id, f.PROTOCOL_ERROR)
        stream.ended = True
        self._handler.data(stream, b"", True)

    def _on_data(self, number: int, payload: bytes, flags: int) -> None:
        size = len(payload)
        self._received += size
        if self._received > self.limits.connection_window // 2:
            self.put(f.WINDOW, 0, 0, f.NUMBER.pack(self._received))
            self._received = 0
        stream = self.streams.get(number)
        if stream is None or stream.ended:
            if not number or number > self._last:
                raise Broken(f.PROTOCOL_ERROR, "data for a stream that was never opened")
            unpadded(payload, flags)
            if number in self._cut_off:
                self._tolerate()
                return
            raise StreamBroken(number, f.STREAM_CLOSED)
        stream.received += size
        if stream.received > self.limits.stream_window:
            raise StreamBroken(number, f.FLOW_CONTROL_ERROR)
        ended = bool(flags & f.END_STREAM)
        data = unpadded(payload, flags)
        if ended:
            stream.ended = True
        elif stream.received > self.limits.stream_window // 4:
            self.put(f.WINDOW, 0, number, f.NUMBER.pack(stream.received))
            stream.received = 0
        elif not data:
            self._tolerate()
        self._handler.data(stream, data, ended)

    def _on_reset(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken(f.FRAME_SIZE_ERROR, "a reset that is none")
        if not number or number > self._last:
            raise Broken(f.PROTOCOL_ERROR, "a reset of a stream that was never opened")
        stream = self.streams.get(number)
        self._tolerate(1 if stream is None or stream.answered else TAKEN_BACK)
        if stream is not None:
            self.finish(stream)
            self._handler.gone(stream)

    def _on_priority(self, number: int, payload: bytes) -> None:
        """Nothing is done with it, here as upstream."""
        if not number:
            raise Broken(f.PROTOCOL_ERROR, "the priority of no stream")
        self._tolerate()
        if len(payload) != 5:
            raise StreamBroken(number, f.FRAME_SIZE_ERROR)
        if f.NUMBER.unpack_from(payload)[0] & f.LARGEST_WINDOW == number:
            raise StreamBroken(number, f.PROTOCOL_ERROR)

    def _on_ping(self, number: int, payload: bytes, flags: int) -> None:
        if number:
            raise Broken(f.PROTOCOL_ERROR, "a ping of a stream")
        if len(payload) != 8:
            raise Broken(f.FRAME_SIZE_ERROR, "a ping that is none")
        self._tolerate()
        if not flags & f.ACK:
            self._reply(f.PING, f.ACK, 0, payload)

    def _on_settings(self, number: int, payload: bytes, flags: int) -> None:
        if number:
            raise Broken(f.PROTOCOL_ERROR, "settings of a stream")
        if len(payload) % 6 or (flags & f.ACK and payload):
            raise Broken(f.FRAME_SIZE_ERROR, "settings that are none")
        self._tolerate()
        if flags & f.ACK:
            return
        for name, value in f.SETTING.iter_unpack(payload):
            if name == f.S_WINDOW:
                self._peer_windows(value)
            elif name == f.S_FRAME:
                if not f.SMALLEST_MAX_FRAME <= value <= f.LARGEST_MAX_FRAME:
                    raise Broken(f.PROTOCOL_ERROR, "a largest frame that is none")
                self.peer_frame = value
            elif name == f.S_PUSH and value > 1:
                raise Broken(f.PROTOCOL_ERROR, "neither pushing nor not")
        self._reply(f.SETTINGS, f.ACK, 0, b"")
        self._take_turns()

    def _peer_windows(self, value: int) -> None:
        if value > f.LARGEST_WINDOW:
            raise Broken(f.FLOW_CONTROL_ERROR, "a window that is too large")
        for stream in self.streams.values():
            stream.window += value - self._peer_window
            if stream.window > f.LARGEST_WINDOW:
                raise Broken(f.FLOW_CONTROL_ERROR, "a window that is too large")
            stream.line_up()
        self._peer_window = value

    def _on_window(self, number: int, increment: int) -> None:
        if not number:
            self.window += increment
            if not increment:
                raise Broken(f.PROTOCOL_ERROR, "a window that does not open")
            if self.window > f.LARGEST_WINDOW:
                raise Broken(f.FLOW_CONTROL_ERROR, "a window that is too large")
            if self.starved and self.window > 0:
                self.ready.update(self.starved)
                self.starved.clear()
                self._take_turns()
            return
        if number > self._last:
            raise Broken(f.PROTOCOL_ERROR, "the window of a stream that was never opened")
        stream = self.streams.get(number)
        if stream is None:
            self._tolerate()
            return
        stream.window += increment
        if not increment:
            raise StreamBroken(number, f.PROTOCOL_ERROR)
        if stream.window > f.LARGEST_WINDOW:
            raise StreamBroken(number, f.FLOW_CONTROL_ERROR)
        if stream.waiting:
            stream.line_up()
            self._take_turns()
