"""Exec, attach and port-forward through the streaming server, as kubectl's protocols have them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from berg.machinery.streaming.stream import dial
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import Code, CRIError

from .harness import Harness, leftovers, read

pytestmark = pytest.mark.root

REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
)


@dataclass
class Client:
    """A v5.channel.k8s.io client of its own make."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    channels: dict[int, bytes] = field(default_factory=dict)

    def send(self, channel: int, data: bytes) -> None:
        payload = bytes([channel]) + data
        assert len(payload) < 126
        self.writer.write(bytes([0x82, 0x80 | len(payload)]) + bytes(4) + payload)

    async def receive(self) -> bool:
        head = await self.reader.readexactly(2)
        length = head[1] & 0x7F
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2), "big")
        payload = await self.reader.readexactly(length)
        if head[0] & 0xF == 8:
            return False
        if payload:
            self.channels[payload[0]] = self.channels.get(payload[0], b"") + payload[1:]
        return True

    async def until(self, channel: int, text: bytes) -> None:
        async with asyncio.timeout(15):
            while text not in self.channels.get(channel, b""):
                assert await self.receive(), self.channels

    async def to_the_end(self) -> dict[int, bytes]:
        async with asyncio.timeout(15):
            with contextlib.suppress(asyncio.IncompleteReadError):
                while await self.receive():
                    pass
        return self.channels


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    parts = urlsplit(url)
    pair = await dial(parts.hostname or "", parts.port or 0)
    pair.write(REQUEST.format(path=parts.path).encode())
    head = await pair.reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head.split(b"\r\n")[0], head
    try:
        yield Client(pair.reader, pair.writer)
    finally:
        pair.close()


STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


async def exec_url(harness: Harness, id: str, *command: str, **fields: bool) -> str:
    request = pb.ExecRequest(container_id=id, cmd=command, **({"stdout": True} | fields))
    return (await harness.runtime.exec(request)).url


async def test_output_and_exit_code(harness: Harness) -> None:
    id = await harness.run("sleep", "1000")
    url = await exec_url(harness, id, "sh", "-c", "echo out; echo err >&2; exit 3", stderr=True)
    async with connected(url) as client:
        channels = await client.to_the_end()
    assert (channels[STDOUT], channels[STDERR]) == (b"out\n", b"err\n")
    assert b"exit status 3" in channels[ERROR] or b'"message":"3"' in channels[ERROR]


async def test_input_until_its_end(harness: Harness) -> None:
    id = await harness.run("sleep", "1000")
    async with connected(await exec_url(harness, id, "cat", stdin=True)) as client:
        client.send(STDIN, b"one\n")
        await client.until(STDOUT, b"one\n")
        client.send(STDIN, b"two\n")
        client.send(CLOSE, bytes([STDIN]))
        channels = await client.to_the_end()
    assert channels[STDOUT] == b"one\ntwo\n" and b"Success" in channels[ERROR]


async def test_a_terminal_has_the_clients_size(harness: Harness) -> None:
    id = await harness.run("sleep", "1000")
    async with connected(await exec_url(harness, id, "sh", stdin=True, tty=True)) as client:
        client.send(RESIZE, b'{"Width":123,"Height":45}')
        client.send(STDIN, b"while [ \"$(stty size)\" != '45 123' ]; do sleep 0.02; done; echo si''ze; tty; exit\n")
        await client.until(STDOUT, b"size\r\n")
        channels = await client.to_the_end()
    assert b"/dev/pts/" in channels[STDOUT]


async def test_who_goes_away_takes_the_command_along(harness: Harness) -> None:
    id = await harness.run("sleep", "1000")
    async with connected(await exec_url(harness, id, "sh", "-c", "echo started; sleep 4321")) as client:
        await client.until(STDOUT, b"started")

    async def gone() -> bool:
        return b"4321" not in (await harness.exec(id, "ps")).stdout

    await harness.until(gone)


async def test_attach_sees_what_comes_and_gives_input_that_ends_once(harness: Harness) -> None:
    def interactive(config: pb.ContainerConfig) -> None:
        config.stdin = config.stdin_once = True

    id = await harness.run(
        "sh", "-c", "echo before; while read line; do echo got $line; done; echo end", adjust=interactive
    )
    path = Path((await harness.status(id)).log_path)
    await harness.until(lambda: "before" in read(path))
    request = pb.AttachRequest(container_id=id, stdin=True, stdout=True, stderr=True)
    async with connected((await harness.runtime.attach(request)).url) as client:
        client.send(STDIN, b"one\n")
        await client.until(STDOUT, b"got one\n")
        client.send(CLOSE, bytes([STDIN]))
        channels = await client.to_the_end()
    assert channels[STDOUT] == b"got one\nend\n"
    status = await harness.ended(id)
    assert status.exit_code == 0
    assert [content for *_, content in harness.log(status)] == ["before\n", "got one\n", "end\n"]
    await harness.until(lambda: not leftovers(str(harness.config.under_state("io", id))))


async def test_input_that_ends_without_stdin_once_ends_the_session_and_not_the_container(harness: Harness) -> None:
    def interactive(config: pb.ContainerConfig) -> None:
        config.stdin = True

    id = await harness.run("sh", "-c", "while read line; do echo got $line; done; echo end", adjust=interactive)
    for line in (b"one", b"two"):
        request = pb.AttachRequest(container_id=id, stdin=True, stdout=True)
        async with connected((await harness.runtime.attach(request)).url) as client:
            client.send(STDIN, line + b"\n")
            await client.until(STDOUT, b"got " + line + b"\n")
            client.send(CLOSE, bytes([STDIN]))
            assert (await client.to_the_end())[STDOUT] == b"got " + line + b"\n"
    assert (await harness.status(id)).state == pb.CONTAINER_RUNNING


async def test_attach_to_a_terminal(harness: Harness) -> None:
    def terminal(config: pb.ContainerConfig) -> None:
        config.stdin = config.tty = True

    id = await harness.run("sh", adjust=terminal)
    request = pb.AttachRequest(container_id=id, stdin=True, stdout=True, tty=True)
    async with connected((await harness.runtime.attach(request)).url) as client:
        client.send(RESIZE, b'{"Width":77,"Height":33}')
        client.send(STDIN, b"while [ \"$(stty size)\" != '33 77' ]; do sleep 0.02; done; echo si''ze\n")
        await client.until(STDOUT, b"size\r\n")
    await harness.restart()
    async with connected((await harness.runtime.attach(request)).url) as client:
        client.send(STDIN, b"echo ag''ain; exit 5\n")
        await client.until(STDOUT, b"again\r\n")
    assert (await harness.ended(id)).exit_code == 5


async def test_a_url_works_once(harness: Harness) -> None:
    id = await harness.run("sleep", "1000")
    url = await exec_url(harness, id, "true")
    async with connected(url) as client:
        await client.to_the_end()
    for path in (urlsplit(url).path, "/exec/guessed"):
        pair = await dial("127.0.0.1", urlsplit(url).port or 0)
        pair.write(REQUEST.format(path=path).encode())
        assert (await pair.reader.readline()).startswith(b"HTTP/1.1 404")
        pair.close()


async def test_what_cannot_be_asked_for(harness: Harness) -> None:
    id = await harness.run("sleep", "1000")
    with pytest.raises(CRIError) as failure:
        await exec_url(harness, id, "true", stdout=False)
    assert failure.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(CRIError):
        await exec_url(harness, id, "true", tty=True, stderr=True)
    await harness.runtime.stop_container(pb.StopContainerRequest(container_id=id))
    with pytest.raises(CRIError) as failure:
        await exec_url(harness, id, "true")
    assert failure.value.code is Code.FAILED_PRECONDITION


async def test_port_forward(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    id = await harness.run("sh", "-c", "echo hello >/tmp/index.html; exec httpd -f -p 8080 -h /tmp", sandbox=sandbox)
    execs = harness.runtime._execs

    async def listens() -> bool:
        try:
            (await execs._dial(harness.runtime.sandboxes.get(sandbox[0]), 8080)).close()
        except OSError:
            return False
        return True

    await harness.until(listens)
    stream = await execs._dial(harness.runtime.sandboxes.get(sandbox[0]), 8080)
    stream.write(b"GET /index.html HTTP/1.0\r\n\r\n")
    assert (await stream.reader.read()).endswith(b"hello\n")
    stream.close()
    with pytest.raises(OSError):
        await execs._dial(harness.runtime.sandboxes.get(sandbox[0]), 8081)
    assert (await harness.status(id)).state == pb.CONTAINER_RUNNING
