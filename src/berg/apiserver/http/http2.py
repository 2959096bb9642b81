"""HTTP/2, one connection: streams to `Request`s for the handler, `Response`s back, as many at once as the client asks.

The other side of the same seam as `protocol`, which hands over a connection whose client chose `h2`; the chain does
not see a difference. Each request is a task: a client that takes its request back cancels that one, and one that
does not read an answer loses that one, while the others go on.

Upgrades (exec, attach, port-forward) are of HTTP/1.1: clients open a connection for them that speaks it.

Invariant: as in `protocol`. Bodies are bounded, and so are the requests of a connection; what waits to be sent is one
answer or one chunk for each.

Source: k8s.io/apiserver pkg/server/secure_serving.go (the limits), pkg/server/filters/goaway.go; golang.org/x/net
http2/server.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from berg.apiserver.http.message import Request, Response
from berg.apiserver.http.protocol import BODY_S, FIRST_COUNTS, HEADER_S, IDLE_S, SLOW_CLIENT_S, close_stream, too_large
from berg.apiserver.http.tls import Peer
from berg.machinery.http2 import fields as head
from berg.machinery.http2.connection import Connection
from berg.machinery.http2.frames import CANCEL, ENHANCE_YOUR_CALM, INTERNAL_ERROR, PROTOCOL_ERROR, Broken, Limits
from berg.machinery.http2.frames import StreamBroken as Reset
from berg.machinery.http2.hpack import Field, encode, encode_string
from berg.machinery.http2.stream import Stream

if TYPE_CHECKING:
    from berg.apiserver.http.server import HTTPServer

log = logging.getLogger(__name__)

DEFAULT_STREAMS = 100
_BODY_BYTES = 256 << 10
"""what nearly every body fits into: the largest frame, and the window of a stream"""
_HEADER_LIST_BYTES = (1 << 20) + 320
LINGER_S = 1.0
"""how long a connection stays that was told to go away"""
_HTTP_1_1_REQUIRED = 13
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NUMBER = re.compile(r"[0-9]{1,18}")
_CONTINUE = encode([(":status", "100")])
_AUDIT_ID = b"\0" + encode_string("audit-id")
_FIELDS: dict[tuple[str, str], bytes] = {}
"""headers as they are sent, of those that are said again and again"""
_KEPT, _KEPT_BYTES = 1024, 256


@lru_cache(maxsize=8)
def limits(streams: int) -> Limits:
    """`streams` 0, or less: as many as upstream allows."""
    streams = streams if streams > 0 else DEFAULT_STREAMS
    return Limits(streams, _BODY_BYTES, _BODY_BYTES, _BODY_BYTES * streams, _HEADER_LIST_BYTES)


class _Exchange:
    """A request as far as it has come, then its answer."""

    __slots__ = ("deadline", "declared", "parts", "request", "size", "task")

    def __init__(self, request: Request, declared: int, deadline: float) -> None:
        self.request = request
        self.declared = declared
        """bytes of the body that the client announced; -1: none"""
        self.deadline = deadline
        """when its body must be there"""
        self.parts: list[bytes] = []
        self.size = 0
        self.task: asyncio.Task[None] | None = None


class HTTP2Protocol(Connection):
    def __init__(self, server: HTTPServer, peer: Peer) -> None:
        super().__init__(self, limits(server.http2_max_streams))
        self.server = server
        self.peer = peer
        self._running: set[asyncio.Task[None]] = set()
        self._streaming: set[asyncio.Task[None]] = set()
        self._last_active = time.monotonic()
        self._paused_at = 0.0
        self._unfinished: tuple[object, float] = (None, 0.0)
        """a header block that was not whole when it was last looked at, and since when"""

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=1 << 18)
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._paused_at = time.monotonic()
        super().pause_writing()

    # ---- the connection's side

    def request(self, stream: Stream, headers: list[Field], ended: bool) -> None:
        self._last_active = now = time.monotonic()
        try:
            asked = head.read(headers, self.server.list_headers, FIRST_COUNTS)
        except head.Malformed:
            raise Reset(stream.id, PROTOCOL_ERROR) from None
        length = asked.headers.get("content-length", "")
        path, _, query = asked.path.partition("?")
        if (length and not _NUMBER.fullmatch(length)) or ("%" in path and _BAD_ESCAPE.search(path)):
            raise Reset(stream.id, PROTOCOL_ERROR)
        if asked.fault:
            text = f"{asked.fault}\n".encode()
            plain = Response(400, text, "text/plain; charset=utf-8", {"X-Content-Type-Options": "nosniff"})
            self._send(stream, plain, False)
            return
        declared = int(length) if length else -1
        request = Request(
            method=asked.method,
            path=path,
            raw_query=query,
            headers=asked.headers,
            peer_certificate=self.peer.certificate,
            remote=self.peer.remote,
            peer_intermediates=self.peer.intermediates,
            protocol="HTTP/2.0",
        )
        exchange = stream.state = _Exchange(request, declared, now + BODY_S)
        if ended:
            self._start(stream, exchange)
        elif declared > self.server.max_body_bytes:
            self._refuse_body(stream)
        elif asked.headers.get("expect", "").lower() == "100-continue":
            stream.send_headers(_CONTINUE)

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        exchange = stream.state
        if not isinstance(exchange, _Exchange):
            return  # it is answered already
        exchange.size += len(data)
        if exchange.size > self.server.max_body_bytes:
            self._refuse_body(stream)
            return
        declared = exchange.declared
        if declared >= 0 and (exchange.size > declared or (ended and exchange.size < declared)):
            raise Reset(stream.id, PROTOCOL_ERROR)
        exchange.parts.append(data)
        if ended:
            parts = exchange.parts
            exchange.request.body = parts[0] if len(parts) == 1 else b"".join(parts)
            exchange.parts = []
            self._start(stream, exchange)

    def gone(self, stream: Stream) -> None:
        exchange = stream.state
        if isinstance(exchange, _Exchange) and exchange.task is not None:
            exchange.task.cancel()
            exchange.task.add_done_callback(self._running.discard)  # what has not begun never comes to its end

    def _refuse_body(self, stream: Stream) -> None:
        stream.state = None
        self._send(stream, too_large(self.server.max_body_bytes), False)

    # ---- answering

    def _start(self, stream: Stream, exchange: _Exchange) -> None:
        if len(self._running) >= 4 * self.limits.streams:
            raise Broken(ENHANCE_YOUR_CALM, "requests that are taken back faster than they end")
        exchange.task = task = self.loop.create_task(self._answer(stream, exchange))
        self._running.add(task)

    async def _answer(self, stream: Stream, exchange: _Exchange) -> None:
        task, request = exchange.task, exchange.request
        assert task is not None
        try:
            response = await self.server.handler(request)
            if response.upgrade is not None:
                stream.reset(_HTTP_1_1_REQUIRED)
            elif response.stream is None or request.method == "HEAD":
                if response.stream is not None:
                    await close_stream(response)
                self._send_now(stream, response, request.method == "HEAD")
                if stream.waiting:
                    await self._drained(stream)
            else:
                self._streaming.add(task)
                await self._stream(stream, response)
        except asyncio.CancelledError:  # not told on: nobody waits for it, and it would keep all this in a cycle
            stream.reset(CANCEL)
        except Exception:
            log.exception("answering %s", request.path)
            stream.reset(INTERNAL_ERROR)
        finally:
            self._running.discard(task)
            self._streaming.discard(task)

    def _send_now(self, stream: Stream, response: Response, head_only: bool) -> None:
        """Into the write that this turn of the loop ends with; at once when there is nothing else to come into it."""
        alone = self.held = len(self._running) - len(self._streaming) == 1 and not self._out
        try:
            self._send(stream, response, head_only)
            self._farewell(response)
        finally:
            if alone:
                self.held = False
                self.flush()

    def _send(self, stream: Stream, response: Response, head_only: bool) -> None:
        """A response that is one block of bytes."""
        body = response.body
        if response.status in (204, 304):
            stream.send_headers(self._head(response), end=True)
        elif head_only or not body:
            stream.send_headers(self._head(response, len(body)), end=True)
        else:
            stream.answer(self._head(response, len(body)), body)

    async def _stream(self, stream: Stream, response: Response) -> None:
        assert response.stream is not None
        stream.send_headers(self._head(response))
        self._farewell(response)
        try:
            async for chunk in response.stream:
                stream.send_data(chunk)
                if stream.waiting:
                    await self._drained(stream)
                if not stream.open:
                    return
            stream.send_data(b"", end=True)
            if stream.waiting:
                await self._drained(stream)
        except asyncio.CancelledError:
            if self.server.stopping:
                stream.send_data(b"", end=True)  # the server ends it, and says so
            raise
        finally:
            await close_stream(response)

    async def _drained(self, stream: Stream) -> None:
        """Waits until the client has read; drops the answer when it does not."""
        while stream.waiting and stream.open:
            before = stream.sent
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SLOW_CLIENT_S):
                    await stream.drained()
                return
            if stream.sent == before:
                log.info("dropping an answer that %s does not read", self.peer.remote)
                stream.reset(CANCEL)

    def _head(self, response: Response, length: int | None = None) -> bytes:
        parts = [_start_of_head(response.status, response.content_type, self.server.date_header())]
        for field in response.headers.items():
            parts.append(_FIELDS.get(field) or _field(*field))
        if length is not None:
            parts.append(_length(length))
        return b"".join(parts)

    def _farewell(self, response: Response) -> None:
        """Sends the client elsewhere, if that is wanted: behind the answer where there is an end to it, because
        there are clients that hear nothing any more when they have heard that."""
        chance = self.server.goaway_chance
        if "Connection" in response.headers or (chance and random.random() < chance):
            self.shut_down(LINGER_S)

    # ---- the server's side

    def busy(self) -> set[asyncio.Task[None]]:
        return self._running - self._streaming

    def streams_under_way(self) -> set[asyncio.Task[None]]:
        return self._streaming

    def tasks(self) -> set[asyncio.Task[None]]:
        return self._running

    def abort(self) -> None:
        for task in self._running:
            task.cancel()
        self.flush()
        self.transport.abort()

    def sweep(self, now: float) -> None:
        """Ends what has taken too long."""
        if self.paused and now - self._paused_at > SLOW_CLIENT_S:
            self.abort()
            return
        if self._block is not self._unfinished[0]:
            self._unfinished = (self._block, now)
        elif self._block is not None and now - self._unfinished[1] > HEADER_S:
            self.go_away(PROTOCOL_ERROR, "a header block that does not end")
            return
        for stream in list(self.streams.values()):
            exchange = stream.state
            if isinstance(exchange, _Exchange) and exchange.task is None and now > exchange.deadline:
                stream.reset(CANCEL)
        if self.streams:
            self._last_active = now
        elif now - self._last_active > (IDLE_S if self._prefaced else HEADER_S):
            self.shut_down(LINGER_S)


@lru_cache(maxsize=256)
def _start_of_head(code: int, content_type: str, date: str) -> bytes:
    fields = [(":status", str(code)), ("date", date.partition(": ")[2].strip())]
    if content_type:
        fields.append(("content-type", content_type))
    return encode(fields)


@lru_cache(maxsize=1024)
def _length(size: int) -> bytes:
    return encode([("content-length", str(size))])


def _field(name: str, value: str) -> bytes:
    """Nothing for what is of an HTTP/1.1 connection."""
    if name == "Audit-Id":  # of each answer its own
        return _AUDIT_ID + encode_string(value)
    lower = name.lower()
    values = [] if lower in head.CONNECTION_SPECIFIC else value.split("\n")
    block = encode([(lower, one) for one in values])
    if len(block) <= _KEPT_BYTES:
        if len(_FIELDS) >= _KEPT:
            _FIELDS.clear()
        _FIELDS[name, value] = block
    return block
