"""Bytes both ways: `ByteStream`, the raw connection under every protocol here, and `Pipe`, a bounded queue of
bytes between two tasks."""

from __future__ import annotations

import asyncio
import ssl as ssl_
from collections import deque
from typing import Protocol

from berg.machinery.tasks import end


class ByteStream(Protocol):
    """What is left of a connection after its upgrade. (The API server's own `Stream` is one.)"""

    @property
    def reader(self) -> asyncio.StreamReader: ...

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


class StreamPair:
    """asyncio's reader and writer as a ByteStream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def drain(self) -> None:
        await self.writer.drain()

    def write_eof(self) -> None:
        if self.writer.can_write_eof():
            self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()


async def dial(host: str, port: int, *, ssl: ssl_.SSLContext | None = None) -> StreamPair:
    """Raises OSError."""
    return StreamPair(*await asyncio.open_connection(host, port, ssl=ssl))


class Pipe:
    """Bytes from one task to another. A writer that is `limit` ahead waits; after `feed_eof` reads end in b""."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._limit = limit
        self._eof = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    async def feed(self, data: bytes) -> None:
        await self._writable.wait()
        if not data or self._eof:
            return
        self._chunks.append(data)
        self._size += len(data)
        self._readable.set()
        if self._size >= self._limit:
            self._writable.clear()

    def feed_eof(self) -> None:
        """What was fed before is still read; what is fed after is dropped."""
        self._eof = True
        self._readable.set()
        self._writable.set()

    @property
    def at_eof(self) -> bool:
        return self._eof and not self._chunks

    async def read(self, limit: int = 65536) -> bytes:
        """At least one byte, or b"" at the end."""
        while not self._chunks:
            if self._eof:
                return b""
            self._readable.clear()
            await self._readable.wait()
        chunk = self._chunks.popleft()
        if len(chunk) > limit:
            self._chunks.appendleft(chunk[limit:])
            chunk = chunk[:limit]
        self._size -= len(chunk)
        if self._size < self._limit:
            self._writable.set()
        return chunk


async def relay(a: ByteStream, b: ByteStream) -> None:
    """Passes bytes both ways until both directions have ended or one fails; closes both."""

    async def one_way(source: ByteStream, sink: ByteStream) -> None:
        while chunk := await source.reader.read(65536):
            sink.write(chunk)
            await sink.drain()
        half_close = getattr(sink, "write_eof", None)
        if half_close is None:
            raise ConnectionResetError  # the sink cannot say that one direction has ended
        half_close()

    ways = [asyncio.create_task(one_way(a, b)), asyncio.create_task(one_way(b, a))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end(*ways)
        a.close()
        b.close()
