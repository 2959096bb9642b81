"""Exec and attach, the serving side: stdin, stdout, stderr, an error channel and terminal sizes over one
upgraded connection.

`serve_exec` opens the channels, runs the handler with a session, tells the client how it ended (a Status since
v4, a text before) and takes the connection down without losing what was written. When the client goes away,
stdin ends and `session.gone` is set; whether the command lives on is the handler's decision.

Source: k8s.io/cri-streaming pkg/streaming/remotecommand; KEP-4006 for v5 (a channel can be closed).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import orjson

from berg.machinery.status import ApiError, Obj
from berg.machinery.streaming.handshake import Handshake
from berg.machinery.streaming.spdy import SpdyConnection, SpdyStream
from berg.machinery.streaming.stream import ByteStream, Pipe
from berg.machinery.streaming.websocket import WebSocket
from berg.machinery.tasks import end

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE = 255
"""v5: the number of the channel that the next byte names is closed"""
STREAM_TYPES = {STDIN: "stdin", STDOUT: "stdout", STDERR: "stderr", ERROR: "error", RESIZE: "resize"}

_CREATION_TIMEOUT_S = 30
_LINGER_S = 5
_CHUNK = 32768


@dataclass(slots=True, frozen=True)
class ExecOptions:
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False
    """a terminal has one output: stderr is then not a channel of its own"""


class ExecSession:
    """What a command's handler talks to. Writes raise ConnectionError when the client is gone."""

    def __init__(self, options: ExecOptions, channels: _Channels) -> None:
        self.options = options
        self._channels = channels
        self.stdin: Pipe | None = channels.stdin if options.stdin else None
        """`await read()` gives b"" when the client has closed it or is gone"""
        self.gone = channels.gone

    async def write_stdout(self, data: bytes) -> None:
        if self.options.stdout and data:
            await self._channels.write(STDOUT, data)

    async def write_stderr(self, data: bytes) -> None:
        if self.options.stderr and not self.options.tty and data:
            await self._channels.write(STDERR, data)

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """(width, height) of the client's terminal, as often as it changes; ends with the connection."""
        decoder = json.JSONDecoder()
        text = ""
        while chunk := await self._channels.resize.read():
            text += chunk.decode("utf-8", "replace")
            while text := text.lstrip():
                try:
                    size, end = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[end:]
                if isinstance(size, dict):
                    yield int(size.get("Width", 0)), int(size.get("Height", 0))
            if len(text) > 4096:
                return


ExecHandler = Callable[[ExecSession], Awaitable[int]]
"""Runs the command and returns its exit code. What it raises is the client's error message."""


async def serve_exec(stream: ByteStream, handshake: Handshake, options: ExecOptions, handler: ExecHandler) -> None:
    """Serves one exec or attach on a connection that was just upgraded, and closes it."""
    if options.tty and options.stderr:
        options = ExecOptions(options.stdin, options.stdout, False, True)
    channels: _Channels = (
        _WebSocketChannels(stream, handshake.protocol, options)
        if handshake.transport == "websocket"
        else _SpdyChannels(stream, handshake.protocol, options)
    )
    reader = asyncio.create_task(channels.run())
    try:
        await channels.open()
        status = await _run(handler, ExecSession(options, channels))
        with contextlib.suppress(OSError):
            await channels.finish(status)
        channels.stdin.feed_eof()  # what nobody will read must not hold up the reader
        await asyncio.wait([reader], timeout=_LINGER_S)  # closing with unread input would cut off our last words
    except (OSError, TimeoutError):
        pass
    finally:
        await end(reader)
        stream.close()


async def _run(handler: ExecHandler, session: ExecSession) -> Obj:
    try:
        return exit_status(await handler(session))
    except ApiError as e:
        return e.to_status()
    except Exception as e:
        text = f"error executing command in container: {e}"
        return ApiError(
            500, "InternalError", f"Internal error occurred: {text}", {"causes": [{"message": text}]}
        ).to_status()


def exit_status(code: int) -> Obj:
    """The Status that stands for a command's exit code."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _error_text(status: Obj, protocol: str) -> bytes:
    if protocol.startswith(("v4.", "v5.")):
        return orjson.dumps(status)
    return b"" if status["status"] == "Success" else str(status.get("message", "")).encode()


class _Channels(Protocol):
    stdin: Pipe
    resize: Pipe
    gone: asyncio.Event

    async def run(self) -> None:
        """Reads until the client is gone."""

    async def open(self) -> None:
        """Returns when every channel is there."""

    async def write(self, channel: int, data: bytes) -> None: ...

    async def finish(self, status: Obj) -> None:
        """The error channel's last words, and the end of all channels."""


class _WebSocketChannels:
    """One message is one write: a byte (or digit, when base64) that names the channel, then the data."""

    def __init__(self, stream: ByteStream, protocol: str, options: ExecOptions) -> None:
        self.stdin, self.resize, self.gone = Pipe(), Pipe(), asyncio.Event()
        self._ws = WebSocket(stream)
        self._protocol = protocol
        self._options = options
        self._base64 = "base64" in protocol

    async def run(self) -> None:
        try:
            while (message := await self._ws.receive()) is not None:
                channel, data = self._parse(message)
                if channel == STDIN and self._options.stdin:
                    await self.stdin.feed(data)
                elif channel == RESIZE:
                    await self.resize.feed(data)
                elif channel == CLOSE and self._protocol.startswith("v5.") and data[:1] == bytes([STDIN]):
                    self.stdin.feed_eof()
        finally:
            self.gone.set()
            self.stdin.feed_eof()
            self.resize.feed_eof()

    def _parse(self, message: bytes | str) -> tuple[int, bytes]:
        if not message:
            return -1, b""
        if not self._base64:
            data = message.encode() if isinstance(message, str) else message
            return data[0], data[1:]
        text = message.decode("latin-1") if isinstance(message, bytes) else message
        try:
            return ord(text[0]) - ord("0"), base64.b64decode(text[1:])
        except ValueError:
            return -1, b""

    async def open(self) -> None:
        """Upstream writes nothing to the lowest output channel, so that clients see that it works."""
        await self.write(STDOUT if self._options.stdout else STDERR if self._options.stderr else ERROR, b"")

    async def write(self, channel: int, data: bytes) -> None:
        for start in range(0, len(data) or 1, _CHUNK):
            part = data[start : start + _CHUNK]
            if self._base64:
                await self._ws.send(f"{channel}{base64.b64encode(part).decode()}")
            else:
                await self._ws.send(bytes([channel]) + part)

    async def finish(self, status: Obj) -> None:
        if text := _error_text(status, self._protocol):
            await self.write(ERROR, text)
        self._ws.close()


class _SpdyChannels:
    """The client opens a stream for each channel, with a header `streamtype`."""

    def __init__(self, stream: ByteStream, protocol: str, options: ExecOptions) -> None:
        self.stdin, self.resize, self.gone = Pipe(), Pipe(), asyncio.Event()
        self._connection = SpdyConnection(stream)
        self._protocol = protocol
        self._options = options
        self._streams: dict[str, SpdyStream] = {}

    async def run(self) -> None:
        try:
            await self._connection.run()
        finally:
            self.gone.set()
            self.stdin.feed_eof()
            self.resize.feed_eof()

    async def open(self) -> None:
        options = self._options
        expected = {"error"}
        expected |= {n for n in ("stdin", "stdout", "stderr") if getattr(options, n)}
        if options.tty and self._protocol.startswith(("v3.", "v4.")):
            expected.add("resize")
        async with asyncio.timeout(_CREATION_TIMEOUT_S):
            while not expected <= self._streams.keys():
                stream = await self._connection.accept()
                if stream is None:
                    raise ConnectionResetError("the client went away")
                self._streams[stream.headers.get("streamtype", "")] = stream
        if "stdin" in self._streams:
            self.stdin = self._streams["stdin"].incoming
        if "resize" in self._streams:
            self.resize = self._streams["resize"].incoming

    async def write(self, channel: int, data: bytes) -> None:
        stream = self._streams.get(STREAM_TYPES[channel])
        if stream is not None:
            await stream.write(data)

    async def finish(self, status: Obj) -> None:
        if text := _error_text(status, self._protocol):
            await self.write(ERROR, text)
        for name in ("stdout", "stderr", "error", "stdin", "resize"):
            if name in self._streams:
                await self._streams[name].finish()
        await self._connection.go_away()
