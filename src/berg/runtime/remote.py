"""A runtime behind a socket: containerd or CRI-O, by CRI over gRPC.

Every rpc is one call by its path; the methods are made from the descriptor (`cri.methods()`). What an older runtime
does not know comes back as CRIError UNIMPLEMENTED, for the caller to do without; where the answer is plain, it is given
here: a runtime without RuntimeConfig (before containerd 1.7) tells its cgroup driver in its verbose Status, or not at
all.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from berg.runtime.cri import CRI, Code, CRIError, Method, methods

if TYPE_CHECKING:
    from berg.runtime.api import cri_pb2 as pb

DEFAULT_TIMEOUT_S = 120.0
MAX_MESSAGE = 16 << 20

# Seconds, or None: as long as it takes. Upstream's kubelet waits as long.
_TIMEOUTS: dict[str, float | None] = {"run_pod_sandbox": 240.0, "pull_image": None, "exec_sync": None}


class _Calls:
    """Holds one attribute per rpc; see RemoteRuntime."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint if "://" in endpoint else f"unix://{endpoint}"
        self._channel: Any = None

    async def start(self) -> None:
        """Connects; raises CRIError UNAVAILABLE when nobody answers."""
        from berg.runtime.api import cri_pb2 as pb

        self._open()
        await self._call("version", pb.VersionRequest(version="0.1.0"))

    async def stop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _open(self) -> Any:
        if self._channel is None:
            import grpc.aio

            options = [
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.default_authority", "localhost"),  # else the socket's path, which Go's server refuses
                ("grpc.max_reconnect_backoff_ms", 3000),
            ]
            self._channel = grpc.aio.insecure_channel(self.endpoint, options=options)
        return self._channel

    async def _call(self, name: str, request: Any) -> Any:
        import grpc

        method = _BY_NAME[name]
        call = self._open().unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        timeout = _TIMEOUTS.get(name, DEFAULT_TIMEOUT_S)
        if name == "stop_container" or (name == "exec_sync" and request.timeout):
            timeout = DEFAULT_TIMEOUT_S + request.timeout
        try:
            return await call(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise _error(error) from None

    async def _stream(self, name: str, request: Any) -> AsyncIterator[Any]:
        import grpc

        method = _BY_NAME[name]
        open_stream = self._open().unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        call = open_stream(request)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise _error(error) from None
        finally:
            call.cancel()


def _error(error: Any) -> CRIError:
    code = error.code().value[0]
    return CRIError(Code(code) if code in Code._value2member_map_ else Code.UNKNOWN, error.details() or "")


_BY_NAME: dict[str, Method] = {method.name: method for method in methods()}


def _unary(name: str) -> Any:
    async def call(self: _Calls, request: Any, /) -> Any:
        return await self._call(name, request)

    call.__name__ = name
    return call


def _streaming(name: str) -> Any:
    def call(self: _Calls, request: Any, /) -> AsyncIterator[Any]:
        return self._stream(name, request)

    call.__name__ = name
    return call


for _method in methods():
    setattr(_Calls, _method.name, (_streaming if _method.streaming else _unary)(_method.name))


class _RemoteRuntime(_Calls):
    async def runtime_config(self, request: pb.RuntimeConfigRequest, /) -> pb.RuntimeConfigResponse:
        from berg.runtime.api import cri_pb2 as pb

        try:
            response: pb.RuntimeConfigResponse = await self._call("runtime_config", request)
            return response
        except CRIError as error:
            if error.code is not Code.UNIMPLEMENTED:
                raise
        status: pb.StatusResponse = await self._call("status", pb.StatusRequest(verbose=True))
        systemd = _uses_systemd(status.info.get("config", ""))
        driver = pb.SYSTEMD if systemd else pb.CGROUPFS
        return pb.RuntimeConfigResponse(linux=pb.LinuxRuntimeConfiguration(cgroup_driver=driver))


def _uses_systemd(config: str) -> bool:
    """containerd tells its configuration in Status."""
    try:
        containerd = json.loads(config)["containerd"]
        runtime = containerd["runtimes"][containerd["defaultRuntimeName"]]
        return bool((runtime.get("options") or {}).get("SystemdCgroup"))
    except (ValueError, KeyError, TypeError):
        return False


if TYPE_CHECKING:

    class RemoteRuntime(CRI):
        """A body of `berg.runtime.cri.CRI`. `endpoint`: `unix:///run/containerd/containerd.sock`, or the path."""

        endpoint: str

        def __init__(self, endpoint: str) -> None: ...
        async def start(self) -> None: ...
        async def stop(self) -> None: ...

else:
    RemoteRuntime = _RemoteRuntime
