"""CRI: what a container runtime does for a kubelet.

`CRI` has one method for each rpc of RuntimeService and ImageService, named as the rpc in snake case: the request
message in, the response message out, or an async iterator of responses where the rpc streams. Its bodies are
`runtime.own` (Berg's runtime), `runtime.remote` (a runtime behind a socket) and `runtime.sim`; `runtime.serve` puts
any of them on a socket.

A failure is a `CRIError` with the code that gRPC would give it. Callers branch on the code only for NOT_FOUND (the
thing is gone, which for stop and remove is success) and UNIMPLEMENTED (an older runtime: do without).

Messages are generated from `api/cri.proto`; `methods()` lists the rpcs as the descriptor has them, so that the client
and the server of the socket need no table of their own.
"""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from berg.runtime.api import cri_pb2 as pb


class Code(enum.IntEnum):
    """gRPC's status codes, by number, so that nobody needs to import gRPC to fail."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CRIError(Exception):
    """`str()` gives the text that upstream's client shows: `rpc error: code = NotFound desc = …`."""

    def __init__(self, code: Code | int, message: str) -> None:
        super().__init__(message)
        self.code = Code(code)
        self.message = message

    def __str__(self) -> str:
        name = "".join(part.capitalize() for part in self.code.name.split("_"))
        if self.code is Code.CANCELLED:
            name = "Canceled"
        return f"rpc error: code = {name} desc = {self.message}"


def not_found(kind: str, id: str) -> CRIError:
    return CRIError(Code.NOT_FOUND, f"{kind} with ID {id} not found: ID does not exist" if id else f"empty {kind} ID")


class CRI(Protocol):
    # RuntimeService
    async def version(self, request: pb.VersionRequest, /) -> pb.VersionResponse: ...
    async def run_pod_sandbox(self, request: pb.RunPodSandboxRequest, /) -> pb.RunPodSandboxResponse: ...
    async def stop_pod_sandbox(self, request: pb.StopPodSandboxRequest, /) -> pb.StopPodSandboxResponse: ...
    async def remove_pod_sandbox(self, request: pb.RemovePodSandboxRequest, /) -> pb.RemovePodSandboxResponse: ...
    async def pod_sandbox_status(self, request: pb.PodSandboxStatusRequest, /) -> pb.PodSandboxStatusResponse: ...
    async def list_pod_sandbox(self, request: pb.ListPodSandboxRequest, /) -> pb.ListPodSandboxResponse: ...
    def stream_pod_sandboxes(
        self, request: pb.StreamPodSandboxesRequest, /
    ) -> AsyncIterator[pb.StreamPodSandboxesResponse]: ...
    async def create_container(self, request: pb.CreateContainerRequest, /) -> pb.CreateContainerResponse: ...
    async def start_container(self, request: pb.StartContainerRequest, /) -> pb.StartContainerResponse: ...
    async def stop_container(self, request: pb.StopContainerRequest, /) -> pb.StopContainerResponse: ...
    async def remove_container(self, request: pb.RemoveContainerRequest, /) -> pb.RemoveContainerResponse: ...
    async def list_containers(self, request: pb.ListContainersRequest, /) -> pb.ListContainersResponse: ...
    def stream_containers(
        self, request: pb.StreamContainersRequest, /
    ) -> AsyncIterator[pb.StreamContainersResponse]: ...
    async def container_status(self, request: pb.ContainerStatusRequest, /) -> pb.ContainerStatusResponse: ...
    async def update_container_resources(
        self, request: pb.UpdateContainerResourcesRequest, /
    ) -> pb.UpdateContainerResourcesResponse: ...
    async def reopen_container_log(self, request: pb.ReopenContainerLogRequest, /) -> pb.ReopenContainerLogResponse: ...
    async def exec_sync(self, request: pb.ExecSyncRequest, /) -> pb.ExecSyncResponse: ...
    async def exec(self, request: pb.ExecRequest, /) -> pb.ExecResponse: ...
    async def attach(self, request: pb.AttachRequest, /) -> pb.AttachResponse: ...
    async def port_forward(self, request: pb.PortForwardRequest, /) -> pb.PortForwardResponse: ...
    async def container_stats(self, request: pb.ContainerStatsRequest, /) -> pb.ContainerStatsResponse: ...
    async def list_container_stats(self, request: pb.ListContainerStatsRequest, /) -> pb.ListContainerStatsResponse: ...
    def stream_container_stats(
        self, request: pb.StreamContainerStatsRequest, /
    ) -> AsyncIterator[pb.StreamContainerStatsResponse]: ...
    async def pod_sandbox_stats(self, request: pb.PodSandboxStatsRequest, /) -> pb.PodSandboxStatsResponse: ...
    async def list_pod_sandbox_stats(
        self, request: pb.ListPodSandboxStatsRequest, /
    ) -> pb.ListPodSandboxStatsResponse: ...
    def stream_pod_sandbox_stats(
        self, request: pb.StreamPodSandboxStatsRequest, /
    ) -> AsyncIterator[pb.StreamPodSandboxStatsResponse]: ...
    async def update_runtime_config(
        self, request: pb.UpdateRuntimeConfigRequest, /
    ) -> pb.UpdateRuntimeConfigResponse: ...
    async def status(self, request: pb.StatusRequest, /) -> pb.StatusResponse: ...
    async def checkpoint_container(
        self, request: pb.CheckpointContainerRequest, /
    ) -> pb.CheckpointContainerResponse: ...
    async def checkpoint_pod(self, request: pb.CheckpointPodRequest, /) -> pb.CheckpointPodResponse: ...
    async def restore_pod(self, request: pb.RestorePodRequest, /) -> pb.RestorePodResponse: ...
    def get_container_events(self, request: pb.GetEventsRequest, /) -> AsyncIterator[pb.ContainerEventResponse]: ...
    async def list_metric_descriptors(
        self, request: pb.ListMetricDescriptorsRequest, /
    ) -> pb.ListMetricDescriptorsResponse: ...
    async def list_pod_sandbox_metrics(
        self, request: pb.ListPodSandboxMetricsRequest, /
    ) -> pb.ListPodSandboxMetricsResponse: ...
    def stream_pod_sandbox_metrics(
        self, request: pb.StreamPodSandboxMetricsRequest, /
    ) -> AsyncIterator[pb.StreamPodSandboxMetricsResponse]: ...
    async def runtime_config(self, request: pb.RuntimeConfigRequest, /) -> pb.RuntimeConfigResponse: ...
    async def update_pod_sandbox_resources(
        self, request: pb.UpdatePodSandboxResourcesRequest, /
    ) -> pb.UpdatePodSandboxResourcesResponse: ...

    # ImageService
    async def list_images(self, request: pb.ListImagesRequest, /) -> pb.ListImagesResponse: ...
    def stream_images(self, request: pb.StreamImagesRequest, /) -> AsyncIterator[pb.StreamImagesResponse]: ...
    async def image_status(self, request: pb.ImageStatusRequest, /) -> pb.ImageStatusResponse: ...
    async def pull_image(self, request: pb.PullImageRequest, /) -> pb.PullImageResponse: ...
    async def remove_image(self, request: pb.RemoveImageRequest, /) -> pb.RemoveImageResponse: ...
    async def image_fs_info(self, request: pb.ImageFsInfoRequest, /) -> pb.ImageFsInfoResponse: ...


@dataclass(frozen=True, slots=True)
class Method:
    name: str
    """The attribute of `CRI`, e.g. `run_pod_sandbox`."""
    path: str
    """The path on the wire, e.g. `/runtime.v1.RuntimeService/RunPodSandbox`."""
    request: type[Any]
    response: type[Any]
    streaming: bool


@lru_cache(maxsize=1)
def methods() -> tuple[Method, ...]:
    """Every rpc of both services, from the descriptor."""
    from berg.runtime.api import cri_pb2 as pb

    return tuple(
        Method(
            name=re.sub(r"(?<!^)(?=[A-Z])", "_", rpc.name).lower(),
            path=f"/{service.full_name}/{rpc.name}",
            request=getattr(pb, rpc.input_type.name),
            response=getattr(pb, rpc.output_type.name),
            streaming=rpc.server_streaming,
        )
        for service in pb.DESCRIPTOR.services_by_name.values()
        for rpc in service.methods
    )
