"""The way to a server behind an HTTP proxy (`proxy-url` in a kubeconfig): CONNECT, then TLS through the tunnel.

Source: RFC 9110, section 9.3.6.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from urllib.parse import unquote, urlsplit

from berg.client.http1 import Connection, Pool


class ProxiedPool(Pool):
    def __init__(
        self,
        proxy: str,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        name: str | None,
        connect_timeout_s: float,
    ) -> None:
        """Raises ValueError for a proxy of another kind."""
        super().__init__(host, port, tls, name=name, connect_timeout_s=connect_timeout_s)
        self._proxy = urlsplit(proxy)
        if self._proxy.scheme != "http" or not self._proxy.hostname:
            raise ValueError(f"proxy-url {proxy!r} is no http:// URL")

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_timeout_s):
            address = self._proxy.hostname or "", self._proxy.port or 80
            found, greeting = await loop.create_connection(_Greeting, *address)
            transport: asyncio.Transport = found
            try:
                transport.write(self._greeting())
                status = (await greeting.answer).split(b"\r\n", 1)[0].decode("latin-1")
                if status.split(" ")[1:2] != ["200"]:
                    raise OSError(f"the proxy refused: {status}")
                connection = Connection(self._release, self._forget)
                if self._tls is None:
                    transport.set_protocol(connection)
                    inner: asyncio.BaseTransport | None = transport
                else:
                    name = self._name or self._host
                    inner = await loop.start_tls(transport, connection, self._tls, server_hostname=name)
            except BaseException:
                transport.abort()
                raise
        assert inner is not None
        connection.connection_made(inner)
        self._all.add(connection)
        return connection

    def _greeting(self) -> bytes:
        authority = f"{self._host}:{self._port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self._proxy.username:
            user = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class _Greeting(asyncio.Protocol):
    """Reads the head of the proxy's answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        if b"\r\n\r\n" in self._data and not self.answer.done():
            self.answer.set_result(self._data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(OSError("the proxy closed the connection"))
