"""One port for HTTP/1 and gRPC, plain or TLS.

The first bytes of a connection tell: HTTP/2 starts with a fixed preface, and gRPC clients speak it at once. Those
connections are handed, byte for byte, to the gRPC server on a private Unix socket; all others to the HTTP/1
server's protocol, in place. TLS ends here.

gRPC cannot be told who was at the other end of TLS, so a connection with a client certificate dials the private
socket from a name of its own, by which `common_name` finds the certificate's name again.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

PREFACE = b"PRI * HTTP/2.0"


class Mux:
    def __init__(self, grpc_socket: Path, http: Callable[[], asyncio.BaseProtocol]) -> None:
        self._grpc_socket = grpc_socket
        self._http = http
        self._servers: list[asyncio.Server] = []
        self._names: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self.connections: set[asyncio.Transport] = set()

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Returns the port. Raises OSError when it is taken."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Front(self), host, port, ssl=tls)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for transport in list(self.connections):
            transport.abort()

    def common_name(self, peer: str) -> str:
        """Of the client certificate on the connection that dialled in as `peer`."""
        return self._names.get(peer.rpartition(":")[2], "")

    async def dial(self, front: _Front, certificate_name: str) -> None:
        """Connects `front` with the gRPC server."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        name = ""
        try:
            if certificate_name:
                name = f"berg-etcd-{id(self):x}-{next(self._numbers)}"
                sock.bind(f"\0{name}")
                self._names[name] = certificate_name
            await loop.sock_connect(sock, str(self._grpc_socket))
            await loop.create_unix_connection(lambda: _Back(self, front, name), sock=sock)
        except OSError:
            self._names.pop(name, None)
            sock.close()
            front.transport.abort()

    def forget(self, name: str) -> None:
        self._names.pop(name, None)

    def http_protocol(self) -> asyncio.BaseProtocol:
        return self._http()


class _Front(asyncio.Protocol):
    """A client's connection until it is known what it speaks, and from then on if it is gRPC."""

    transport: asyncio.Transport

    def __init__(self, mux: Mux) -> None:
        self._mux = mux
        self._seen = b""
        self._dialling: asyncio.Task[None] | None = None
        self.back: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without being derived from it
        self._mux.connections.add(self.transport)

    def data_received(self, data: bytes) -> None:
        if self.back is not None:
            self.back.write(data)
            return
        self._seen += data
        if self._dialling is not None:
            return
        if self._seen.startswith(PREFACE):
            self.transport.pause_reading()
            self._dialling = asyncio.ensure_future(self._mux.dial(self, _certificate_name(self.transport)))
        elif not PREFACE.startswith(self._seen):
            self._become_http()

    def _become_http(self) -> None:
        protocol = cast(asyncio.Protocol, self._mux.http_protocol())
        self._mux.connections.discard(self.transport)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        protocol.data_received(self._seen)

    def dialled(self, back: asyncio.Transport) -> None:
        self.back = back
        back.write(self._seen)
        self._seen = b""
        self.transport.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._mux.connections.discard(self.transport)
        if self._dialling is not None:
            self._dialling.cancel()
        if self.back is not None:
            self.back.close()

    def pause_writing(self) -> None:
        if self.back is not None:
            self.back.pause_reading()

    def resume_writing(self) -> None:
        if self.back is not None:
            self.back.resume_reading()


class _Back(asyncio.Protocol):
    """The same connection on the gRPC server's side."""

    def __init__(self, mux: Mux, front: _Front, name: str) -> None:
        self._mux = mux
        self._front = front
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._front.transport.is_closing():
            transport.close()
        else:
            self._front.dialled(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self._front.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._mux.forget(self._name)
        self._front.transport.close()

    def pause_writing(self) -> None:
        self._front.transport.pause_reading()

    def resume_writing(self) -> None:
        self._front.transport.resume_reading()


def _certificate_name(transport: asyncio.Transport) -> str:
    certificate = transport.get_extra_info("peercert") or {}
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return ""
