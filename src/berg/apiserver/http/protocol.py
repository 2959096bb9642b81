"""HTTP/1.1, one connection: bytes in, `Request`s to the handler one after the other, `Response`s out.

Requests of a connection are answered in their order: while one is handled, what the client has already sent
waits (a few, then the socket is no longer read). Bodies are read whole up to a limit. A response is one block of
bytes, or a stream in chunks that waits whenever the client does not read, or an upgrade that takes the
connection over.

Invariant: nothing that a client sends, or fails to read, makes this server hold more than a bounded amount.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools

from berg.apiserver.http.message import Request, Response
from berg.apiserver.http.stream import RawStream
from berg.apiserver.http.tls import Peer, intermediates
from berg.machinery import status
from berg.machinery.codec import json as codec

if TYPE_CHECKING:
    from berg.apiserver.http.server import HTTPServer

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = (1 << 20) + 4096
HEADER_S, BODY_S = 32.0, 60.0
"""how long a client may take to say what it wants, and to send what goes with it"""
MAX_PIPELINED = 16
IDLE_S = 90.0
"""how long a connection may lie still between requests"""
SLOW_CLIENT_S = 60.0
"""how long a client may leave a full write buffer unread before it is dropped"""

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n" for s in HTTPStatus}
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@lru_cache(maxsize=512)
def _header_name(name: bytes) -> str:
    return name.decode("latin-1").lower()


class _Refused(ValueError):
    """What is answered with another code than 400 before any handler has seen it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


FIRST_COUNTS = frozenset(("authorization", "accept", "accept-encoding", "content-type", "expect", "user-agent"))
"""headers of which a second one says nothing; of others, more add up"""
_HOST = re.compile(r"[\w!$%&'()*+,\-.:;=\[\]~]*", re.ASCII)


class HTTPProtocol(asyncio.Protocol):
    def __init__(self, server: HTTPServer) -> None:
        self.server = server
        self.loop = server.loop
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.parser = httptools.HttpRequestParser(self)
        self.peer_certificate: bytes | None = None
        self.peer_intermediates: tuple[bytes, ...] = ()
        self.remote = ""
        self.raw: RawStream | None = None
        self.task: asyncio.Task[None] | None = None
        self.last_active = time.monotonic()
        self.closing = False
        self._closed = False
        self.streaming = False
        """it sends a stream that may never end"""
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._reading_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._rejected: Response | None = None
        self._in_message = False
        self._deadline = 0.0
        """when the message that is being received must be there, or the part of it that comes now"""

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=1 << 18)
        peer = transport.get_extra_info("peername")
        self.remote = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.peer_certificate = tls.getpeercert(binary_form=True)
            if self.peer_certificate is not None:
                self.peer_intermediates = intermediates(tls)
            if tls.selected_alpn_protocol() == "h2":
                self._hand_over()
                return
        self.server.connections.add(self)

    def _hand_over(self) -> None:
        """The client speaks HTTP/2."""
        from berg.apiserver.http.http2 import HTTP2Protocol

        peer = Peer(self.remote, self.peer_certificate, self.peer_intermediates)
        successor = HTTP2Protocol(self.server, peer)
        self.transport.set_protocol(successor)
        successor.connection_made(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = self._closed = True
        self.server.connections.discard(self)
        self._waiting.clear()
        self.resume_writing()
        if self.raw is not None:
            self.raw.reader.feed_eof()
        elif self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        if self.raw is not None:
            self.raw.writable.clear()
        elif self._writable is None:
            self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        if self.raw is not None:
            self.raw.writable.set()
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def eof_received(self) -> bool:
        if self.raw is not None:
            self.raw.reader.feed_eof()
            return False
        return False

    def data_received(self, data: bytes) -> None:
        if self.raw is not None:
            self.raw.reader.feed_data(data)
            return
        if self.closing:
            return
        self.last_active = time.monotonic()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            offset = upgrade.args[0]
            if self._waiting:
                self._waiting[-1][0].attributes["after_upgrade"] = data[offset:]
            elif self._current is not None:
                self._current.attributes["after_upgrade"] = data[offset:]
            self.transport.pause_reading()
            self._reading_paused = True
        except (httptools.HttpParserError, ValueError) as e:
            log.debug("bad request from %s: %s", self.remote, e)
            fault = e.__context__ if isinstance(e, httptools.HttpParserCallbackError) else e
            if isinstance(fault, _Refused):
                code, text = fault.code, str(fault)
            else:
                why = f": {fault}" if isinstance(fault, ValueError) and str(fault) else ""
                code, text = 400, f"400 Bad Request{why}"
            self._abandon(Response(code, text.encode(), "text/plain; charset=utf-8" if text else ""))

    # ---- the parser's side

    def on_message_begin(self) -> None:
        self._in_message = True
        self._deadline = self.last_active + HEADER_S
        self._url = b""
        self._headers = {}
        self._header_bytes = 0
        self._body = []
        self._body_bytes = 0
        self._rejected = None

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        key = _header_name(name)
        text = value.decode("latin-1")
        if not text.isascii() and key.startswith(self.server.list_headers):
            text = value.decode("utf-8", "replace")  # names of people and groups
        if key in self._headers:
            if key in FIRST_COUNTS:
                return
            if key == "host":
                raise ValueError
            text = self._headers[key] + ("\n" if key.startswith(self.server.list_headers) else ", ") + text
        self._headers[key] = text

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise _Refused(431, "431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        self._deadline = self.last_active + BODY_S
        headers = self._headers
        version = self.parser.get_http_version()
        if version[:1] != "1":
            raise _Refused(505, "505 HTTP Version Not Supported: unsupported protocol version")
        host = headers.get("host")
        if host is None and version != "1.0":
            raise ValueError("missing required Host header")
        if host and not _HOST.fullmatch(host):
            raise ValueError("malformed Host header")
        coding = headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise _Refused(501, "Unsupported transfer encoding")
        length = headers.get("content-length")
        if length is not None and length.isdigit() and int(length) > self.server.max_body_bytes:
            self._reject_body()
        elif "expect" in headers:
            if headers["expect"].lower() != "100-continue":
                raise _Refused(417, "")
            if coding is not None or length not in (None, "0"):
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self.server.max_body_bytes:
            self._reject_body()
        else:
            self._body.append(body)

    def _reject_body(self) -> None:
        self._abandon(too_large(self.server.max_body_bytes))

    def on_message_complete(self) -> None:
        self._in_message = False
        if self.closing:
            return
        parser = self.parser
        path, _, query = self._url.partition(b"?")
        if path[:1] != b"/" and path != b"*":  # absolute form
            path = httptools.parse_url(self._url).path or b"/"
        if b"%" in path and _BAD_ESCAPE.search(path):
            raise ValueError
        body = self._body
        request = Request(
            method=parser.get_method().decode("ascii"),
            path=path.decode("latin-1"),
            raw_query=query.decode("latin-1"),
            headers=self._headers,
            body=body[0] if len(body) == 1 else b"".join(body),
            peer_certificate=self.peer_certificate,
            remote=self.remote,
        )
        if self.peer_intermediates:
            request.peer_intermediates = self.peer_intermediates
        self._waiting.append((request, parser.should_keep_alive()))
        if self.task is None:
            self._next()
        elif len(self._waiting) >= MAX_PIPELINED and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def _abandon(self, response: Response) -> None:
        """Answers what cannot be read on, after what is under way, and closes."""
        self.closing = True
        if self.task is None:
            self._write_head_and_body(response, keep_alive=False, head_only=False)
            self._close()
        else:
            self.task.cancel()
            self._close()

    # ---- answering

    _current: Request | None = None

    def _next(self) -> None:
        self.task = self.loop.create_task(self._answer_waiting())

    async def _answer_waiting(self) -> None:
        """Answers everything that waits; a task lives as long as there is something to answer."""
        try:
            while self._waiting:
                request, keep_alive = self._waiting.popleft()
                self._current = request
                response = await self.server.handler(request)
                if not await self._answer(request, response, keep_alive):
                    return
            if self._reading_paused:
                self._reading_paused = False
                self.transport.resume_reading()
        except asyncio.CancelledError:
            if not self.closing and self.server.stopping:
                self._close()  # what has been written still goes out
                return
            self.transport.abort()
            if not self.closing:
                raise
        except Exception:
            log.exception("answering %s", self._current and self._current.path)
            self.transport.abort()
        finally:
            self._current = None
            self.task = None
            self.last_active = time.monotonic()
            if self._waiting and not self.closing:
                self._next()

    async def _answer(self, request: Request, response: Response, keep_alive: bool) -> bool:
        """False when the connection is not to be read on."""
        if self.closing and self.transport.is_closing():
            if response.stream is not None:
                await close_stream(response)
            return False
        if response.upgrade is not None:
            await self._upgrade(request, response)
            return False
        keep_alive = keep_alive and not self.server.stopping and "after_upgrade" not in request.attributes
        if response.headers.get("Connection", "").lower() == "close":
            keep_alive = False
        if response.stream is not None:
            if request.method == "HEAD":
                await close_stream(response)
            else:
                await self._stream(request, response, keep_alive)
        if response.stream is None or request.method == "HEAD":
            self._write_head_and_body(response, keep_alive, request.method == "HEAD")
            if self._writable is not None:
                await self._drain()
        if not keep_alive:
            self._close()
        return keep_alive

    def _write_head_and_body(self, response: Response, keep_alive: bool, head_only: bool) -> None:
        body = response.body
        if response.status >= 200 and response.status not in (204, 304):
            head = self._head(response, keep_alive, f"Content-Length: {len(body)}\r\n\r\n")
        else:
            head = self._head(response, keep_alive, "\r\n")
            body = b""
        if head_only or not body:
            self.transport.write(head)
        elif len(body) < 1 << 16:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    def _head(self, response: Response, keep_alive: bool, end: str) -> bytes:
        parts = [_STATUS_LINES.get(response.status) or f"HTTP/1.1 {response.status} Unknown\r\n"]
        parts.append(self.server.date_header())
        if response.content_type:
            parts.append(f"Content-Type: {response.content_type}\r\n")
        for name, value in response.headers.items():
            if "\n" in value:
                parts += [f"{name}: {one}\r\n" for one in value.split("\n")]
            else:
                parts.append(f"{name}: {value}\r\n")
        if not keep_alive and "Connection" not in response.headers:
            parts.append("Connection: close\r\n")
        parts.append(end)
        return "".join(parts).encode("latin-1", "replace")

    async def _stream(self, request: Request, response: Response, keep_alive: bool) -> None:
        assert response.stream is not None
        self.transport.write(self._head(response, keep_alive, "Transfer-Encoding: chunked\r\n\r\n"))
        self.streaming = True
        try:
            async for chunk in response.stream:
                if not chunk:
                    continue
                self.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                if self._writable is not None:
                    await self._drain()
                if self.transport.is_closing():
                    return
            self.transport.write(b"0\r\n\r\n")
        except asyncio.CancelledError:
            if self.server.stopping and not self.transport.is_closing():
                self.transport.write(b"0\r\n\r\n")  # the server ends it, and says so
            raise
        finally:
            self.streaming = False
            await close_stream(response)

    async def _drain(self) -> None:
        """Waits until the client has read; drops it when it does not."""
        if self._writable is None:
            return
        try:
            async with asyncio.timeout(SLOW_CLIENT_S):
                await asyncio.shield(self._writable)
        except TimeoutError:
            log.info("dropping %s, which does not read its answer", self.remote)
            self.closing = True
            self.transport.abort()

    async def _upgrade(self, request: Request, response: Response) -> None:
        assert response.upgrade is not None
        line = _STATUS_LINES[101]
        head = "".join([line, *(f"{k}: {v}\r\n" for k, v in response.headers.items()), "\r\n"]).encode("latin-1")
        if response.status == 101:
            self.transport.write(head)
        self.raw = RawStream(self.transport, self.loop, request.attributes.pop("after_upgrade", b""))
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()
        try:
            await response.upgrade(self.raw)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._close()

    # ---- the server's side

    def shut_down(self) -> None:
        """No more requests; an idle connection closes now."""
        if self.task is None:
            self.closing = True
            self._close()

    def abort(self) -> None:
        self.closing = True
        if self.task is not None:
            self.task.cancel()
        self.transport.abort()

    def _close(self) -> None:
        """Once: early Pythons 3.11 forget what they close when a TLS transport is closed twice, or after its end."""
        if not self._closed and not self.transport.is_closing():
            self._closed = True
            self.transport.close()

    def busy(self) -> set[asyncio.Task[None]]:
        return {self.task} if self.task is not None and not self.streaming and self.raw is None else set()

    def streams_under_way(self) -> set[asyncio.Task[None]]:
        return {self.task} if self.task is not None and self.streaming else set()

    def tasks(self) -> set[asyncio.Task[None]]:
        return {self.task} if self.task is not None else set()

    def sweep(self, now: float) -> None:
        if self.overdue(now):
            self.shut_down()

    def overdue(self, now: float) -> bool:
        """Nothing has come for long, or not all that should have; never while it answers something."""
        if self.task is not None or self.raw is not None:
            return False
        return now > self._deadline if self._in_message else now - self.last_active > IDLE_S


def too_large(limit_bytes: int) -> Response:
    """What a client is told whose body is larger."""
    error = status.too_large(f"limit is {limit_bytes}")
    body = codec.dumps(error.to_status()) + b"\n"
    return Response(413, body, headers={"Cache-Control": "no-cache, private"})


async def close_stream(response: Response) -> None:
    close = getattr(response.stream, "aclose", None)
    if close is not None:
        with contextlib.suppress(Exception):
            await close()
