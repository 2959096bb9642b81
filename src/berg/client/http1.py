"""HTTP/1.1 to one server: connections are kept and serve one request at a time; an answer may stream for ever.

    Pool.request ─► Connection (idle, or a new one) ─► Answer: status and headers, then read() or chunks()
                       ▲                                  │ the body has ended
                       └──────────────────────────────────┘

httptools finds the messages in the bytes, as in the API server. aiohttp would do as well, but takes 14 MB and a tenth
of a second in each of a cluster's processes for what an API client never asks for (cookies, redirects, forms).

A request is sent a second time only when it changes nothing and a kept connection turned out to be closed: that is
known when it ends before the first byte of an answer. Nothing is compressed on the way.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import httptools

KEEP_ALIVE_S = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""an answer may be silent for long; whether the other side still lives, TCP asks"""
IDLE_S = 30.0
MOST_BUFFERED = 1 << 20
"""bytes of a body that nobody has taken yet; then reading waits"""
_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})


class Disconnected(OSError):
    """The connection ended before the answer did. `silent`: nothing of an answer had come."""

    def __init__(self, why: str, *, silent: bool = False) -> None:
        super().__init__(why)
        self.silent = silent


class Headers(dict[str, str]):
    """Names are lower case inside and any case outside."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name.lower() if isinstance(name, str) else name)

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return super().get(name.lower(), default)


class Answer:
    """`read` or `chunks`, once. `close` before the end gives the connection up. Raises Disconnected."""

    def __init__(self, connection: Connection, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self._connection = connection
        self._body: list[bytes] = []
        self._size = 0
        self._fault: Disconnected | None = None
        self._wanted: asyncio.Future[None] | None = None
        self.ended = False

    async def read(self) -> bytes:
        return b"".join([part async for part in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """What has come so far, again and again."""
        try:
            while True:
                if self._body:
                    data = b"".join(self._body) if len(self._body) > 1 else self._body[0]
                    self._body, self._size = [], 0
                    self._connection.go_on()
                    yield data
                elif self._fault is not None:
                    raise self._fault
                elif self.ended:
                    return
                else:
                    self._wanted = asyncio.get_running_loop().create_future()
                    await self._wanted
        finally:
            self.close()

    def close(self) -> None:
        if not self.ended:
            self._connection.close()

    # From the connection

    def feed(self, data: bytes) -> None:
        self._body.append(data)
        self._size += len(data)
        if self._size > MOST_BUFFERED:
            self._connection.wait()
        self._wake()

    def end(self, fault: Disconnected | None = None) -> None:
        self.ended, self._fault = True, fault
        self._wake()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)


class Connection(asyncio.Protocol):
    """`released` is called when it may serve another request."""

    def __init__(self, released: Callable[[Connection], None], lost: Callable[[Connection], None]) -> None:
        self._released, self._forget = released, lost
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._head: asyncio.Future[Answer] | None = None
        self._answer: Answer | None = None
        self._headers = Headers()
        self._bodiless = self._heard = self._paused = False
        self.idle_since = 0.0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes, *, bodiless: bool) -> Answer:
        """Raises Disconnected. `bodiless`: the answer to HEAD has no body, whatever its headers say."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._head = asyncio.get_running_loop().create_future()
        self._answer, self._bodiless, self._heard = None, bodiless, False
        self._transport.write(request)
        try:
            return await self._head
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def wait(self) -> None:
        if not self._paused and self.open:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        if self._paused and self.open:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, seconds in KEEP_ALIVE_S.items():
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._parser is None:  # nobody asked
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as e:
            self._fail(Disconnected(f"malformed HTTP response: {e}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        until_closed = self._answer is not None and not {"content-length", "transfer-encoding"} & self._headers.keys()
        if until_closed and exc is None:
            self.on_message_complete()
        self._fail(Disconnected(str(exc or "") or "server disconnected", silent=not self._heard))
        self._forget(self)
        self.lost.set_result(None)

    def _fail(self, fault: Disconnected) -> None:
        if self._head is not None and not self._head.done():
            self._head.set_exception(fault)
        if self._answer is not None and not self._answer.ended:
            self._answer.end(fault)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_message_begin(self) -> None:
        self._headers = Headers()

    def on_headers_complete(self) -> None:
        assert self._parser is not None and self._head is not None
        status = self._parser.get_status_code()
        if status < 200:
            return  # on its way
        self._answer = Answer(self, status, self._headers)
        if not self._head.done():
            self._head.set_result(self._answer)
        if self._bodiless:
            self._answer.end()
            self.close()

    def on_body(self, body: bytes) -> None:
        if self._answer is not None:
            self._answer.feed(body)

    def on_message_complete(self) -> None:
        if self._answer is None or self._answer.ended:
            return
        self._answer.end()
        if self.open and self._parser is not None and self._parser.should_keep_alive():
            self._parser = None
            self.go_on()
            self._released(self)
        else:
            self.close()


class Pool:
    """Connections to `host:port`; as many as there are requests at once."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, name: str | None, connect_timeout_s: float
    ) -> None:
        """`name`: whose certificate is expected, where it is not the host's."""
        self._host, self._port, self._tls, self._name = host, port, tls, name
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    async def request(self, method: str, request: bytes) -> Answer:
        """`request`: head and body as they are sent. Raises OSError, TimeoutError, Disconnected."""
        bodiless = method == "HEAD"
        while (kept := self._take()) is not None:
            try:
                return await kept.ask(request, bodiless=bodiless)
            except Disconnected as e:
                if not e.silent or method not in _CHANGES_NOTHING:
                    raise
        return await (await self._connect()).ask(request, bodiless=bodiless)

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        name = (self._name or self._host) if self._tls is not None else None
        async with asyncio.timeout(self._connect_timeout_s):
            _, connection = await loop.create_connection(
                lambda: Connection(self._release, self._forget),
                self._host,
                self._port,
                ssl=self._tls,
                server_hostname=name,
            )
        self._all.add(connection)
        return connection

    def _release(self, connection: Connection) -> None:
        now = connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        while self._idle and now - self._idle[0].idle_since > IDLE_S:
            self._idle.pop(0).close()

    def _forget(self, connection: Connection) -> None:
        self._all.discard(connection)

    async def close(self) -> None:
        self._idle.clear()
        ending = [connection.lost for connection in self._all]
        for connection in list(self._all):
            connection.close()
        if ending:
            await asyncio.wait(ending, timeout=1)
