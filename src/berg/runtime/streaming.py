"""The streaming server: the far end of the URLs that Exec, Attach and PortForward answer with.

CRI answers such a request with a URL, and whoever asked connects to it (upgraded to SPDY or WebSocket). A URL holds a
token that works once and for a minute; so nobody but who asked can use it, although the server, on loopback, asks for
no other proof.

Source: k8s.io/cri-streaming.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berg.machinery.status import ApiError
from berg.runtime.cri import Code, CRIError

if TYPE_CHECKING:
    from berg.machinery.streaming.portforward import Connect
    from berg.machinery.streaming.remotecommand import ExecHandler
    from berg.machinery.streaming.stream import StreamPair
    from berg.runtime.api import cri_pb2 as pb

TOKEN_LIFE_S = 60.0
MAX_TOKENS = 1000
HEADER_LIMIT = 64 << 10

Serve = Callable[["StreamPair", str, dict[str, str]], Awaitable[None]]
"""Answers the upgrade request (stream, HTTP method, headers) and serves it to its end."""


@dataclass(slots=True)
class _Ticket:
    serve: Serve
    expiry: asyncio.TimerHandle


class StreamingServer:
    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host = host
        self._port = port
        self._tickets: dict[str, _Ticket] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=HEADER_LIMIT)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for ticket in self._tickets.values():
            ticket.expiry.cancel()
        self._tickets.clear()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def exec_url(self, request: pb.ExecRequest, handler: ExecHandler) -> str:
        return self._url("exec", _serve_exec(request, handler))

    def attach_url(self, request: pb.AttachRequest, handler: ExecHandler) -> str:
        return self._url("attach", _serve_exec(request, handler))

    def port_forward_url(self, request: pb.PortForwardRequest, connect: Connect) -> str:
        ports = list(request.port)

        async def serve(stream: StreamPair, method: str, headers: dict[str, str]) -> None:
            from berg.machinery.streaming import handshake_for_port_forward
            from berg.machinery.streaming.portforward import serve_port_forward

            handshake = handshake_for_port_forward(method, headers)
            await _switch(stream, handshake.headers)
            await serve_port_forward(stream, handshake, connect, ports=ports)

        return self._url("portforward", serve)

    def _url(self, verb: str, serve: Serve) -> str:
        if len(self._tickets) >= MAX_TOKENS:
            raise CRIError(Code.RESOURCE_EXHAUSTED, "maximum number of in-flight requests exceeded")
        token = secrets.token_urlsafe(16)
        expiry = asyncio.get_running_loop().call_later(TOKEN_LIFE_S, self._tickets.pop, token, None)
        self._tickets[token] = _Ticket(serve, expiry)
        return f"http://{self._host}:{self._port}/{verb}/{token}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from berg.machinery.streaming.stream import StreamPair

        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(StreamPair(reader, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client went away, or never spoke HTTP, or we are stopping
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, stream: StreamPair) -> None:
        async with asyncio.timeout(TOKEN_LIFE_S):
            head = (await stream.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.split("\r\n")
        method, _, rest = request_line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        headers: dict[str, str] = {}
        for name, _, value in (line.partition(":") for line in lines if line):
            key = name.strip().lower()  # SPDY clients name each protocol they speak in a line of its own
            headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
        ticket = self._tickets.pop(path.rpartition("/")[2], None)
        if ticket is None:
            await _refuse(stream, 404, "this URL was used already, or never given out")
            return
        ticket.expiry.cancel()
        try:
            await ticket.serve(stream, method, headers)
        except ApiError as error:
            await _refuse(stream, error.code, error.message)


def _serve_exec(request: pb.ExecRequest | pb.AttachRequest, handler: ExecHandler) -> Serve:
    async def serve(stream: StreamPair, method: str, headers: dict[str, str]) -> None:
        from berg.machinery.streaming import handshake_for_exec
        from berg.machinery.streaming.remotecommand import ExecOptions, serve_exec

        handshake = handshake_for_exec(method, headers)
        await _switch(stream, handshake.headers)
        options = ExecOptions(stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, tty=request.tty)
        await serve_exec(stream, handshake, options, handler)

    return serve


async def _switch(stream: StreamPair, headers: dict[str, str]) -> None:
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{name}: {value}" for name, value in headers.items())]
    stream.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    await stream.drain()


async def _refuse(stream: StreamPair, code: int, text: str) -> None:
    body = text.encode()
    head = (
        f"HTTP/1.1 {code} Error\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    stream.write(head.encode("latin-1") + body)
    await stream.drain()
