"""A client's transport that calls the API server's chain in the same process: no sockets, no TLS, no HTTP parsing.

The chain is the whole one (authorization, admission, …); only authentication is replaced: the transport says who asks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from urllib.parse import urlencode

from berg.apiserver.http.message import Request, Response, User

Handle = Callable[[Request], Awaitable[Response]]

ADMIN = User("kubernetes-admin", groups=("system:masters", "system:authenticated"))


class MemoryTransport:
    """Source of `client.transport.Transport`'s contract: every status is an answer, nothing is raised for one."""

    def __init__(self, handle: Handle, user: User = ADMIN) -> None:
        self._handle = handle
        self._user = user

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> MemoryResponse:
        path, _, inline = path.partition("?")
        raw_query = urlencode(query) if query else ""
        request = Request(
            method=method,
            path=path,
            raw_query=f"{inline}&{raw_query}" if inline and raw_query else inline or raw_query,
            headers={k.lower(): v for k, v in headers.items()} if headers else {},
            body=body or b"",
            remote="127.0.0.1",
            user=self._user,
        )
        return MemoryResponse(await self._handle(request))

    async def close(self) -> None:
        pass


class MemoryResponse:
    def __init__(self, response: Response) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = {**response.headers, "Content-Type": response.content_type}

    async def read(self) -> bytes:
        if self._response.stream is None:
            return self._response.body
        return b"".join([chunk async for chunk in self._response.stream])

    async def chunks(self) -> AsyncIterator[bytes]:
        stream = self._response.stream
        if stream is None:
            yield self._response.body
            return
        try:
            async for chunk in stream:
                yield chunk
        finally:
            await _closed(stream)

    def close(self) -> None:
        pass


async def _closed(stream: AsyncIterator[bytes]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
