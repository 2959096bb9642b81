"""gRPC over our own HTTP/2: the table of methods as streams of one connection.

A unary call is answered with one write (headers, message, trailers). A streaming one reads its requests from a
queue and writes answers as they come, no faster than the client takes them. What is no gRPC goes to the bridge.

Source: gRPC's "gRPC over HTTP2"; etcd's limits and texts.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

from berg.etcd.rpc import Call, Message, Method, RpcError
from berg.machinery.http2.frames import CANCEL
from berg.machinery.http2.hpack import Field, encode
from berg.machinery.http2.stream import Stream
from berg.machinery.tasks import end
from berg.storage.etcd.errors import CANCELLED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNKNOWN
from berg.storage.interface import StoreError

log = logging.getLogger(__name__)

OVERHEAD_BYTES = 512 * 1024
"""what a message may be longer than a request"""
INTERNAL = 13

_HEADERS = encode([(":status", "200"), ("content-type", "application/grpc")])
_OK = encode([("grpc-status", "0")])
_NOBODY = Call()

Bridge = Callable[[Stream, list[Field]], Any]
"""Takes a request that is no gRPC; what it returns gets the request's data (see `bridge`)."""


class Counts:
    """What has been asked and answered since the start, for `/metrics`."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.handled: Counter[tuple[str, int]] = Counter()
        self.received_bytes = 0
        self.sent_bytes = 0


class GrpcServer:
    """What all connections share."""

    def __init__(
        self, methods: list[Method], must_know: Callable[[], bool], max_request_bytes: int, bridge: Bridge
    ) -> None:
        """`must_know`: whether it matters who calls."""
        self.methods = {m.path: m for m in methods}
        self.must_know = must_know
        self.max_message_bytes = max_request_bytes + OVERHEAD_BYTES
        self.bridge = bridge
        self.tasks: set[asyncio.Task[None]] = set()
        self.counts = Counts()

    def handler(self, common_name: str) -> GrpcHandler:
        return GrpcHandler(self, common_name)

    async def stop(self) -> None:
        await end(*self.tasks)


class _Incoming:
    """One request as far as it has arrived: the bytes of its messages, and what waits for them."""

    __slots__ = ("bridged", "buffer", "call", "encoding", "ended", "method", "queue", "task")

    def __init__(self, method: Method | None, call: Call, encoding: str) -> None:
        self.method = method
        self.call = call
        self.encoding = encoding
        self.buffer = bytearray()
        self.ended = False
        self.queue: asyncio.Queue[Message | None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.bridged: Any = None


class GrpcHandler:
    """One connection's requests."""

    def __init__(self, server: GrpcServer, common_name: str) -> None:
        self._server = server
        self._common_name = common_name

    # -- what the connection tells

    def request(self, stream: Stream, headers: list[Field], ended: bool) -> None:
        path = kind = encoding = ""
        for name, value in headers:
            if name == ":path":
                path = value
            elif name == "content-type":
                kind = value
            elif name == "grpc-encoding":
                encoding = value
        if not kind.startswith("application/grpc"):
            incoming = stream.state = _Incoming(None, _NOBODY, "")
            incoming.bridged = self._server.bridge(stream, headers)
            incoming.bridged.feed(b"", ended)
            return
        method = self._server.methods.get(path)
        if method is None:
            service, _, name = path[1:].rpartition("/")
            known = any(p.startswith(f"/{service}/") for p in self._server.methods)
            text = f"unknown method {name} for service {service}" if known else f"unknown service {service}"
            _refuse(stream, RpcError(UNIMPLEMENTED, text))
            return
        if encoding not in ("", "identity", "gzip"):
            _refuse(
                stream, RpcError(UNIMPLEMENTED, f'grpc: Decompressor is not installed for grpc-encoding "{encoding}"')
            )
            return
        self._server.counts.started[path] += 1
        call = Call(dict(headers), self._common_name) if self._server.must_know() else _NOBODY
        incoming = stream.state = _Incoming(method, call, encoding)
        if method.unary is None and method.client_streams:
            incoming.queue = asyncio.Queue()
            self._start(stream, incoming, self._stream(stream, incoming, _queued(incoming.queue)))
        if ended:
            self.data(stream, b"", True)

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        incoming = stream.state
        if not isinstance(incoming, _Incoming):
            return
        if incoming.bridged is not None:
            incoming.bridged.feed(data, ended)
            return
        try:
            messages = self._messages(incoming, data, ended)
        except RpcError as e:
            self._cancel(incoming)
            _refuse(stream, e)
            return
        method = incoming.method
        assert method is not None
        if incoming.queue is not None:
            for message in messages:
                incoming.queue.put_nowait(message)
            if ended:
                incoming.queue.put_nowait(None)
        elif messages and incoming.task is None:
            if method.unary is not None:
                self._start(stream, incoming, self._unary(stream, incoming, messages[0]))
            else:
                self._start(stream, incoming, self._stream(stream, incoming, _one(messages[0])))
        elif ended and incoming.task is None:
            _refuse(stream, RpcError(INTERNAL, "grpc: the request has no message"))

    def gone(self, stream: Stream) -> None:
        incoming = stream.state
        if isinstance(incoming, _Incoming):
            self._cancel(incoming)

    # -- messages

    def _messages(self, incoming: _Incoming, data: bytes, ended: bool) -> list[Message]:
        buffer = incoming.buffer
        buffer += data
        self._server.counts.received_bytes += len(data)
        out: list[Message] = []
        at = 0
        method = incoming.method
        assert method is not None
        while len(buffer) - at >= 5:
            size = int.from_bytes(buffer[at + 1 : at + 5], "big")
            if size > self._server.max_message_bytes:
                limit = self._server.max_message_bytes
                raise RpcError(RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {limit})")
            if len(buffer) - at - 5 < size:
                break
            body = bytes(buffer[at + 5 : at + 5 + size])
            if buffer[at]:
                body = self._inflated(incoming, body)
            at += 5 + size
            try:
                out.append(method.request.FromString(body))
            except Exception as e:
                raise RpcError(INTERNAL, f"grpc: error unmarshalling request: {e}") from None
        del buffer[:at]
        if ended and buffer:
            raise RpcError(INTERNAL, "unexpected EOF")
        return out

    def _inflated(self, incoming: _Incoming, body: bytes) -> bytes:
        if incoming.encoding != "gzip":
            raise RpcError(INTERNAL, "grpc: compressed flag set with identity or empty encoding")
        inflate = zlib.decompressobj(wbits=31)
        try:
            plain = inflate.decompress(body, self._server.max_message_bytes)
        except zlib.error as e:
            raise RpcError(INTERNAL, f"grpc: failed to decompress the received message: {e}") from None
        if inflate.unconsumed_tail:
            raise RpcError(RESOURCE_EXHAUSTED, "grpc: received message after decompression larger than max")
        return plain

    # -- calls

    def _start(self, stream: Stream, incoming: _Incoming, work: Any) -> None:
        task = incoming.task = asyncio.ensure_future(work)
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _cancel(self, incoming: _Incoming) -> None:
        if incoming.task is not None:
            incoming.task.cancel()
        if incoming.bridged is not None:
            incoming.bridged.cancel()

    async def _unary(self, stream: Stream, incoming: _Incoming, message: Message) -> None:
        method = incoming.method
        assert method is not None and method.unary is not None
        try:
            answer = await method.unary(incoming.call, message)
        except (RpcError, StoreError) as e:
            self._failed(method, stream, e)
        except asyncio.CancelledError:
            stream.reset(CANCEL)
            self._server.counts.handled[method.path, CANCELLED] += 1
            raise
        except Exception as e:
            log.exception("%s", method.path)
            self._failed(method, stream, RpcError(UNKNOWN, str(e)))
        else:
            framed = _framed(answer)
            counts = self._server.counts
            counts.sent_bytes += len(framed)
            counts.handled[method.path, 0] += 1
            stream.send_headers(_HEADERS)
            stream.send_data(framed)
            stream.send_headers(_OK, end=True)

    def _failed(self, method: Method, stream: Stream, error: RpcError | StoreError, *, started: bool = False) -> None:
        if isinstance(error, StoreError):
            error = RpcError.of(error)
        self._server.counts.handled[method.path, error.code] += 1
        _refuse(stream, error, started=started)

    async def _stream(self, stream: Stream, incoming: _Incoming, requests: AsyncIterator[Message]) -> None:
        method = incoming.method
        assert method is not None and method.stream is not None
        started = False
        answers: Any = method.stream(incoming.call, requests)
        try:
            async for answer in answers:
                if not started:
                    started = True
                    stream.send_headers(_HEADERS)
                framed = _framed(answer)
                self._server.counts.sent_bytes += len(framed)
                stream.send_data(framed)
                await stream.drained()
        except (RpcError, StoreError) as e:
            self._failed(method, stream, e, started=started)
        except asyncio.CancelledError:
            stream.reset(CANCEL)
            self._server.counts.handled[method.path, CANCELLED] += 1
            raise
        except Exception as e:
            log.exception("%s", method.path)
            self._failed(method, stream, RpcError(UNKNOWN, str(e)), started=started)
        else:
            self._server.counts.handled[method.path, 0] += 1
            if not started:
                stream.send_headers(_HEADERS)
            stream.send_headers(_OK, end=True)
        finally:
            await answers.aclose()


async def _one(message: Message) -> AsyncIterator[Message]:
    yield message


async def _queued(queue: asyncio.Queue[Message | None]) -> AsyncIterator[Message]:
    while (message := await queue.get()) is not None:
        yield message


def _framed(answer: Message) -> bytes:
    body = answer.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


def _refuse(stream: Stream, error: RpcError, *, started: bool = False) -> None:
    trailers = [
        ("grpc-status", str(error.code)),
        ("grpc-message", quote(error.text, safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}")),
    ]
    if started:
        stream.send_headers(encode(trailers), end=True)
    else:
        stream.send_headers(_HEADERS + encode(trailers), end=True)
