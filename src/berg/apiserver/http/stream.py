"""The raw connection that an upgraded request is left with: a `Stream` over the connection's own transport."""

from __future__ import annotations

import asyncio


class RawStream:
    """`reader` gets what the client sends from now on; `drain` waits while the client does not read."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, first: bytes) -> None:
        self._transport = transport
        self.reader = asyncio.StreamReader(limit=1 << 18, loop=loop)
        self.reader.set_transport(transport)
        self.writable = asyncio.Event()
        self.writable.set()
        if first:
            self.reader.feed_data(first)

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("connection closed")
        await self.writable.wait()

    def close(self) -> None:
        self._transport.close()
