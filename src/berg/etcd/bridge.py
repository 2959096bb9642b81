"""HTTP/2 requests that are no gRPC, answered by the HTTP/1 side.

A client that speaks TLS chooses HTTP/2 when it can (curl does), so `/health` and the JSON gateway must be there too.
Each such request becomes one HTTP/1 request on a private socket, and its answer is copied back as it comes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from berg.machinery.http2.frames import CANCEL
from berg.machinery.http2.hpack import Field, encode
from berg.machinery.http2.stream import Stream

_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection", "te"}


class Bridge:
    """One request on its way."""

    def __init__(self, socket: Path, stream: Stream, headers: list[Field]) -> None:
        self._socket = socket
        self._stream = stream
        self._headers = headers
        self._body: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._run())

    def feed(self, data: bytes, ended: bool) -> None:
        if data:
            self._body.put_nowait(data)
        if ended:
            self._body.put_nowait(None)

    def cancel(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        sending = asyncio.ensure_future(self._send(writer))
        try:
            await self._answer(reader)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self._stream.reset(CANCEL)
        finally:
            sending.cancel()
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        fields = dict(self._headers)
        head = f"{fields[':method']} {fields[':path']} HTTP/1.1\r\nhost: {fields.get(':authority', 'localhost')}\r\n"
        for name, value in self._headers:
            if not name.startswith(":") and name not in (*_OF_THE_CONNECTION, "host", "content-length"):
                head += f"{name}: {value}\r\n"
        writer.write(f"{head}connection: close\r\ntransfer-encoding: chunked\r\n\r\n".encode("latin-1"))
        while (data := await self._body.get()) is not None:
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields: list[Field] = [(":status", head[0].split(" ")[1])]
        chunked = False
        for line in head[1:-2]:
            name, _, value = line.partition(":")
            name = name.lower()
            chunked |= name == "transfer-encoding"
            if name not in _OF_THE_CONNECTION:
                fields.append((name, value.strip()))
        self._stream.send_headers(encode(fields))
        while data := await (_chunk(reader) if chunked else reader.read(16384)):
            self._stream.send_data(data)
            await self._stream.drained()
        self._stream.send_data(b"", end=True)


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk; empty at the end."""
    size = int((await reader.readline()).split(b";")[0], 16)
    data = await reader.readexactly(size + 2)
    return data[:-2]
