"""Exec and attach, the calling side, over a ByteStream that is connected to a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Literal

import orjson

from berg.machinery.status import ApiError, Obj
from berg.machinery.streaming.handshake import EXEC_SPDY, PROTOCOL_HEADER, accept_key, request_headers
from berg.machinery.streaming.remotecommand import CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, ExecOptions
from berg.machinery.streaming.spdy import SpdyConnection, SpdyStream
from berg.machinery.streaming.stream import ByteStream, Pipe
from berg.machinery.streaming.websocket import WebSocket
from berg.machinery.tasks import end


async def upgrade(
    stream: ByteStream,
    target: str,
    headers: Mapping[str, str],
    *,
    transport: Literal["spdy", "websocket"],
    protocols: tuple[str, ...],
    method: str = "POST",
) -> str:
    """Sends the upgrade request (`target` is path and query; `headers` must have Host) and reads the answer.
    Returns the agreed protocol. Raises ApiError with what the server said instead of 101."""
    asked = request_headers(transport, protocols)
    verb = "GET" if transport == "websocket" else method
    lines = [f"{verb} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in (*headers.items(), *asked))]
    if verb == "POST":
        lines.append("Content-Length: 0")
    stream.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    await stream.drain()
    try:
        raw = await stream.reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as e:
        raise ApiError(502, "BadGateway", f"unable to upgrade connection: {e}") from None
    first, *rest = raw.decode("latin-1").split("\r\n")
    answer = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in rest if line)}
    status = int(first.split(" ")[1])
    if status != 101:
        length = min(int(answer.get("content-length") or 0), 1 << 20)
        body = await stream.reader.readexactly(length) if length else b""
        with contextlib.suppress(ValueError):
            parsed = orjson.loads(body)
            if isinstance(parsed, dict) and parsed.get("kind") == "Status":
                raise ApiError.from_status(parsed)
        text = body.decode("utf-8", "replace").strip() or first
        raise ApiError(status, "", f"unable to upgrade connection: {text}")
    if transport == "websocket":
        if answer.get("sec-websocket-accept") != accept_key(dict(asked)["Sec-WebSocket-Key"]):
            raise ApiError(502, "BadGateway", "unable to upgrade connection: wrong Sec-WebSocket-Accept")
        return answer.get("sec-websocket-protocol", "")
    return answer.get(PROTOCOL_HEADER, "")


class ExecClient:
    """A running command. Read `stdout` and `stderr` (Pipes) to their end, then `await status()`."""

    def __init__(self, options: ExecOptions) -> None:
        self.options = options
        self.stdout, self.stderr, self._error = Pipe(), Pipe(), Pipe()
        self._tasks: list[asyncio.Task[None]] = []
        self._protocol = ""

    async def write_stdin(self, data: bytes) -> None:
        raise NotImplementedError

    async def close_stdin(self) -> None:
        raise NotImplementedError

    async def resize(self, width: int, height: int) -> None:
        raise NotImplementedError

    async def status(self) -> Obj:
        """How the command ended; a connection that broke is a Failure too."""
        text = b""
        while chunk := await self._error.read():
            text += chunk
        if not text and not self._protocol.startswith(("v4.", "v5.")):
            return {"metadata": {}, "status": "Success"}
        with contextlib.suppress(ValueError):
            status = orjson.loads(text)
            if isinstance(status, dict):
                return status
        message = text.decode("utf-8", "replace") or "the connection ended before the command did"
        return {"metadata": {}, "status": "Failure", "message": message, "code": 500}

    async def exit_code(self) -> int:
        """Raises ApiError when the command could not be run or its end is unknown."""
        status = await self.status()
        if status.get("status") == "Success":
            return 0
        for cause in (status.get("details") or {}).get("causes") or ():
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
        raise ApiError.from_status(status)

    async def close(self) -> None:
        await end(*self._tasks)


async def connect_exec(
    stream: ByteStream,
    target: str,
    headers: Mapping[str, str],
    options: ExecOptions,
    *,
    transport: Literal["spdy", "websocket"] = "websocket",
    protocols: tuple[str, ...] | None = None,
) -> ExecClient:
    """Starts the command that `target` (path and query of an exec or attach URL) names."""
    if protocols is None:
        protocols = EXEC_SPDY if transport == "spdy" else ("v5.channel.k8s.io", "v4.channel.k8s.io")
    protocol = await upgrade(stream, target, headers, transport=transport, protocols=protocols)
    client: _SpdyClient | _WebSocketClient
    if transport == "spdy":
        client = _SpdyClient(stream, options, protocol)
        await client.open()
    else:
        client = _WebSocketClient(stream, options, protocol)
    return client


class _WebSocketClient(ExecClient):
    def __init__(self, stream: ByteStream, options: ExecOptions, protocol: str) -> None:
        super().__init__(options)
        self._stream = stream
        self._ws = WebSocket(stream, client=True)
        self._protocol = protocol
        self._tasks.append(asyncio.create_task(self._read()))

    async def _read(self) -> None:
        pipes = {STDOUT: self.stdout, STDERR: self.stderr, ERROR: self._error}
        try:
            while (message := await self._ws.receive()) is not None:
                data = message if isinstance(message, bytes) else message.encode()
                if data and data[0] in pipes:
                    await pipes[data[0]].feed(data[1:])
        finally:
            for pipe in pipes.values():
                pipe.feed_eof()

    async def write_stdin(self, data: bytes) -> None:
        for start in range(0, len(data), 32768):
            await self._ws.send(bytes([STDIN]) + data[start : start + 32768])

    async def close_stdin(self) -> None:
        """Only v5 can say it; before, the command never sees the end of its input."""
        if self._protocol.startswith("v5."):
            await self._ws.send(bytes([CLOSE, STDIN]))

    async def resize(self, width: int, height: int) -> None:
        await self._ws.send(bytes([RESIZE]) + orjson.dumps({"Width": width, "Height": height}))

    async def close(self) -> None:
        self._ws.close()
        await super().close()
        self._stream.close()


class _SpdyClient(ExecClient):
    def __init__(self, stream: ByteStream, options: ExecOptions, protocol: str) -> None:
        super().__init__(options)
        self._connection = SpdyConnection(stream, client=True)
        self._protocol = protocol
        self._streams: dict[str, SpdyStream] = {}
        self._tasks.append(asyncio.create_task(self._connection.run()))

    async def open(self) -> None:
        names = ["error"]
        names += [n for n in ("stdin", "stdout") if getattr(self.options, n)]
        names += ["stderr"] if self.options.stderr and not self.options.tty else []
        names += ["resize"] if self.options.tty and self._protocol.startswith(("v3.", "v4.")) else []
        for name in names:
            self._streams[name] = await self._connection.open({"streamType": name})
        self._error = self._streams["error"].incoming
        for name in ("stdout", "stderr"):
            if name in self._streams:
                setattr(self, name, self._streams[name].incoming)
            else:
                getattr(self, name).feed_eof()

    async def write_stdin(self, data: bytes) -> None:
        await self._streams["stdin"].write(data)

    async def close_stdin(self) -> None:
        await self._streams["stdin"].finish()

    async def resize(self, width: int, height: int) -> None:
        if "resize" in self._streams:
            await self._streams["resize"].write(orjson.dumps({"Width": width, "Height": height}))

    async def close(self) -> None:
        self._connection.close()
        await super().close()
