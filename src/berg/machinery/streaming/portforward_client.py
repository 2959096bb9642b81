"""Port-forward, the calling side: SPDY, bare or tunnelled in a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

from berg.machinery.status import ApiError
from berg.machinery.streaming.handshake import PORT_FORWARD_SPDY, TUNNEL
from berg.machinery.streaming.portforward import pump
from berg.machinery.streaming.remotecommand_client import upgrade
from berg.machinery.streaming.spdy import SpdyConnection, SpdyStream
from berg.machinery.streaming.stream import ByteStream
from berg.machinery.streaming.websocket import Tunnel, WebSocket
from berg.machinery.tasks import end


class PortForwardClient:
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._connection = SpdyConnection(stream, client=True)
        self._reader = asyncio.create_task(self._connection.run())
        self._requests = 0

    async def open(self, port: int) -> tuple[SpdyStream, SpdyStream]:
        """(data, error) streams of a new connection to `port` of the pod."""
        headers = {"port": str(port), "requestID": str(self._requests)}
        self._requests += 1
        error = await self._connection.open({**headers, "streamType": "error"})
        await error.finish()  # nothing is ever written there from this side
        return await self._connection.open({**headers, "streamType": "data"}), error

    async def forward(self, port: int, local: ByteStream) -> None:
        """Serves one local connection to its end. Raises ApiError with what the pod's side complained about."""
        data, error = await self.open(port)
        await pump(data, local)
        text = b""
        while chunk := await error.read():
            text += chunk
        if text:
            raise ApiError(500, "InternalError", text.decode("utf-8", "replace"))

    async def close(self) -> None:
        self._connection.close()
        await end(self._reader)


async def connect_port_forward(
    stream: ByteStream,
    target: str,
    headers: Mapping[str, str],
    *,
    transport: Literal["spdy", "websocket"] = "websocket",
) -> PortForwardClient:
    """`target` is path and query of a portforward URL. Raises ApiError when the server refuses."""
    protocols = PORT_FORWARD_SPDY if transport == "spdy" else (TUNNEL,)
    await upgrade(stream, target, headers, transport=transport, protocols=protocols)
    return PortForwardClient(Tunnel(WebSocket(stream, client=True)) if transport == "websocket" else stream)
