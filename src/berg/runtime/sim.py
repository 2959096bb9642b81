"""The simulated runtime: runs nothing, plays the life of pods. For nodes that exist in memory only.

Every image is there, every container starts at once and runs until it is stopped; the pods of Jobs end well after a
moment. A pod can say otherwise by annotation:

    sim.berg.dev/run-seconds: "30"      the containers end by themselves after so long
    sim.berg.dev/exit-code: "1"         with this code
    sim.berg.dev/start-seconds: "2"     starting takes so long
    sim.berg.dev/fail-image: "true"     the images cannot be pulled

Time is the injected clock's. Nothing is written to disk; a new SimRuntime begins empty, like a node after a reboot.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

from berg.machinery.clock import Clock, RealClock
from berg.machinery.tasks import end
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import Code, CRIError

PREFIX = "sim.berg.dev/"
JOB_LABEL = "batch.kubernetes.io/job-name"
JOB_RUN_S = 1.0
IMAGE_SIZE = 1 << 20

_CREATED = pb.CONTAINER_CREATED_EVENT
_STARTED = pb.CONTAINER_STARTED_EVENT
_STOPPED = pb.CONTAINER_STOPPED_EVENT
_DELETED = pb.CONTAINER_DELETED_EVENT


class SimRuntime:
    """A body of `berg.runtime.cri.CRI`."""

    def __init__(self, clock: Clock | None = None, *, pod_cidr: str = "", events: bool = True) -> None:
        self._clock = clock or RealClock()
        self._sandboxes: dict[str, pb.PodSandboxStatus] = {}
        self._containers: dict[str, pb.ContainerStatus] = {}
        self._sandbox_of: dict[str, str] = {}
        self._members: dict[str, set[str]] = {}
        self._images: dict[str, pb.Image] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._listeners: set[asyncio.Queue[pb.ContainerEventResponse | None]] = set()
        self._addresses = _addresses(pod_cidr)
        self._free: list[str] = []
        self._numbers = itertools.count(1)
        self._events = events

    async def start(self) -> None:
        """There is nothing to start."""

    async def stop(self) -> None:
        await end(*self._lives.values())
        for queue in self._listeners:
            queue.put_nowait(None)

    # The runtime itself

    async def version(self, request: pb.VersionRequest) -> pb.VersionResponse:
        return pb.VersionResponse(
            version="0.1.0", runtime_name="sim", runtime_version="0.1.0", runtime_api_version="v1"
        )

    async def status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        ready = [pb.RuntimeCondition(type=kind, status=True) for kind in ("RuntimeReady", "NetworkReady")]
        return pb.StatusResponse(
            status=pb.RuntimeStatus(conditions=ready),
            runtime_handlers=[pb.RuntimeHandler(name="", features=pb.RuntimeHandlerFeatures())],
            features=pb.RuntimeFeatures(supplemental_groups_policy=True),
        )

    async def update_runtime_config(self, request: pb.UpdateRuntimeConfigRequest) -> pb.UpdateRuntimeConfigResponse:
        if cidr := request.runtime_config.network_config.pod_cidr.partition(",")[0]:
            self._addresses = _addresses(cidr)
            self._free.clear()
        return pb.UpdateRuntimeConfigResponse()

    async def runtime_config(self, request: pb.RuntimeConfigRequest) -> pb.RuntimeConfigResponse:
        return pb.RuntimeConfigResponse(linux=pb.LinuxRuntimeConfiguration(cgroup_driver=pb.CGROUPFS))

    # Sandboxes

    async def run_pod_sandbox(self, request: pb.RunPodSandboxRequest) -> pb.RunPodSandboxResponse:
        config = request.config
        id = f"{next(self._numbers):064x}"
        status = pb.PodSandboxStatus(
            id=id,
            metadata=config.metadata,
            state=pb.SANDBOX_READY,
            created_at=self._now(),
            labels=config.labels,
            annotations=config.annotations,
            runtime_handler=request.runtime_handler,
        )
        options = config.linux.security_context.namespace_options
        status.linux.namespaces.options.CopyFrom(options)
        if options.network != pb.NODE:
            status.network.ip = self._free.pop(0) if len(self._free) > 64 else next(self._addresses, "")
            if not status.network.ip:
                if not self._free:
                    raise CRIError(Code.UNKNOWN, "failed to create sandbox: no IP addresses available in range set")
                status.network.ip = self._free.pop(0)
        self._sandboxes[id] = status
        self._members[id] = set()
        self._publish(id, id, _CREATED)
        self._publish(id, id, _STARTED)
        return pb.RunPodSandboxResponse(pod_sandbox_id=id)

    async def stop_pod_sandbox(self, request: pb.StopPodSandboxRequest) -> pb.StopPodSandboxResponse:
        sandbox = self._sandboxes.get(request.pod_sandbox_id)
        if sandbox is not None:
            for id in self._members[sandbox.id]:
                self._end(id, 137, "Error")
            if sandbox.state == pb.SANDBOX_READY:
                sandbox.state = pb.SANDBOX_NOTREADY
                if sandbox.network.ip:
                    self._free.append(sandbox.network.ip)
                sandbox.network.Clear()
                self._publish(sandbox.id, sandbox.id, _STOPPED)
        return pb.StopPodSandboxResponse()

    async def remove_pod_sandbox(self, request: pb.RemovePodSandboxRequest) -> pb.RemovePodSandboxResponse:
        id = request.pod_sandbox_id
        if id in self._sandboxes:
            await self.stop_pod_sandbox(pb.StopPodSandboxRequest(pod_sandbox_id=id))
            for container in list(self._members[id]):
                await self.remove_container(pb.RemoveContainerRequest(container_id=container))
            self._publish(id, id, _DELETED)
            del self._sandboxes[id], self._members[id]
        return pb.RemovePodSandboxResponse()

    async def pod_sandbox_status(self, request: pb.PodSandboxStatusRequest) -> pb.PodSandboxStatusResponse:
        sandbox = self._sandbox(request.pod_sandbox_id)
        containers = [self._containers[id] for id in self._members[sandbox.id]]
        return pb.PodSandboxStatusResponse(status=sandbox, containers_statuses=containers, timestamp=self._now())

    async def list_pod_sandbox(self, request: pb.ListPodSandboxRequest) -> pb.ListPodSandboxResponse:
        return pb.ListPodSandboxResponse(items=self._list_sandboxes(request.filter))

    async def stream_pod_sandboxes(
        self, request: pb.StreamPodSandboxesRequest
    ) -> AsyncIterator[pb.StreamPodSandboxesResponse]:
        yield pb.StreamPodSandboxesResponse(pod_sandboxes=self._list_sandboxes(request.filter))

    async def update_pod_sandbox_resources(
        self, request: pb.UpdatePodSandboxResourcesRequest
    ) -> pb.UpdatePodSandboxResourcesResponse:
        self._sandbox(request.pod_sandbox_id)
        return pb.UpdatePodSandboxResourcesResponse()

    # Containers

    async def create_container(self, request: pb.CreateContainerRequest) -> pb.CreateContainerResponse:
        sandbox = self._sandbox(request.pod_sandbox_id)
        config = request.config
        id = f"{next(self._numbers):064x}"
        image = self._image(config.image.image)
        status = pb.ContainerStatus(
            id=id,
            metadata=config.metadata,
            state=pb.CONTAINER_CREATED,
            created_at=self._now(),
            image=config.image,
            image_ref=image.repo_digests[0],
            image_id=image.id,
            labels=config.labels,
            annotations=config.annotations,
            mounts=config.mounts,
        )
        status.resources.linux.CopyFrom(config.linux.resources)
        self._containers[id] = status
        self._members[sandbox.id].add(id)
        self._sandbox_of[id] = sandbox.id
        self._publish(sandbox.id, id, _CREATED)
        return pb.CreateContainerResponse(container_id=id)

    async def start_container(self, request: pb.StartContainerRequest) -> pb.StartContainerResponse:
        status = self._container(request.container_id)
        if status.state != pb.CONTAINER_CREATED:
            raise CRIError(Code.FAILED_PRECONDITION, f'container "{status.id}" is not in CREATED state')
        sandbox = self._sandboxes[self._sandbox_of[status.id]]
        if delay := _seconds(sandbox, "start-seconds"):
            await self._clock.sleep(delay)
        status.state = pb.CONTAINER_RUNNING
        status.started_at = self._now()
        self._publish(sandbox.id, status.id, _STARTED)
        run = _seconds(sandbox, "run-seconds")
        if run is None and JOB_LABEL in sandbox.labels:
            run = JOB_RUN_S
        if run is not None:
            self._lives[status.id] = asyncio.get_running_loop().create_task(self._live(status.id, run, sandbox))
        return pb.StartContainerResponse()

    async def stop_container(self, request: pb.StopContainerRequest) -> pb.StopContainerResponse:
        if request.container_id in self._containers:
            self._end(request.container_id, 137 if request.timeout <= 0 else 0, "Completed")
        return pb.StopContainerResponse()

    async def remove_container(self, request: pb.RemoveContainerRequest) -> pb.RemoveContainerResponse:
        id = request.container_id
        if id in self._containers:
            self._end(id, 137, "Error")
            sandbox = self._sandbox_of.pop(id)
            del self._containers[id]
            self._members[sandbox].discard(id)
            self._publish(sandbox, id, _DELETED)
        return pb.RemoveContainerResponse()

    async def list_containers(self, request: pb.ListContainersRequest) -> pb.ListContainersResponse:
        return pb.ListContainersResponse(containers=self._list_containers(request.filter))

    async def stream_containers(
        self, request: pb.StreamContainersRequest
    ) -> AsyncIterator[pb.StreamContainersResponse]:
        yield pb.StreamContainersResponse(containers=self._list_containers(request.filter))

    async def container_status(self, request: pb.ContainerStatusRequest) -> pb.ContainerStatusResponse:
        return pb.ContainerStatusResponse(status=self._container(request.container_id))

    async def update_container_resources(
        self, request: pb.UpdateContainerResourcesRequest
    ) -> pb.UpdateContainerResourcesResponse:
        self._container(request.container_id).resources.linux.MergeFrom(request.linux)
        return pb.UpdateContainerResourcesResponse()

    async def reopen_container_log(self, request: pb.ReopenContainerLogRequest) -> pb.ReopenContainerLogResponse:
        self._container(request.container_id)
        return pb.ReopenContainerLogResponse()

    async def exec_sync(self, request: pb.ExecSyncRequest) -> pb.ExecSyncResponse:
        """Every command succeeds, so probes do."""
        if self._container(request.container_id).state != pb.CONTAINER_RUNNING:
            raise CRIError(Code.FAILED_PRECONDITION, "container is not running")
        return pb.ExecSyncResponse()

    # What a simulated process cannot do

    async def exec(self, request: pb.ExecRequest) -> pb.ExecResponse:
        raise _simulated("exec")

    async def attach(self, request: pb.AttachRequest) -> pb.AttachResponse:
        raise _simulated("attach")

    async def port_forward(self, request: pb.PortForwardRequest) -> pb.PortForwardResponse:
        raise _simulated("port-forward")

    async def checkpoint_container(self, request: pb.CheckpointContainerRequest) -> pb.CheckpointContainerResponse:
        raise _simulated("checkpoint")

    async def checkpoint_pod(self, request: pb.CheckpointPodRequest) -> pb.CheckpointPodResponse:
        raise _simulated("checkpoint")

    async def restore_pod(self, request: pb.RestorePodRequest) -> pb.RestorePodResponse:
        raise _simulated("restore")

    async def list_metric_descriptors(
        self, request: pb.ListMetricDescriptorsRequest
    ) -> pb.ListMetricDescriptorsResponse:
        raise _simulated("metrics")

    async def list_pod_sandbox_metrics(
        self, request: pb.ListPodSandboxMetricsRequest
    ) -> pb.ListPodSandboxMetricsResponse:
        raise _simulated("metrics")

    async def stream_pod_sandbox_metrics(
        self, request: pb.StreamPodSandboxMetricsRequest
    ) -> AsyncIterator[pb.StreamPodSandboxMetricsResponse]:
        raise _simulated("metrics")
        yield  # makes this an iterator, as the protocol says

    # Events and figures

    async def get_container_events(self, request: pb.GetEventsRequest) -> AsyncIterator[pb.ContainerEventResponse]:
        if not self._events:
            raise CRIError(Code.UNIMPLEMENTED, "container events are switched off")
        queue: asyncio.Queue[pb.ContainerEventResponse | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._listeners.discard(queue)

    async def container_stats(self, request: pb.ContainerStatsRequest) -> pb.ContainerStatsResponse:
        return pb.ContainerStatsResponse(stats=self._stats(self._container(request.container_id)))

    async def list_container_stats(self, request: pb.ListContainerStatsRequest) -> pb.ListContainerStatsResponse:
        return pb.ListContainerStatsResponse(stats=self._list_stats(request.filter))

    async def stream_container_stats(
        self, request: pb.StreamContainerStatsRequest
    ) -> AsyncIterator[pb.StreamContainerStatsResponse]:
        yield pb.StreamContainerStatsResponse(container_stats=self._list_stats(request.filter))

    async def pod_sandbox_stats(self, request: pb.PodSandboxStatsRequest) -> pb.PodSandboxStatsResponse:
        return pb.PodSandboxStatsResponse(stats=self._pod_stats(self._sandbox(request.pod_sandbox_id)))

    async def list_pod_sandbox_stats(self, request: pb.ListPodSandboxStatsRequest) -> pb.ListPodSandboxStatsResponse:
        return pb.ListPodSandboxStatsResponse(stats=self._list_pod_stats(request.filter))

    async def stream_pod_sandbox_stats(
        self, request: pb.StreamPodSandboxStatsRequest
    ) -> AsyncIterator[pb.StreamPodSandboxStatsResponse]:
        yield pb.StreamPodSandboxStatsResponse(pod_sandbox_stats=self._list_pod_stats(request.filter))

    # Images

    async def list_images(self, request: pb.ListImagesRequest) -> pb.ListImagesResponse:
        wanted = request.filter.image.image
        return pb.ListImagesResponse(images=[image for name, image in self._images.items() if wanted in ("", name)])

    async def stream_images(self, request: pb.StreamImagesRequest) -> AsyncIterator[pb.StreamImagesResponse]:
        yield pb.StreamImagesResponse(images=list(self._images.values()))

    async def image_status(self, request: pb.ImageStatusRequest) -> pb.ImageStatusResponse:
        image = self._images.get(request.image.image)
        return pb.ImageStatusResponse(image=image) if image is not None else pb.ImageStatusResponse()

    async def pull_image(self, request: pb.PullImageRequest) -> pb.PullImageResponse:
        if request.sandbox_config.annotations.get(f"{PREFIX}fail-image") == "true":
            raise CRIError(Code.NOT_FOUND, f'failed to pull image "{request.image.image}": not found')
        return pb.PullImageResponse(image_ref=self._image(request.image.image).id)

    async def remove_image(self, request: pb.RemoveImageRequest) -> pb.RemoveImageResponse:
        for name, image in list(self._images.items()):
            if request.image.image in (name, image.id):
                del self._images[name]
        return pb.RemoveImageResponse()

    async def image_fs_info(self, request: pb.ImageFsInfoRequest) -> pb.ImageFsInfoResponse:
        usage = pb.FilesystemUsage(timestamp=self._now(), fs_id=pb.FilesystemIdentifier(mountpoint="/"))
        usage.used_bytes.value = len(self._images) * IMAGE_SIZE
        usage.inodes_used.value = len(self._images)
        return pb.ImageFsInfoResponse(image_filesystems=[usage], container_filesystems=[usage])

    # Inside

    def _now(self) -> int:
        now: datetime = self._clock.now()
        return int(now.timestamp()) * 1_000_000_000 + now.microsecond * 1000

    def _sandbox(self, id: str) -> pb.PodSandboxStatus:
        sandbox = self._sandboxes.get(id)
        if sandbox is None:
            raise CRIError(Code.NOT_FOUND, f'an error occurred when try to find sandbox "{id}": not found')
        return sandbox

    def _container(self, id: str) -> pb.ContainerStatus:
        container = self._containers.get(id)
        if container is None:
            raise CRIError(Code.NOT_FOUND, f'an error occurred when try to find container "{id}": not found')
        return container

    def _image(self, name: str) -> pb.Image:
        for image in self._images.values():
            if image.id == name:
                return image
        if name not in self._images:
            digest = hashlib.sha256(name.encode()).hexdigest()
            repository = name.partition("@")[0]
            self._images[name] = pb.Image(
                id=f"sha256:{digest}",
                repo_tags=[name],
                repo_digests=[f"{repository}@sha256:{digest}"],
                size=IMAGE_SIZE,
                uid=pb.Int64Value(value=0),
            )
        return self._images[name]

    async def _live(self, id: str, seconds: float, sandbox: pb.PodSandboxStatus) -> None:
        await self._clock.sleep(seconds)
        self._lives.pop(id, None)
        code = int(sandbox.annotations.get(f"{PREFIX}exit-code", "0"))
        self._end(id, code, "Completed" if code == 0 else "Error")

    def _end(self, id: str, code: int, reason: str) -> None:
        status = self._containers[id]
        if status.state != pb.CONTAINER_RUNNING:
            return
        if (life := self._lives.pop(id, None)) is not None:
            life.cancel()
        status.state = pb.CONTAINER_EXITED
        status.finished_at = self._now()
        status.exit_code = code
        status.reason = reason if code == 0 else "Error"
        self._publish(self._sandbox_of[id], id, _STOPPED)

    def _publish(self, sandbox: str, id: str, kind: pb.ContainerEventType) -> None:
        if not self._listeners:
            return
        event = pb.ContainerEventResponse(
            container_id=id,
            container_event_type=kind,
            created_at=self._now(),
            pod_sandbox_status=self._sandboxes[sandbox],
            containers_statuses=[self._containers[member] for member in self._members[sandbox]],
        )
        for queue in self._listeners:
            queue.put_nowait(event)

    def _list_sandboxes(self, wanted: pb.PodSandboxFilter) -> list[pb.PodSandbox]:
        return [
            pb.PodSandbox(
                id=status.id,
                metadata=status.metadata,
                state=status.state,
                created_at=status.created_at,
                labels=status.labels,
                annotations=status.annotations,
                runtime_handler=status.runtime_handler,
            )
            for status in self._sandboxes.values()
            if (not wanted.id or status.id == wanted.id)
            and (not wanted.HasField("state") or status.state == wanted.state.state)
            and _has_labels(status, wanted)
        ]

    def _list_containers(self, wanted: pb.ContainerFilter) -> list[pb.Container]:
        return [
            pb.Container(
                id=status.id,
                pod_sandbox_id=self._sandbox_of[status.id],
                metadata=status.metadata,
                image=status.image,
                image_ref=status.image_ref,
                image_id=status.image_id,
                state=status.state,
                created_at=status.created_at,
                labels=status.labels,
                annotations=status.annotations,
            )
            for status in self._containers.values()
            if (not wanted.id or status.id == wanted.id)
            and (not wanted.pod_sandbox_id or self._sandbox_of[status.id] == wanted.pod_sandbox_id)
            and (not wanted.HasField("state") or status.state == wanted.state.state)
            and _has_labels(status, wanted)
        ]

    def _stats(self, status: pb.ContainerStatus) -> pb.ContainerStats:
        """What the container asked for is what it uses."""
        now = self._now()
        stats = pb.ContainerStats(
            attributes=pb.ContainerAttributes(
                id=status.id, metadata=status.metadata, labels=status.labels, annotations=status.annotations
            ),
            cpu=pb.CpuUsage(timestamp=now),
            memory=pb.MemoryUsage(timestamp=now),
        )
        cores = status.resources.linux.cpu_shares * 1_000_000_000 // 1024
        stats.cpu.usage_nano_cores.value = cores
        stats.cpu.usage_core_nano_seconds.value = cores * max(0, now - status.started_at) // 1_000_000_000
        stats.memory.working_set_bytes.value = status.resources.linux.memory_limit_in_bytes // 2
        stats.memory.usage_bytes.value = stats.memory.working_set_bytes.value
        return stats

    def _pod_stats(self, sandbox: pb.PodSandboxStatus) -> pb.PodSandboxStats:
        stats = pb.PodSandboxStats(
            attributes=pb.PodSandboxAttributes(
                id=sandbox.id, metadata=sandbox.metadata, labels=sandbox.labels, annotations=sandbox.annotations
            )
        )
        for id in self._members[sandbox.id]:
            if self._containers[id].state == pb.CONTAINER_RUNNING:
                stats.linux.containers.append(self._stats(self._containers[id]))
        return stats

    def _list_stats(self, wanted: pb.ContainerStatsFilter) -> list[pb.ContainerStats]:
        as_filter = pb.ContainerFilter(id=wanted.id, pod_sandbox_id=wanted.pod_sandbox_id)
        as_filter.state.state = pb.CONTAINER_RUNNING
        as_filter.label_selector.update(wanted.label_selector)
        return [self._stats(self._containers[container.id]) for container in self._list_containers(as_filter)]

    def _list_pod_stats(self, wanted: pb.PodSandboxStatsFilter) -> list[pb.PodSandboxStats]:
        as_filter = pb.PodSandboxFilter(id=wanted.id)
        as_filter.state.state = pb.SANDBOX_READY
        as_filter.label_selector.update(wanted.label_selector)
        return [self._pod_stats(self._sandboxes[sandbox.id]) for sandbox in self._list_sandboxes(as_filter)]


def _addresses(cidr: str) -> Iterator[str]:
    network = ipaddress.ip_network(cidr or "10.0.0.0/8", strict=False)
    return (str(network.network_address + number) for number in range(2, network.num_addresses - 1))


def _seconds(sandbox: pb.PodSandboxStatus, name: str) -> float | None:
    value = sandbox.annotations.get(PREFIX + name)
    try:
        return float(value) if value else None
    except ValueError:
        return None


def _has_labels(status: Any, wanted: Any) -> bool:
    return all(status.labels.get(key) == value for key, value in wanted.label_selector.items())


def _simulated(what: str) -> CRIError:
    return CRIError(Code.UNIMPLEMENTED, f"{what} is not possible: the container is simulated")
