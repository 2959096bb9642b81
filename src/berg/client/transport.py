"""One seam, several bodies: how a request reaches an API server.

`HTTPTransport` speaks HTTP/1.1 over TLS with kept-alive connections (`http1`); a test cluster puts an in-memory
transport in its place. A transport knows nothing of Kubernetes: every HTTP status is an answer, and only a request that
got no answer raises (`ConnectionFailed`).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol
from urllib.parse import quote, urlencode, urlsplit

from berg.client.http1 import Answer, Pool
from berg.machinery.clock import Clock, RealClock
from berg.machinery.status import ApiError


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
        url = urlsplit(self.server)
        if url.scheme == "https" and tls is None:
            tls = ssl.create_default_context()
        self._tls = tls if url.scheme == "https" else None
        self._prefix = url.path
        self._token: Token | None = (lambda t=token: t) if isinstance(token, str) else token
        self._headers = {"Host": url.netloc.rpartition("@")[2], **(headers or {})}
        self._connect_timeout_s = connect_timeout_s
        self._server_hostname = server_hostname
        self._proxy = proxy
        self._bare = bare
        port = url.port or (443 if url.scheme == "https" else 80)
        if proxy:
            from berg.client.proxied import ProxiedPool

            self._pool: Pool = ProxiedPool(
                proxy, url.hostname or "", port, self._tls, name=server_hostname, connect_timeout_s=connect_timeout_s
            )
        else:
            self._pool = Pool(
                url.hostname or "", port, self._tls, name=server_hostname, connect_timeout_s=connect_timeout_s
            )

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

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> TransportResponse:
        target = self._prefix + quote(path, safe="/:~%")
        if query:
            target += ("&" if "?" in target else "?") + urlencode(query)
        send = {**self._headers, **(headers or {})}
        if self._token is not None and "Authorization" not in send and (token := self._token()):
            send["Authorization"] = f"Bearer {token}"
        if body is not None or method in ("POST", "PUT", "PATCH"):
            send["Content-Length"] = str(len(body or b""))
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in send.items())]
        if any("\n" in line or "\r" in line for line in lines):
            raise ValueError("a header can't have a line break")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        try:
            answer = await self._pool.request(method, head + body if body else head)
        except (OSError, TimeoutError) as e:
            raise ConnectionFailed(str(e) or type(e).__name__) from e
        return _HTTPResponse(answer)

    async def close(self) -> None:
        await self._pool.close()


class _HTTPResponse:
    """`http1`'s answer, with this module's error."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers

    async def read(self) -> bytes:
        try:
            return await self._answer.read()
        except OSError as e:
            raise ConnectionFailed(str(e) or type(e).__name__) from e

    async def chunks(self) -> AsyncIterator[bytes]:
        chunks = self._answer.chunks()
        try:
            async for chunk in chunks:
                yield chunk
        except OSError as e:
            raise ConnectionFailed(str(e) or type(e).__name__) from e
        finally:
            self._answer.close()

    def close(self) -> None:
        self._answer.close()
