"""Any runtime on a socket, by gRPC: so crictl, critest or a kubelet of any make can use Berg's.

    server = RuntimeServer(runtime, "/run/berg/cri.sock")
    await server.start()

The socket is the owner's alone (mode 0600): who can reach it is root on the node.
"""

from __future__ import annotations

import os
from typing import Any

from berg.runtime.cri import CRI, Code, CRIError, methods

MAX_MESSAGE = 16 << 20


class RuntimeServer:
    def __init__(self, runtime: CRI, path: str) -> None:
        self._runtime = runtime
        self._path = path.removeprefix("unix://")
        self._server: Any = None

    async def start(self) -> None:
        import grpc.aio

        os.makedirs(os.path.dirname(self._path), mode=0o711, exist_ok=True)
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        options = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]
        self._server = grpc.aio.server(options=options)
        services: dict[str, dict[str, Any]] = {}
        for method in methods():
            _, service, name = method.path.split("/")
            make = grpc.unary_stream_rpc_method_handler if method.streaming else grpc.unary_unary_rpc_method_handler
            handler = (_streaming if method.streaming else _unary)(getattr(self._runtime, method.name))
            services.setdefault(service, {})[name] = make(
                handler,
                request_deserializer=method.request.FromString,
                response_serializer=method.response.SerializeToString,
            )
        self._server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(service, table) for service, table in services.items())
        )
        mask = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self._path}")
        finally:
            os.umask(mask)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=1.0)
            self._server = None
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass


def _unary(function: Any) -> Any:
    async def handle(request: Any, context: Any) -> Any:
        try:
            return await function(request)
        except CRIError as error:
            await context.abort(_status(error.code), error.message)

    return handle


def _streaming(function: Any) -> Any:
    async def handle(request: Any, context: Any) -> Any:
        try:
            async for response in function(request):
                yield response
        except CRIError as error:
            await context.abort(_status(error.code), error.message)

    return handle


def _status(code: Code) -> Any:
    import grpc

    return next(status for status in grpc.StatusCode if status.value[0] == code)
