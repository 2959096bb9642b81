"""The gRPC side: the table of methods behind a grpc.aio server on a private socket (see mux)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from berg.etcd.rpc import Call, Message, Method, RpcError
from berg.storage.interface import StoreError

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OPTIONS = [
    ("grpc.max_receive_message_length", 2 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 100_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
]
_NOBODY = Call()

CommonName = Callable[[str], str]
"""The client certificate's name, by the peer's address on the private socket."""


class GrpcServer:
    def __init__(self, methods: list[Method], must_know: Callable[[], bool], common_name: CommonName) -> None:
        """`must_know`: whether it matters who calls."""
        self._must_know = must_know
        self._common_name = common_name
        self._handlers = {m.path: self._handler(m) for m in methods}
        self._server: grpc.aio.Server | None = None

    async def start(self, socket: Path) -> None:
        server = self._server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((_Table(self._handlers),))
        server.add_insecure_port(f"unix:{socket}")
        await server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0.2)

    def _call(self, context: Any) -> Call:
        if not self._must_know():
            return _NOBODY
        return Call(dict(context.invocation_metadata()), self._common_name(context.peer()))

    def _handler(self, method: Method) -> Any:
        pick: Any
        serve: Any
        if method.unary is not None:
            serve, pick = self._unary(method.unary), grpc.unary_unary_rpc_method_handler
        elif method.client_streams:
            serve, pick = self._stream(method.stream), grpc.stream_stream_rpc_method_handler
        else:
            serve, pick = self._stream_of_one(method.stream), grpc.unary_stream_rpc_method_handler
        return pick(
            serve,
            request_deserializer=method.request.FromString,
            response_serializer=method.answer.SerializeToString,
        )

    def _unary(self, unary: Any) -> Any:
        async def serve(request: Message, context: Any) -> Message:
            try:
                return await unary(self._call(context), request)
            except (RpcError, StoreError) as e:
                return await _abort(context, e)

        return serve

    def _stream(self, stream: Any) -> Any:
        async def serve(requests: AsyncIterator[Message], context: Any) -> AsyncIterator[Message]:
            answers = stream(self._call(context), requests)
            try:
                async for answer in answers:
                    yield answer
            except (RpcError, StoreError) as e:
                await _abort(context, e)
            finally:
                await answers.aclose()

        return serve

    def _stream_of_one(self, stream: Any) -> Any:
        serve = self._stream(stream)

        async def serve_one(request: Message, context: Any) -> AsyncIterator[Message]:
            async for answer in serve(_one(request), context):
                yield answer

        return serve_one


class _Table(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handlers: dict[str, Any]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


async def _one(request: Message) -> AsyncIterator[Message]:
    yield request


async def _abort(context: Any, error: RpcError | StoreError) -> Any:
    if isinstance(error, StoreError):
        error = RpcError.of(error)
    await context.abort(_CODES.get(error.code, grpc.StatusCode.UNKNOWN), error.text)
