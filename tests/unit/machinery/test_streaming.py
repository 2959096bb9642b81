"""Exec and port-forward: each server transport against each client transport, over real loopback sockets."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from berg.machinery.status import ApiError
from berg.machinery.streaming import handshake as hs
from berg.machinery.streaming.portforward import serve_port_forward
from berg.machinery.streaming.portforward_client import connect_port_forward
from berg.machinery.streaming.reader import serve_chunks
from berg.machinery.streaming.remotecommand import ExecOptions, ExecSession, serve_exec
from berg.machinery.streaming.remotecommand_client import connect_exec
from berg.machinery.streaming.spdy import SpdyConnection
from berg.machinery.streaming.stream import Pipe, StreamPair, dial, relay
from berg.machinery.streaming.websocket import WebSocket

Serve = Callable[[StreamPair, hs.Handshake], Awaitable[None]]


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """Lets handlers of the servers inside a test end, and closed transports close."""
    yield
    for _ in range(50):
        await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@asynccontextmanager
async def server(serve: Serve, handshake: Callable[[str, dict[str, str]], hs.Handshake]) -> AsyncIterator[int]:
    """A bare HTTP server that upgrades every request."""

    tasks: list[asyncio.Task[None]] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(serve_one(reader, writer)))

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await upgrade_and_serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def upgrade_and_serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers: dict[str, str] = {}
        for line in filter(None, head[1:]):
            key, _, value = line.partition(":")
            key = key.lower()
            headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
        try:
            agreed = handshake(head[0].split()[0], headers)
        except ApiError as e:
            body = e.message.encode()
            writer.write(f"HTTP/1.1 {e.code} No\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            return
        lines = ["HTTP/1.1 101 Switching Protocols", *(f"{k}: {v}" for k, v in agreed.headers.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await serve(StreamPair(reader, writer), agreed)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)
    finally:
        listening.close()
        await listening.wait_closed()


EVERYTHING = ExecOptions(stdin=True, stdout=True, stderr=True)
HOST = {"Host": "localhost"}


async def all_of(pipe: Pipe) -> bytes:
    data = b""
    while chunk := await pipe.read():
        data += chunk
    return data


async def cat(session: ExecSession) -> int:
    """Like `cat; echo done >&2; exit 3`."""
    assert session.stdin is not None
    while chunk := await session.stdin.read():
        await session.write_stdout(chunk)
    await session.write_stderr(b"done")
    return 3


@pytest.mark.parametrize("transport", ["spdy", "websocket"])
async def test_exec_passes_bytes_and_exit_code(transport: str) -> None:
    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        await serve_exec(stream, agreed, EVERYTHING, cat)

    async with server(serve, hs.handshake_for_exec) as port:
        client = await connect_exec(await dial("127.0.0.1", port), "/exec", HOST, EVERYTHING, transport=transport)  # type: ignore[arg-type]
        payload = bytes(range(256)) * 2000
        reading = asyncio.create_task(all_of(client.stdout))
        await client.write_stdin(payload)
        await client.close_stdin()
        assert await reading == payload
        assert await all_of(client.stderr) == b"done"
        assert await client.exit_code() == 3
        await client.close()


@pytest.mark.parametrize(("transport", "protocol"), [("spdy", "v2.channel.k8s.io"), ("websocket", "channel.k8s.io")])
async def test_old_protocols_say_errors_as_text(transport: str, protocol: str) -> None:
    async def fails(session: ExecSession) -> int:
        raise RuntimeError("no such file")

    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        assert agreed.protocol == protocol
        await serve_exec(stream, agreed, ExecOptions(stdout=True), fails)

    async with server(serve, hs.handshake_for_exec) as port:
        client = await connect_exec(
            await dial("127.0.0.1", port),
            "/exec",
            HOST,
            ExecOptions(stdout=True),
            transport=transport,  # type: ignore[arg-type]
            protocols=(protocol,),
        )
        status = await client.status()
        assert status["message"] == "Internal error occurred: error executing command in container: no such file"
        await client.close()


@pytest.mark.parametrize("transport", ["spdy", "websocket"])
async def test_terminal_sizes_arrive(transport: str) -> None:
    options = ExecOptions(stdin=True, stdout=True, tty=True)

    async def handler(session: ExecSession) -> int:
        sizes = session.sizes()
        first = await anext(sizes)
        await session.write_stdout(f"{first[0]}x{first[1]}".encode())
        return 0

    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        await serve_exec(stream, agreed, options, handler)

    async with server(serve, hs.handshake_for_exec) as port:
        client = await connect_exec(await dial("127.0.0.1", port), "/exec", HOST, options, transport=transport)  # type: ignore[arg-type]
        await client.resize(120, 40)
        assert await all_of(client.stdout) == b"120x40"
        assert await client.exit_code() == 0
        await client.close()


@pytest.mark.parametrize("transport", ["spdy", "websocket"])
async def test_input_that_nobody_reads_holds_nothing_up(transport: str) -> None:
    async def handler(session: ExecSession) -> int:
        assert session.stdin is not None
        await session.stdin.read(1)
        return 0

    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        await serve_exec(stream, agreed, EVERYTHING, handler)

    async with server(serve, hs.handshake_for_exec) as port:
        client = await connect_exec(await dial("127.0.0.1", port), "/exec", HOST, EVERYTHING, transport=transport)  # type: ignore[arg-type]

        async def write() -> None:
            with suppress(OSError):
                for _ in range(200):
                    await client.write_stdin(bytes(65536))

        writing = asyncio.create_task(write())
        async with asyncio.timeout(4):  # less than the server would wait for a client that says nothing
            assert await client.exit_code() == 0
            await client.close()
            await writing


async def test_base64_channels() -> None:
    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        await serve_exec(stream, agreed, EVERYTHING, echo_once)

    async def echo_once(session: ExecSession) -> int:
        assert session.stdin is not None
        await session.write_stdout(await session.stdin.read())
        return 0

    async with server(serve, hs.handshake_for_exec) as port:
        stream = await dial("127.0.0.1", port)
        headers = hs.request_headers("websocket", ["v4.base64.channel.k8s.io"])
        lines = ["GET / HTTP/1.1", *(f"{k}: {v}" for k, v in headers)]
        stream.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await stream.reader.readuntil(b"\r\n\r\n")
        ws = WebSocket(stream, client=True)
        await ws.send("0" + base64.b64encode(b"hello").decode())
        assert await ws.receive() == "1"  # the empty first message
        assert await ws.receive() == "1" + base64.b64encode(b"hello").decode()
        last = await ws.receive()
        assert isinstance(last, str)
        assert base64.b64decode(last[1:]) == b'{"metadata":{},"status":"Success"}'
        stream.close()


async def test_client_that_leaves_ends_stdin() -> None:
    ended = asyncio.Event()

    async def handler(session: ExecSession) -> int:
        assert session.stdin is not None
        await session.write_stdout(b"ready")
        assert await session.stdin.read() == b""
        await session.gone.wait()
        ended.set()
        return 0

    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        await serve_exec(stream, agreed, EVERYTHING, handler)

    async with server(serve, hs.handshake_for_exec) as port:
        stream = await dial("127.0.0.1", port)
        client = await connect_exec(stream, "/exec", HOST, EVERYTHING, transport="spdy")
        assert await client.stdout.read() == b"ready"
        await client.close()
        await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize("transport", ["spdy", "websocket"])
async def test_port_forward(transport: str) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()
        await writer.wait_closed()

    pod = await asyncio.start_server(upper, "127.0.0.1", 0)
    pod_port = pod.sockets[0].getsockname()[1]

    async def connect(port: int) -> StreamPair:
        if port != pod_port:
            raise OSError("connection refused")
        return await dial("127.0.0.1", port)

    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        await serve_port_forward(stream, agreed, connect)

    async with server(serve, hs.handshake_for_port_forward) as port:
        client = await connect_port_forward(await dial("127.0.0.1", port), "/pf", HOST, transport=transport)  # type: ignore[arg-type]
        for word in (b"one", b"two" * 50_000):
            data, error = await client.open(pod_port)
            await data.write(word)
            await data.finish()
            got = b""
            while chunk := await data.read():
                got += chunk
            assert got == word.upper()
            assert await error.read() == b""
        data, error = await client.open(1)
        assert await error.read() == b"error forwarding port 1: connection refused"
        await client.close()
    pod.close()


async def test_plain_websocket_port_forward_says_the_port_first() -> None:
    async def connect(port: int) -> StreamPair:
        raise OSError("refused")

    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        await serve_port_forward(stream, agreed, connect, ports=[80])

    async with server(serve, hs.handshake_for_port_forward) as port:
        stream = await dial("127.0.0.1", port)
        headers = hs.request_headers("websocket", ["v4.channel.k8s.io"])
        lines = ["GET / HTTP/1.1", *(f"{k}: {v}" for k, v in headers)]
        stream.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await stream.reader.readuntil(b"\r\n\r\n")
        ws = WebSocket(stream, client=True)
        assert [await ws.receive() for _ in range(3)] == [
            b"\x00\x50\x00",
            b"\x01\x50\x00",
            b"\x01error forwarding port 80: refused",
        ]
        assert await ws.receive() is None
        stream.close()


@pytest.mark.parametrize(
    ("protocol", "messages"),
    [
        ("binary.k8s.io", [b"", b"one", b"two"]),
        ("base64.binary.k8s.io", ["", "b25l", "dHdv"]),
        ("", [b"", b"one", b"two"]),
    ],
)
async def test_reading_a_log(protocol: str, messages: list[object]) -> None:
    async def log() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        await serve_chunks(stream, agreed, log(), ping=True)

    async with server(serve, hs.handshake_for_reader) as port:
        stream = await dial("127.0.0.1", port)
        headers = hs.request_headers("websocket", [protocol] if protocol else [])
        lines = ["GET / HTTP/1.1", *(f"{k}: {v}" for k, v in headers)]
        stream.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await stream.reader.readuntil(b"\r\n\r\n")
        ws = WebSocket(stream, client=True)
        assert [await ws.receive() for _ in messages] == messages
        assert await ws.receive() is None
        stream.close()


async def test_a_reader_that_leaves_ends_the_stream() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"{}"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        await serve_chunks(stream, agreed, endless(), text=True)

    async with server(serve, hs.handshake_for_reader) as port:
        stream = await dial("127.0.0.1", port)
        lines = ["GET / HTTP/1.1", *(f"{k}: {v}" for k, v in hs.request_headers("websocket", []))]
        stream.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await stream.reader.readuntil(b"\r\n\r\n")
        ws = WebSocket(stream, client=True)
        assert await ws.receive() == "{}"
        ws.close()
        assert await ws.receive() is None
        stream.close()
        async with asyncio.timeout(5):
            await closed.wait()


def test_handshakes_that_fail() -> None:
    with pytest.raises(ApiError) as plain:
        hs.handshake_for_exec("POST", {})
    assert (plain.value.code, plain.value.message) == (400, "Upgrade request required")
    spdy = {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x-stream-protocol-version": "v9.channel.k8s.io"}
    with pytest.raises(ApiError) as unknown:
        hs.handshake_for_exec("POST", spdy)
    assert unknown.value.code == 403
    assert hs.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3


async def test_spdy_survives_garbage() -> None:
    async def serve(stream: StreamPair, agreed: hs.Handshake) -> None:
        connection = SpdyConnection(stream)
        await connection.run()
        stream.close()

    async with server(serve, lambda m, h: hs.Handshake("spdy", "")) as port:
        for garbage in (b"\x80\x03\x00\x01\x00\x00\x00\x0cxxxxxxxxxxxxxxxx", b"\xff" * 64, b"\x80\x03\x00\x06"):
            stream = await dial("127.0.0.1", port)
            stream.write(b"GET / HTTP/1.1\r\n\r\n" + garbage)
            stream.write_eof()
            await stream.reader.readuntil(b"\r\n\r\n")
            await asyncio.wait_for(stream.reader.read(), 5)
            stream.close()


async def test_relay_passes_both_ways() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    far = await asyncio.start_server(echo, "127.0.0.1", 0)

    async def middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(StreamPair(reader, writer), await dial("127.0.0.1", far.sockets[0].getsockname()[1]))

    near = await asyncio.start_server(middle, "127.0.0.1", 0)
    stream = await dial("127.0.0.1", near.sockets[0].getsockname()[1])
    stream.write(b"ping")
    stream.write_eof()
    assert await stream.reader.read() == b"ping"
    stream.close()
    near.close()
    far.close()
