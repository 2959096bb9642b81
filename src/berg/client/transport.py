"""One seam, several bodies: how a request reaches an API server.

`HTTPTransport` speaks HTTP/1.1 over TLS with kept-alive connections; a test cluster puts an in-memory transport
in its place. A transport knows nothing of Kubernetes: every HTTP status is an answer, and only a request that
got no answer raises (`ConnectionFailed`).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlencode

from berg.machinery.clock import Clock, RealClock
from berg.machinery.status import ApiError

if TYPE_CHECKING:
    import aiohttp

KEEP_ALIVE_S = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class ConnectionFailed(ApiError):
    """No answer came: refused, reset, unresolvable, not trusted. Whether the server acted on it is not known."""

    def __init__(self, why: str) -> None:
        super().__init__(503, "ServiceUnavailable", why)


class TransportResponse(Protocol):
    """`read` or `chunks`, once; `close` may always be called, and must be when the body was not read whole."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self) -> bytes: ...

    def chunks(self) -> AsyncIterator[bytes]: ...

    def close(self) -> None: ...


class Transport(Protocol):
    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> TransportResponse: ...

    async def close(self) -> None: ...


Token = Callable[[], str | None]


class TokenFile:
    """A bearer token that lives in a file and is read again once a minute: a projected token is rotated.

    Source: client-go transport/token_source.go.
    """

    PERIOD_S = 60.0

    def __init__(self, path: str, clock: Clock | None = None) -> None:
        self._path = path
        self._clock: Clock = clock or RealClock()
        self._token = ""
        self._read_at = float("-inf")

    def __call__(self) -> str | None:
        now = self._clock.monotonic()
        if now - self._read_at >= self.PERIOD_S:
            try:
                with open(self._path) as f:
                    self._token = f.read().strip()
                self._read_at = now
            except OSError:
                if not self._token:
                    raise
        return self._token


class HTTPTransport:
    """Requests to one server, `https://host:port[/prefix]`."""

    def __init__(
        self,
        server: str,
        *,
        tls: ssl.SSLContext | None = None,
        token: Token | str | None = None,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float = 30,
        server_hostname: str | None = None,
        proxy: str | None = None,
        bare: Callable[[], HTTPTransport] | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self._tls = tls
        self._token: Token | None = (lambda t=token: t) if isinstance(token, str) else token
        self._headers = dict(headers or {})
        self._connect_timeout_s = connect_timeout_s
        self._server_hostname = server_hostname
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None
        self._bare = bare

    def without_credentials(self) -> HTTPTransport:
        """Another transport to the same server that says nothing of who asks."""
        if self._bare is not None:
            return self._bare()
        return HTTPTransport(
            self.server,
            tls=self._tls,
            connect_timeout_s=self._connect_timeout_s,
            server_hostname=self._server_hostname,
            proxy=self._proxy,
        )

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls if self._tls is not None else True)
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            auto_decompress=True,
            read_bufsize=1 << 18,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> TransportResponse:
        import aiohttp
        from yarl import URL

        if self._session is None:
            self._session = self._open()
        url = self.server + quote(path, safe="/:~%")
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query)
        send = {**self._headers, **(headers or {})}
        if self._token is not None and "Authorization" not in send and (token := self._token()):
            send["Authorization"] = f"Bearer {token}"
        try:
            answer = await self._session.request(
                method,
                URL(url, encoded=True),
                headers=send,
                data=body,
                server_hostname=self._server_hostname,
                proxy=self._proxy,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise ConnectionFailed(str(e) or type(e).__name__) from e
        return _HTTPResponse(answer)

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()


class _HTTPResponse:
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers

    async def read(self) -> bytes:
        import aiohttp

        try:
            return await self._answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise ConnectionFailed(str(e) or type(e).__name__) from e

    async def chunks(self) -> AsyncIterator[bytes]:
        import aiohttp

        self._keep_alive()
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise ConnectionFailed(str(e) or type(e).__name__) from e
        finally:
            self._answer.close()

    def close(self) -> None:
        self._answer.close()

    def _keep_alive(self) -> None:
        """A stream may be silent for long; whether the other side still lives, TCP asks every few seconds."""
        connection = self._answer.connection
        sock = connection.transport.get_extra_info("socket") if connection and connection.transport else None
        if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in KEEP_ALIVE_S.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
