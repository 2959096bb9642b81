"""Everything that is not the cluster's: asked of the resolvers that the machine itself uses.

Bytes are passed on as they are, under an id of our own. A resolver that does not answer in time is asked last for
a while. Answers are not cached: the machine's resolver does that.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import cast

_TIMEOUT_S = 2.0


def system_resolvers(path: str = "/etc/resolv.conf", exclude: frozenset[str] = frozenset()) -> list[str]:
    """The nameservers of a resolv.conf, without those in `exclude` (ourselves)."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and w[1] not in exclude]


class Forwarder:
    def __init__(self, resolvers: list[str], timeout_s: float = _TIMEOUT_S) -> None:
        self._resolvers = list(resolvers)
        self._timeout_s = timeout_s

    async def ask(self, query: bytes, *, tcp: bool = False) -> bytes | None:
        """The reply with the query's own id; None when no resolver answers."""
        for resolver in list(self._resolvers):
            try:
                reply = await asyncio.wait_for((_tcp if tcp else _udp)(resolver, query), self._timeout_s)
                return query[:2] + reply[2:]
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                self._resolvers.remove(resolver)
                self._resolvers.append(resolver)
        return None


class _Exchange(asyncio.DatagramProtocol):
    def __init__(self, query: bytes, reply: asyncio.Future[bytes]) -> None:
        self._query, self._reply = query, reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.DatagramTransport, transport).sendto(self._query)  # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: object) -> None:
        same_question = data[12:].lower().startswith(self._query[12:].split(b"\0", 1)[0].lower())
        if data[:2] == self._query[:2] and same_question and not self._reply.done():
            self._reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._reply.done():
            self._reply.set_exception(exc)


async def _udp(resolver: str, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[bytes] = loop.create_future()
    mine = secrets.token_bytes(2) + query[2:]
    transport, _ = await loop.create_datagram_endpoint(lambda: _Exchange(mine, reply), remote_addr=(resolver, 53))
    try:
        return await reply
    finally:
        transport.close()


async def _tcp(resolver: str, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(resolver, 53)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        size = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(size)
    finally:
        writer.close()
