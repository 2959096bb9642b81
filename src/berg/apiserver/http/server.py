"""Listening: sockets, TLS, and the life of all connections."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import Protocol

from berg.apiserver.http.message import Handler
from berg.apiserver.http.protocol import HEADER_S, HTTPProtocol

log = logging.getLogger(__name__)

LAST_WORDS_S = 1.0
"""for the end of streams, when the server stops"""


class Connection(Protocol):
    """Of one client, whatever it speaks."""

    def shut_down(self) -> None:
        """No more requests; it closes when those are answered that are under way."""
        ...

    def abort(self) -> None: ...

    def sweep(self, now: float) -> None:
        """Closes what has been idle, or unfinished, too long."""
        ...

    def busy(self) -> set[asyncio.Task[None]]:
        """Requests under way that will end by themselves."""
        ...

    def streams_under_way(self) -> set[asyncio.Task[None]]:
        """Answers that may never end."""
        ...

    def tasks(self) -> set[asyncio.Task[None]]:
        """All, and connections given away."""
        ...


class HTTPServer:
    """`port` 0 takes a free one; `port` afterwards says which."""

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "0.0.0.0",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        max_body_bytes: int = 3 << 20,
        share_port: bool = False,
        list_headers: Sequence[str] = (),
        http2_max_streams: int = 0,
        goaway_chance: float = 0.0,
    ) -> None:
        """`share_port`: other processes may listen on the same address and port (SO_REUSEPORT)."""
        self.handler = handler
        self.host = host
        self.port = port
        self.max_body_bytes = max_body_bytes
        self.http2_max_streams = http2_max_streams
        self.goaway_chance = goaway_chance
        self.connections: set[Connection] = set()
        self.stopping = False
        self._tls = tls
        self._share_port = share_port
        self.list_headers = ("impersonate-", "x-remote-", *(h.lower() for h in list_headers))
        """how headers begin whose values are a list: repeated ones are joined by newlines, which no value can have"""
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._date = ""
        self._date_second = 0

    async def start(self) -> None:
        """Raises OSError when the address is taken."""
        self.loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._share_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.bind((self.host, self.port))
        except BaseException:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        self._server = await self.loop.create_server(
            lambda: HTTPProtocol(self),
            sock=listener,
            ssl=self._tls,
            backlog=4096,
            ssl_handshake_timeout=HEADER_S if self._tls else None,
        )
        self._sweep()

    def _sweep(self) -> None:
        """Closes what has been idle too long. One timer for all connections."""
        now = time.monotonic()
        for connection in list(self.connections):
            connection.sweep(now)
        self._sweeper = self.loop.call_later(10.0, self._sweep)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Stops listening, lets what is under way finish for `grace_s`, then cuts the rest."""
        self.stopping = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.shut_down()
        await self.drain(grace_s)
        streams = [task for c in self.connections for task in c.streams_under_way()]
        for task in streams:
            task.cancel()
        if streams:
            await asyncio.wait(streams, timeout=LAST_WORDS_S)
        tasks = [task for c in self.connections for task in c.tasks()]
        for connection in list(self.connections):
            connection.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)
        await asyncio.sleep(0)

    async def drain(self, timeout_s: float) -> None:
        """Until every request is answered that is under way; streams, and connections given away, may go on."""
        busy = [task for c in self.connections for task in c.busy()]
        if busy:
            await asyncio.wait(busy, timeout=timeout_s)

    def date_header(self) -> str:
        second = int(time.time())
        if second != self._date_second:
            self._date_second = second
            self._date = f"Date: {formatdate(second, usegmt=True)}\r\n"
        return self._date
