"""The HTTP client against servers that say exactly what a test wants, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from berg.client.http1 import MOST_BUFFERED
from berg.client.transport import ConnectionFailed, HTTPTransport

Talk = Callable[["Peer"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\nhi"


class Peer:
    """One accepted connection, from the server's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader, self.writer, self.number = reader, writer, number

    async def request(self) -> tuple[str, bytes]:
        """(head, body)"""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        lengths = [line.split(": ")[1] for line in head.split("\r\n") if line.startswith("Content-Length")]
        return head, await self.reader.readexactly(int(lengths[0])) if lengths else b""

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[tuple[HTTPTransport, list[Peer]]]:
    peers: list[Peer] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, len(peers))
        peers.append(peer)
        try:
            await talk(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    http = HTTPTransport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/prefix")
    try:
        yield http, peers
    finally:
        await http.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)


async def test_one_connection_serves_one_request_after_the_other() -> None:
    heads: list[tuple[str, bytes]] = []

    async def talk(peer: Peer) -> None:
        while True:
            heads.append(await peer.request())
            await peer.say(OK)

    async with serving(talk) as (http, peers):
        first = await http.request("GET", "/a b", query={"x": "1 2"}, headers={"X-Y": "z"})
        assert (first.status, await first.read(), first.headers.get("retry-after")) == (200, b"hi", "7")
        second = await http.request("POST", "/b", body=b"body")
        assert await second.read() == b"hi"
        assert len(peers) == 1
    assert heads[0][0].startswith("GET /prefix/a%20b?x=1+2 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "X-Y: z" in heads[0][0]
    assert heads[1][1] == b"body"


async def test_two_at_once_have_two_connections() -> None:
    both = asyncio.Barrier(2)

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            await both.wait()
            await peer.say(OK)

    async with serving(talk) as (http, peers):
        answers = await asyncio.gather(http.request("GET", "/"), http.request("GET", "/"))
        assert [await a.read() for a in answers] == [b"hi", b"hi"]
        assert len(peers) == 2


async def test_a_stream_comes_as_it_is_written() -> None:
    seen = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await seen.wait()
        await peer.say(b"3\r\ntwo\r\n0\r\n\r\n")
        await peer.request()
        await peer.say(OK)

    async with serving(talk) as (http, peers):
        parts = []
        async for chunk in (await http.request("GET", "/")).chunks():
            parts.append(chunk)
            seen.set()
        assert parts == [b"one", b"two"]
        assert await (await http.request("GET", "/")).read() == b"hi"
        assert len(peers) == 1, "a stream that ended leaves its connection to others"


async def test_an_answer_that_is_cut_off_is_no_answer() -> None:
    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")

    async with serving(talk) as (http, _):
        answer = await http.request("GET", "/")
        with pytest.raises(ConnectionFailed, match="server disconnected"):
            await answer.read()


async def test_a_body_may_last_until_the_end_of_the_connection() -> None:
    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")

    async with serving(talk) as (http, _):
        assert await (await http.request("GET", "/")).read() == b"all of it"


async def test_only_what_changes_nothing_is_sent_again() -> None:
    """A kept connection that is closed just when it is used again."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        if peer.number < 2:
            await peer.request()  # and no answer
            return
        await peer.request()
        await peer.say(OK)

    async with serving(talk) as (http, peers):
        await (await http.request("GET", "/")).read()
        assert await (await http.request("GET", "/again")).read() == b"hi"
        assert len(peers) == 2
        with pytest.raises(ConnectionFailed):
            await http.request("POST", "/", body=b"x")
        assert len(peers) == 2


async def test_who_stops_listening_gives_the_connection_up() -> None:
    gone = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await peer.reader.read()
        gone.set()

    async with serving(talk) as (http, _):
        answer = await http.request("GET", "/")
        answer.close()
        await asyncio.wait_for(gone.wait(), 5)
        waiting = asyncio.ensure_future(http.request("GET", "/"))
        (await waiting).close()


async def test_a_slow_reader_holds_the_sender_up() -> None:
    sent = 0

    async def talk(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        total = MOST_BUFFERED * 40
        await peer.say(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n".encode())
        while sent < total:
            await peer.say(bytes(MOST_BUFFERED))
            sent += MOST_BUFFERED

    async with serving(talk) as (http, _):
        answer = await http.request("GET", "/")
        before = -1
        while before != sent:  # until nothing moves
            before = sent
            await asyncio.sleep(0.05)
        assert sent < MOST_BUFFERED * 30
        assert len(await answer.read()) == MOST_BUFFERED * 40


async def test_head_and_what_is_on_its_way() -> None:
    async def talk(peer: Peer) -> None:
        head, _ = await peer.request()
        if head.startswith("HEAD"):
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        else:
            await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        await peer.reader.read()

    async with serving(talk) as (http, _):
        head = await http.request("HEAD", "/")
        assert (head.status, head.headers.get("Content-Length"), await head.read()) == (200, "1000", b"")
        assert await (await http.request("PUT", "/", body=b"x")).read() == b"hi"


async def test_nonsense_and_smuggling() -> None:
    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"SSH-2.0-OpenSSH\r\n\r\n")
        await peer.reader.read()

    async with serving(talk) as (http, _):
        with pytest.raises(ConnectionFailed, match="malformed"):
            await http.request("GET", "/")
        with pytest.raises(ValueError, match="line break"):
            await http.request("GET", "/", headers={"X": "a\r\nX-Remote-User: admin"})


async def test_a_proxy_is_asked_for_a_tunnel() -> None:
    asked: list[str] = []

    async def talk(peer: Peer) -> None:
        asked.append((await peer.request())[0])
        await peer.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
        asked.append((await peer.request())[0])
        await peer.say(OK)

    async with serving(talk) as (direct, _):
        proxy = direct.server.removesuffix("/prefix").replace("http://", "http://me:secret@")
        http = HTTPTransport("http://inside.example:8080", proxy=proxy)
        assert await (await http.request("GET", "/x")).read() == b"hi"
        await http.close()
    assert asked[0].startswith("CONNECT inside.example:8080 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic bWU6c2VjcmV0" in asked[0]
    assert asked[1].startswith("GET /x HTTP/1.1\r\nHost: inside.example:8080")
