"""SPDY/3.1, as far as Kubernetes speaks it: many streams of bytes over one connection, each opened with headers.

Priorities, settings and flow control windows are read over, as upstream's library does; a slow reader of one
stream holds up the connection when a megabyte waits for it.

Source: SPDY Protocol draft 3.1; k8s.io/streaming spdy (moby/spdystream).
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Mapping

from berg.machinery.streaming.stream import ByteStream, Pipe

_NAMES = (  # noqa: SIM905
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age "
    "allow authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
).split()
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(n)) + n.replace("_", " ").encode() for n in _NAMES) + _TAIL.encode()
"""What the header compressor knows beforehand (draft 3.1, section 2.6.10.1)."""

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_FIN = 1
_CANCEL = 5
_MAX_FRAME = 1 << 20
_MAX_HEADERS = 1 << 20


class SpdyStream:
    """One stream. `headers` are those that opened it, names in lower case."""

    def __init__(self, connection: SpdyConnection, stream_id: int, headers: dict[str, str]) -> None:
        self.id = stream_id
        self.headers = headers
        self.incoming = Pipe()
        self.replied = asyncio.Event()
        self._connection = connection
        self._finished = False
        """nothing more is sent from here"""

    async def read(self, limit: int = 65536) -> bytes:
        """b"" when the other side has finished, reset the stream, or is gone."""
        return await self.incoming.read(limit)

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the stream or the connection is closed."""
        if self._finished or self._connection.closed:
            raise ConnectionResetError("the stream is closed")
        view = memoryview(data)
        for start in range(0, len(view), 32768):
            await self._connection.send_data(self.id, bytes(view[start : start + 32768]))

    async def finish(self) -> None:
        """Half-closes: the other side reads to the end, and may still write."""
        if not self._finished and not self._connection.closed:
            self._finished = True
            await self._connection.send_data(self.id, b"", fin=True)

    async def reset(self) -> None:
        if not self._connection.closed:
            self._finished = True
            await self._connection.send_reset(self.id)
        self.torn_down()

    def torn_down(self) -> None:
        self._finished = True
        self.incoming.feed_eof()
        self.replied.set()


class SpdyConnection:
    """Both ends alike; only the parity of stream ids differs. Run `run()` as a task; it ends with the connection."""

    def __init__(self, stream: ByteStream, *, client: bool = False) -> None:
        self._stream = stream
        self._next_id = 1 if client else 2
        self._streams: dict[int, SpdyStream] = {}
        self._accepted: asyncio.Queue[SpdyStream | None] = asyncio.Queue()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self.closed = False

    # ---- reading ----

    async def run(self) -> None:
        """Reads frames until the connection ends; never raises for what the other side does."""
        reader = self._stream.reader
        try:
            while True:
                head = await reader.readexactly(8)
                first, second = struct.unpack(">II", head)
                length, flags = second & 0xFFFFFF, second >> 24
                if length > _MAX_FRAME:
                    break
                body = await reader.readexactly(length)
                if first & 0x80000000:
                    if first >> 16 & 0x7FFF != 3:
                        break
                    await self._control(first & 0xFFFF, flags, body)
                else:
                    await self._data(first, flags, body)
        except (asyncio.IncompleteReadError, OSError, zlib.error, struct.error, ValueError):
            pass
        finally:
            self._end()

    def _end(self) -> None:
        self.closed = True
        for stream in self._streams.values():
            stream.torn_down()
        self._streams.clear()
        self._accepted.put_nowait(None)

    async def _data(self, stream_id: int, flags: int, body: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        await stream.incoming.feed(body)
        if flags & _FIN:
            stream.incoming.feed_eof()

    async def _control(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _SYN_STREAM:
            (stream_id,) = struct.unpack_from(">I", body)
            stream = SpdyStream(self, stream_id & 0x7FFFFFFF, self._headers(body[10:]))
            if flags & _FIN:
                stream.incoming.feed_eof()
            self._streams[stream.id] = stream
            await self._control_frame(_SYN_REPLY, 0, struct.pack(">I", stream.id) + self._header_block({}))
            self._accepted.put_nowait(stream)
        elif kind in (_SYN_REPLY, _HEADERS):
            (stream_id,) = struct.unpack_from(">I", body)
            self._headers(body[4:])  # keeps the decompressor in step
            found = self._streams.get(stream_id & 0x7FFFFFFF)
            if found is not None:
                found.replied.set()
                if flags & _FIN:
                    found.incoming.feed_eof()
        elif kind == _RST_STREAM:
            (stream_id,) = struct.unpack_from(">I", body)
            reset = self._streams.pop(stream_id & 0x7FFFFFFF, None)
            if reset is not None:
                reset.torn_down()
        elif kind == _PING:
            (ping,) = struct.unpack_from(">I", body)
            if ping % 2 != self._next_id % 2:  # not an answer to one of ours
                await self._control_frame(_PING, 0, body)

    def _headers(self, block: bytes) -> dict[str, str]:
        data = self._inflate.decompress(block, _MAX_HEADERS)
        if self._inflate.unconsumed_tail:
            raise ValueError("headers too large")
        (count,) = struct.unpack_from(">I", data)
        found, at = {}, 4
        for _ in range(count):
            texts = []
            for _ in range(2):
                (length,) = struct.unpack_from(">I", data, at)
                texts.append(data[at + 4 : at + 4 + length].decode("utf-8", "replace"))
                at += 4 + length
            found[texts[0].lower()] = texts[1]
        return found

    async def accept(self) -> SpdyStream | None:
        """The next stream that the other side opens; None when the connection has ended."""
        if self.closed and self._accepted.empty():
            return None
        return await self._accepted.get()

    # ---- writing ----

    async def open(self, headers: Mapping[str, str]) -> SpdyStream:
        """Opens a stream; does not wait for the reply. Raises ConnectionError."""
        if self.closed:
            raise ConnectionResetError("the connection is closed")
        stream_id, self._next_id = self._next_id, self._next_id + 2
        stream = SpdyStream(self, stream_id, {k.lower(): v for k, v in headers.items()})
        self._streams[stream_id] = stream
        # No await before the write: ids must rise on the wire, and the compressor has a state.
        body = struct.pack(">IIH", stream_id, 0, 0) + self._header_block(stream.headers)
        await self._control_frame(_SYN_STREAM, 0, body)
        return stream

    def _header_block(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            for text in (name.encode(), value.encode()):
                parts += [struct.pack(">I", len(text)), text]
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    async def _control_frame(self, kind: int, flags: int, body: bytes) -> None:
        self._stream.write(struct.pack(">HHI", 0x8003, kind, flags << 24 | len(body)) + body)
        await self._stream.drain()

    async def send_data(self, stream_id: int, data: bytes, *, fin: bool = False) -> None:
        self._stream.write(struct.pack(">II", stream_id, (_FIN if fin else 0) << 24 | len(data)) + data)
        await self._stream.drain()

    async def send_reset(self, stream_id: int) -> None:
        self.forget(stream_id)
        await self._control_frame(_RST_STREAM, 0, struct.pack(">II", stream_id, _CANCEL))

    def forget(self, stream_id: int) -> None:
        """A stream that both sides have finished with."""
        self._streams.pop(stream_id, None)

    async def go_away(self) -> None:
        if not self.closed:
            await self._control_frame(_GOAWAY, 0, struct.pack(">II", 0, 0))

    def close(self) -> None:
        self.closed = True
        self._stream.close()
