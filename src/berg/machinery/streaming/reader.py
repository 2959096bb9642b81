"""A stream that only goes to the client (a log, a watch) over WebSocket: what a browser can read.

Each chunk becomes one message; what the client sends is ignored, except that it leaves.

Source: k8s.io/streaming httpstream/wsstream Reader; k8s.io/apiserver endpoints/handlers/watch.go HandleWS.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator

from berg.machinery.streaming.handshake import Handshake
from berg.machinery.streaming.stream import ByteStream
from berg.machinery.streaming.websocket import WebSocket

_LINGER_S = 5


async def serve_chunks(
    stream: ByteStream, handshake: Handshake, chunks: AsyncIterator[bytes], *, text: bool = False, ping: bool = False
) -> None:
    """Sends `chunks` until they end or the client leaves, then closes both. `text`: as text messages (JSON watches);
    `ping`: an empty message first, as logs begin."""
    ws = WebSocket(stream)
    encoded = "base64" in handshake.protocol

    async def send() -> None:
        if ping:
            await ws.send("" if encoded else b"")
        async for chunk in chunks:
            if encoded:
                await ws.send(base64.b64encode(chunk).decode())
            else:
                await ws.send(chunk.decode("utf-8", "replace") if text else chunk)

    async def ignore() -> None:
        while await ws.receive() is not None:
            pass

    sending, leaving = asyncio.create_task(send()), asyncio.create_task(ignore())
    try:
        await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        ws.close()
        await asyncio.wait([leaving], timeout=_LINGER_S)
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        closing = getattr(chunks, "aclose", None)
        if closing is not None:
            with contextlib.suppress(RuntimeError):
                await closing()
        stream.close()
