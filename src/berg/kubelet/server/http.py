"""A small HTTP/1.1 server over TLS, made for the kubelet: requests in, answers out, and connections handed over whole.

aiohttp's parser takes no SPDY upgrade, and a spliced connection needs no parser at all; so this reads the head
itself. What an upgrade's client has sent early stays in the reader, which is handed over with the connection.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

log = logging.getLogger(__name__)

MAX_HEAD = 1 << 16
MAX_BODY = 3 << 20
IDLE_S = 120.0
REASONS = {
    101: "Switching Protocols",
    200: "OK",
    201: "Created",
    301: "Moved Permanently",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case; repeated ones joined with a comma."""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes = b""
    """As it came, for passing on."""
    path: str = ""
    query: dict[str, list[str]] = field(default_factory=dict)
    peer: Any = None
    """The verified client certificate as `ssl` gives it, or None."""
    body: bytes = b""

    def value(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def flag(self, name: str) -> bool:
        return self.value(name).lower() in ("1", "true", "t")

    @property
    def upgrade(self) -> bool:
        return "upgrade" in self.headers.get("connection", "").lower() and "upgrade" in self.headers


@dataclass(slots=True)
class Response:
    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    hijacked: bool = False
    """The handler has used the connection itself; it is closed now."""


Handler = Callable[[Request], Awaitable[Response]]


class HTTPServer:
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, address: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._server = await asyncio.start_server(self._accept, address, port, ssl=tls, limit=MAX_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            pass  # the server stops
        except Exception:
            log.exception("kubelet server")
        finally:
            self._connections.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the connection is done."""
        async with asyncio.timeout(IDLE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        request = _parse(head, reader, writer)
        if request is None:
            await _send(writer, Response(400, b"Bad Request"), close=True, head_only=False)
            return False
        request.peer = _peer(writer)
        keep = request.headers.get("connection", "").lower() != "close"
        if not request.upgrade and not await _read_body(request):
            await _send(writer, Response(413, b"Request Entity Too Large"), close=True, head_only=False)
            return False
        try:
            response = await self._handler(request)
        except (asyncio.CancelledError, OSError):
            raise
        except Exception as e:
            log.exception("%s %s", request.method, request.path)
            response = Response(500, f"Internal Server Error: {e}\n".encode())
        if response.hijacked:
            return False
        keep = keep and not request.upgrade
        await _send(writer, response, close=not keep, head_only=request.method == "HEAD")
        return keep


def _peer(writer: asyncio.StreamWriter) -> Any:
    certificate = writer.get_extra_info("peercert")
    return certificate or None


def _parse(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, version = first.split(" ")
    except ValueError:
        return None
    if not version.startswith("HTTP/1."):
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            return None
        key = name.strip().lower()
        headers[key] = f"{headers[key]},{value.strip()}" if key in headers else value.strip()
    parts = urlsplit(target)
    return Request(
        method,
        target,
        headers,
        reader,
        writer,
        head,
        unquote(parts.path),
        parse_qs(parts.query, keep_blank_values=True),
    )


async def _read_body(request: Request) -> bool:
    if request.headers.get("transfer-encoding", "").lower() == "chunked":
        chunks, size = [], 0
        while True:
            length = int((await request.reader.readline()).split(b";")[0], 16)
            size += length
            if size > MAX_BODY:
                return False
            chunks.append((await request.reader.readexactly(length + 2))[:-2])
            if length == 0:
                request.body = b"".join(chunks)
                return True
    length = int(request.headers.get("content-length") or 0)
    if length > MAX_BODY:
        return False
    request.body = await request.reader.readexactly(length)
    return True


async def _send(writer: asyncio.StreamWriter, response: Response, *, close: bool, head_only: bool) -> None:
    headers = {"Content-Type": response.content_type, **response.headers}
    body = response.body
    if isinstance(body, bytes):
        headers["Content-Length"] = str(len(body))
    else:
        headers["Transfer-Encoding"] = "chunked"
    if close:
        headers["Connection"] = "close"
    reason = REASONS.get(response.status, "Unknown")
    head = f"HTTP/1.1 {response.status} {reason}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
    writer.write(head.encode("latin-1"))
    if head_only:
        pass
    elif isinstance(body, bytes):
        writer.write(body)
    else:
        await writer.drain()
        async for chunk in body:
            if chunk:
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
    await writer.drain()


async def splice(
    a: tuple[asyncio.StreamReader, asyncio.StreamWriter], b: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Bytes from each to the other until one side is done with both directions."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            try:
                if writer.can_write_eof():
                    writer.write_eof()
                else:
                    writer.close()  # TLS has no half-close
            except (OSError, RuntimeError):
                pass

    await asyncio.gather(pump(a[0], b[1]), pump(b[0], a[1]))
