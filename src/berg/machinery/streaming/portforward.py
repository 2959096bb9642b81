"""Port-forward, the serving side: any number of TCP connections into a pod over one upgraded connection.

SPDY (bare, or tunnelled in a WebSocket): for each connection the client opens an error and a data stream with
the headers `port` and `requestid`. Plain WebSocket: the ports are named in the request, and each has one data
and one error channel, on which the server first says the port.

Source: k8s.io/cri-streaming pkg/streaming/portforward; KEP-4006.
"""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Awaitable, Callable, Sequence

from berg.machinery.streaming.handshake import TUNNEL, Handshake
from berg.machinery.streaming.spdy import SpdyConnection, SpdyStream
from berg.machinery.streaming.stream import ByteStream, Pipe
from berg.machinery.streaming.websocket import Tunnel, WebSocket
from berg.machinery.tasks import end

Connect = Callable[[int], Awaitable[ByteStream]]
"""Dials the port inside the pod; what it raises is told to the client."""

_PAIR_TIMEOUT_S = 30


async def serve_port_forward(
    stream: ByteStream, handshake: Handshake, connect: Connect, *, ports: Sequence[int] = ()
) -> None:
    """Serves until the client goes away, then closes everything. `ports` are those of the query; only plain
    WebSocket needs them."""
    if handshake.transport == "websocket" and handshake.protocol != TUNNEL:
        await _WebSocketForwarder(WebSocket(stream), "base64" in handshake.protocol, connect, ports).run()
    else:
        below: ByteStream = Tunnel(WebSocket(stream)) if handshake.transport == "websocket" else stream
        await _SpdyForwarder(SpdyConnection(below), connect).run()
        below.close()
    stream.close()


class _SpdyForwarder:
    def __init__(self, connection: SpdyConnection, connect: Connect) -> None:
        self._connection = connection
        self._connect = connect
        self._waiting: dict[str, dict[str, SpdyStream]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        reader = asyncio.create_task(self._connection.run())
        try:
            while (stream := await self._connection.accept()) is not None:
                await self._sort(stream)
        finally:
            for task in [reader, *self._tasks]:
                task.cancel()
            await asyncio.gather(reader, *self._tasks, return_exceptions=True)

    async def _sort(self, stream: SpdyStream) -> None:
        """Streams come in pairs; old clients give no request id, but open error and data one after the other."""
        kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
        if kind not in ("error", "data") or not port.isdigit() or not 0 < int(port) < 65536:
            await stream.reset()
            return
        request = stream.headers.get("requestid") or str(stream.id if kind == "error" else stream.id - 2)
        pair = self._waiting.setdefault(request, {})
        pair[kind] = stream
        if len(pair) == 2:
            del self._waiting[request]
            self._start(self._forward(pair["data"], pair["error"], int(port)))
        else:
            self._start(self._expire(request, pair))

    def _start(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _expire(self, request: str, pair: dict[str, SpdyStream]) -> None:
        await asyncio.sleep(_PAIR_TIMEOUT_S)
        if self._waiting.get(request) is pair:
            del self._waiting[request]
            for stream in pair.values():
                await stream.reset()

    async def _forward(self, data: SpdyStream, error: SpdyStream, port: int) -> None:
        try:
            try:
                pod = await self._connect(port)
            except Exception as e:
                await error.write(f"error forwarding port {port}: {e}".encode())
                return
            await pump(data, pod)
        except OSError:
            pass
        finally:
            if not self._connection.closed:
                await data.finish()
                await error.finish()
            self._connection.forget(data.id)
            self._connection.forget(error.id)


async def pump(stream: SpdyStream, connection: ByteStream) -> None:
    """Bytes both ways until both directions have ended, or one failed; closes `connection`."""

    async def outward() -> None:
        while chunk := await stream.read():
            connection.write(chunk)
            await connection.drain()
        if hasattr(connection, "write_eof"):
            connection.write_eof()

    async def inward() -> None:
        while chunk := await connection.reader.read(65536):
            await stream.write(chunk)
        await stream.finish()

    await _both(outward(), inward(), connection)


async def _both(outward: Awaitable[None], inward: Awaitable[None], connection: ByteStream) -> None:
    out, back = asyncio.ensure_future(outward), asyncio.ensure_future(inward)
    try:
        done, _ = await asyncio.wait([out, back], return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.exception()
    finally:
        out.cancel()
        back.cancel()
        await asyncio.gather(out, back, return_exceptions=True)
        connection.close()


class _WebSocketForwarder:
    def __init__(self, ws: WebSocket, encoded: bool, connect: Connect, ports: Sequence[int]) -> None:
        self._ws = ws
        self._encoded = encoded
        self._connect = connect
        self._ports = ports
        self._pipes = [Pipe() for _ in ports]

    async def run(self) -> None:
        tasks = [asyncio.create_task(self._read())]
        try:
            for i, port in enumerate(self._ports):
                for channel in (2 * i, 2 * i + 1):
                    await self._write(channel, struct.pack("<H", port))
            tasks += [asyncio.create_task(self._forward(i, port)) for i, port in enumerate(self._ports)]
            await asyncio.wait(tasks[1:] or tasks)
            self._ws.close()
            await asyncio.wait(tasks[:1], timeout=5)
        except OSError:
            pass
        finally:
            await end(*tasks)

    async def _read(self) -> None:
        try:
            while (message := await self._ws.receive()) is not None:
                if not message:
                    continue
                if self._encoded:
                    text = message if isinstance(message, str) else message.decode("latin-1")
                    channel, data = ord(text[0]) - 48, base64.b64decode(text[1:])
                else:
                    raw = message if isinstance(message, bytes) else message.encode()
                    channel, data = raw[0], raw[1:]
                if channel % 2 == 0 and 0 <= channel // 2 < len(self._pipes):
                    await self._pipes[channel // 2].feed(data)
        except ValueError:
            pass
        finally:
            for pipe in self._pipes:
                pipe.feed_eof()

    async def _write(self, channel: int, data: bytes) -> None:
        if self._encoded:
            await self._ws.send(f"{chr(48 + channel)}{base64.b64encode(data).decode()}")
        else:
            await self._ws.send(bytes([channel]) + data)

    async def _forward(self, i: int, port: int) -> None:
        try:
            pod = await self._connect(port)
        except Exception as e:
            await self._write(2 * i + 1, f"error forwarding port {port}: {e}".encode())
            return

        async def outward() -> None:
            while chunk := await self._pipes[i].read():
                pod.write(chunk)
                await pod.drain()
            raise ConnectionResetError  # the WebSocket is gone: there is no half-close here

        async def inward() -> None:
            while chunk := await pod.reader.read(32768):
                await self._write(2 * i, chunk)
            raise ConnectionResetError

        await _both(outward(), inward(), pod)
