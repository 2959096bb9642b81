"""Berg's own runtime: CRI over an OCI runtime (crun or runc), in process.

This room answers CRI and puts the others together; each rpc is a few lines here and the work is next door:

    sandboxes.py   namespaces, network, files of a pod           images/     the image store, pulls, archives
    creation.py    from a request to a container on disk         execs.py    exec, attach, port-forward
    containers.py  start, watch, stop, remove                    stats.py    figures from the cgroups

State is on disk; a Berg that was killed and started anew finds every sandbox and container, with logs and exit codes
(see `monitor.py`). `stop()` leaves what runs running.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

import orjson

import berg
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import Code, CRIError
from berg.runtime.network import PodNetwork
from berg.runtime.own import messages, stats
from berg.runtime.own.bundle import OCIRuntime
from berg.runtime.own.config import OwnConfig
from berg.runtime.own.containers import Containers, log_path
from berg.runtime.own.creation import Creator
from berg.runtime.own.events import EventHub
from berg.runtime.own.execs import Execs
from berg.runtime.own.images import names
from berg.runtime.own.images.registry import Credentials, Registries
from berg.runtime.own.images.store import Image, ImageError, ImageStore
from berg.runtime.own.launcher import Launcher
from berg.runtime.own.rootfs import writable_root
from berg.runtime.own.sandboxes import Sandboxes
from berg.runtime.own.spec import NOFILE
from berg.runtime.own.state import Container, ContainerState, Records, Sandbox, SandboxState

T = TypeVar("T")

RUNTIME_NAME = "berg"
STREAM_SIZE = 500
"""Entries in one message of the streaming list rpcs."""

_EVENTS = {
    "created": pb.CONTAINER_CREATED_EVENT,
    "started": pb.CONTAINER_STARTED_EVENT,
    "stopped": pb.CONTAINER_STOPPED_EVENT,
    "deleted": pb.CONTAINER_DELETED_EVENT,
}


class BergRuntime:
    """A body of `berg.runtime.cri.CRI`."""

    def __init__(
        self, config: OwnConfig, network: PodNetwork | None = None, registries: Registries | None = None
    ) -> None:
        self.config = config
        self.images = ImageStore(config.under_root("images"), registries)
        self._network = network
        self._events = EventHub()
        self._launcher = Launcher()
        self._handlers = config.runtimes()
        self._trouble = ""
        self.sandboxes = Sandboxes(
            Records(config.under_root("sandboxes"), Sandbox, pb.PodSandboxConfig, SandboxState),
            self._launcher,
            network,
            config.state,
            config.default_cgroup_parent,
            self._sandbox_event,
        )
        self.containers = Containers(
            Records(config.under_root("containers"), Container, pb.ContainerConfig, ContainerState),
            self._launcher,
            self.images,
            config.state,
            self._container_event,
        )
        self._creator = Creator(self.sandboxes, self.containers.records, self.images)
        self._execs = Execs(self.containers, self.sandboxes, self._launcher, self._runtime_of, config)
        self._stats = stats.Stats(self.containers, self.sandboxes)

    async def start(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (NOFILE[1], NOFILE[1]))  # a few files for each container
        os.makedirs(self.config.root, mode=0o711, exist_ok=True)
        os.makedirs(self.config.state, mode=0o711, exist_ok=True)
        self.sandboxes.records.load()
        self.containers.records.load()
        await asyncio.to_thread(self.images.open)
        candidates = [self.config.under_root("containers"), self.config.under_state("writable")]
        try:
            self._creator.writable_root = await self._launcher.call(lambda: writable_root(candidates))
        except OSError as error:
            self._trouble = f"no overlay file system: {error}"
        await self.sandboxes.open()
        await self.containers.open()
        await self._execs.start()

    async def stop(self) -> None:
        self._events.close()
        await self._execs.stop()
        await self.containers.close()
        await asyncio.to_thread(self._launcher.stop)

    # The runtime itself

    async def version(self, request: pb.VersionRequest) -> pb.VersionResponse:
        return pb.VersionResponse(
            version="0.1.0", runtime_name=RUNTIME_NAME, runtime_version=berg.__version__, runtime_api_version="v1"
        )

    async def status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        missing = self._trouble if "" in self._handlers else "neither crun nor runc is installed"
        if self._network is None:
            trouble: str | None = "no pod network is configured"
        else:
            trouble = await self._network.status()
        response = pb.StatusResponse(
            status=pb.RuntimeStatus(
                conditions=[
                    _condition("RuntimeReady", missing, "RuntimeNotReady"),
                    _condition("NetworkReady", trouble or "", "NetworkPluginNotReady"),
                ]
            ),
            runtime_handlers=[
                pb.RuntimeHandler(
                    name=name,
                    features=pb.RuntimeHandlerFeatures(recursive_read_only_mounts=True, user_namespaces=False),
                )
                for name in sorted(self._handlers)
            ],
            features=pb.RuntimeFeatures(supplemental_groups_policy=True, mount_options=True),
        )
        if request.verbose:
            info = {"root": self.config.root, "state": self.config.state, "handlers": self._handlers}
            response.info["config"] = orjson.dumps(info).decode()
        return response

    async def update_runtime_config(self, request: pb.UpdateRuntimeConfigRequest) -> pb.UpdateRuntimeConfigResponse:
        update = getattr(self._network, "set_pod_cidr", None)
        if update is not None and request.runtime_config.network_config.pod_cidr:
            await update(request.runtime_config.network_config.pod_cidr)
        return pb.UpdateRuntimeConfigResponse()

    async def runtime_config(self, request: pb.RuntimeConfigRequest) -> pb.RuntimeConfigResponse:
        return pb.RuntimeConfigResponse(linux=pb.LinuxRuntimeConfiguration(cgroup_driver=pb.CGROUPFS))

    # Sandboxes

    async def run_pod_sandbox(self, request: pb.RunPodSandboxRequest) -> pb.RunPodSandboxResponse:
        self._program(request.runtime_handler)
        sandbox = await self.sandboxes.run(request.config, request.runtime_handler)
        self._publish(sandbox, sandbox.id, "created")
        self._publish(sandbox, sandbox.id, "started")
        return pb.RunPodSandboxResponse(pod_sandbox_id=sandbox.id)

    async def stop_pod_sandbox(self, request: pb.StopPodSandboxRequest) -> pb.StopPodSandboxResponse:
        sandbox = self.sandboxes.records.find(request.pod_sandbox_id)
        if sandbox is not None:
            await asyncio.gather(*(self.containers.stop(container, 0) for container in self._containers_of(sandbox)))
            await self.sandboxes.stop(sandbox)
        return pb.StopPodSandboxResponse()

    async def remove_pod_sandbox(self, request: pb.RemovePodSandboxRequest) -> pb.RemovePodSandboxResponse:
        sandbox = self.sandboxes.records.find(request.pod_sandbox_id)
        if sandbox is not None:
            await self.stop_pod_sandbox(pb.StopPodSandboxRequest(pod_sandbox_id=sandbox.id))
            for container in self._containers_of(sandbox):
                await self.containers.remove(container)
            await self.sandboxes.remove(sandbox)
        return pb.RemovePodSandboxResponse()

    async def pod_sandbox_status(self, request: pb.PodSandboxStatusRequest) -> pb.PodSandboxStatusResponse:
        sandbox = self.sandboxes.get(request.pod_sandbox_id)
        response = pb.PodSandboxStatusResponse(status=messages.sandbox_status(sandbox), timestamp=time.time_ns())
        response.containers_statuses.extend(self._status(container) for container in self._containers_of(sandbox))
        if request.verbose:
            info = {"ips": sandbox.state.ips, "pid": sandbox.state.pause_pid, "runtimeHandler": sandbox.state.handler}
            response.info["info"] = orjson.dumps(info).decode()
        return response

    async def list_pod_sandbox(self, request: pb.ListPodSandboxRequest) -> pb.ListPodSandboxResponse:
        found = messages.filter_sandboxes(self.sandboxes.records.all.values(), request.filter)
        return pb.ListPodSandboxResponse(items=[messages.sandbox_entry(sandbox) for sandbox in found])

    async def stream_pod_sandboxes(
        self, request: pb.StreamPodSandboxesRequest
    ) -> AsyncIterator[pb.StreamPodSandboxesResponse]:
        found = messages.filter_sandboxes(self.sandboxes.records.all.values(), request.filter)
        for part in _parts([messages.sandbox_entry(sandbox) for sandbox in found]):
            yield pb.StreamPodSandboxesResponse(pod_sandboxes=part)

    async def update_pod_sandbox_resources(
        self, request: pb.UpdatePodSandboxResourcesRequest
    ) -> pb.UpdatePodSandboxResourcesResponse:
        sandbox = self.sandboxes.get(request.pod_sandbox_id)
        # The pod's group is the kubelet's; this call only tells the runtime, which keeps it for those who ask.
        if request.HasField("resources"):
            sandbox.config.linux.resources.CopyFrom(request.resources)
        if request.HasField("overhead"):
            sandbox.config.linux.overhead.CopyFrom(request.overhead)
        return pb.UpdatePodSandboxResourcesResponse()

    # Containers

    async def create_container(self, request: pb.CreateContainerRequest) -> pb.CreateContainerResponse:
        sandbox = self.sandboxes.get(request.pod_sandbox_id)
        runtime = self._runtime(sandbox)
        try:
            container = await asyncio.to_thread(self._creator.create, sandbox, request.config, runtime)
        except OSError as error:
            raise CRIError(Code.UNKNOWN, f"failed to create container: {error}") from error
        self._container_event(container, "created")
        return pb.CreateContainerResponse(container_id=container.id)

    async def start_container(self, request: pb.StartContainerRequest) -> pb.StartContainerResponse:
        container = self.containers.get(request.container_id)
        await self.containers.start(container, self._runtime_of(container))
        return pb.StartContainerResponse()

    async def stop_container(self, request: pb.StopContainerRequest) -> pb.StopContainerResponse:
        container = self.containers.records.find(request.container_id)
        if container is not None:
            await self.containers.stop(container, request.timeout)
        return pb.StopContainerResponse()

    async def remove_container(self, request: pb.RemoveContainerRequest) -> pb.RemoveContainerResponse:
        container = self.containers.records.find(request.container_id)
        if container is not None:
            await self.containers.remove(container)
            self._container_event(container, "deleted")
        return pb.RemoveContainerResponse()

    async def list_containers(self, request: pb.ListContainersRequest) -> pb.ListContainersResponse:
        found = messages.filter_containers(self.containers.records.all.values(), request.filter)
        return pb.ListContainersResponse(containers=[self._entry(container) for container in found])

    async def stream_containers(
        self, request: pb.StreamContainersRequest
    ) -> AsyncIterator[pb.StreamContainersResponse]:
        found = messages.filter_containers(self.containers.records.all.values(), request.filter)
        for part in _parts([self._entry(container) for container in found]):
            yield pb.StreamContainersResponse(containers=part)

    async def container_status(self, request: pb.ContainerStatusRequest) -> pb.ContainerStatusResponse:
        container = self.containers.get(request.container_id)
        response = pb.ContainerStatusResponse(status=self._status(container))
        if request.verbose:
            response.info["info"] = orjson.dumps(self._container_info(container)).decode()
        return response

    async def update_container_resources(
        self, request: pb.UpdateContainerResourcesRequest
    ) -> pb.UpdateContainerResourcesResponse:
        await self.containers.update(self.containers.get(request.container_id), request.linux)
        return pb.UpdateContainerResourcesResponse()

    async def reopen_container_log(self, request: pb.ReopenContainerLogRequest) -> pb.ReopenContainerLogResponse:
        self.containers.reopen_log(self.containers.get(request.container_id))
        return pb.ReopenContainerLogResponse()

    async def checkpoint_container(self, request: pb.CheckpointContainerRequest) -> pb.CheckpointContainerResponse:
        raise CRIError(Code.UNIMPLEMENTED, "method CheckpointContainer not implemented")

    async def checkpoint_pod(self, request: pb.CheckpointPodRequest) -> pb.CheckpointPodResponse:
        raise CRIError(Code.UNIMPLEMENTED, "method CheckpointPod not implemented")

    async def restore_pod(self, request: pb.RestorePodRequest) -> pb.RestorePodResponse:
        raise CRIError(Code.UNIMPLEMENTED, "method RestorePod not implemented")

    # Exec and its kin

    async def exec_sync(self, request: pb.ExecSyncRequest) -> pb.ExecSyncResponse:
        return await self._execs.exec_sync(self.containers.get(request.container_id), request)

    async def exec(self, request: pb.ExecRequest) -> pb.ExecResponse:
        return pb.ExecResponse(url=self._execs.exec_url(self.containers.get(request.container_id), request))

    async def attach(self, request: pb.AttachRequest) -> pb.AttachResponse:
        return pb.AttachResponse(url=self._execs.attach_url(self.containers.get(request.container_id), request))

    async def port_forward(self, request: pb.PortForwardRequest) -> pb.PortForwardResponse:
        sandbox = self.sandboxes.get(request.pod_sandbox_id)
        return pb.PortForwardResponse(url=self._execs.port_forward_url(sandbox, request))

    # Events and figures

    def get_container_events(self, request: pb.GetEventsRequest) -> AsyncIterator[pb.ContainerEventResponse]:
        return self._events.listen()

    async def container_stats(self, request: pb.ContainerStatsRequest) -> pb.ContainerStatsResponse:
        container = self.containers.get(request.container_id)
        return pb.ContainerStatsResponse(stats=await asyncio.to_thread(self._stats.container, container))

    async def list_container_stats(self, request: pb.ListContainerStatsRequest) -> pb.ListContainerStatsResponse:
        return pb.ListContainerStatsResponse(stats=await self._container_stats(request.filter))

    async def stream_container_stats(
        self, request: pb.StreamContainerStatsRequest
    ) -> AsyncIterator[pb.StreamContainerStatsResponse]:
        for part in _parts(await self._container_stats(request.filter)):
            yield pb.StreamContainerStatsResponse(container_stats=part)

    async def pod_sandbox_stats(self, request: pb.PodSandboxStatsRequest) -> pb.PodSandboxStatsResponse:
        sandbox = self.sandboxes.get(request.pod_sandbox_id)
        return pb.PodSandboxStatsResponse(stats=await self._stats.sandbox(sandbox, self._launcher))

    async def list_pod_sandbox_stats(self, request: pb.ListPodSandboxStatsRequest) -> pb.ListPodSandboxStatsResponse:
        return pb.ListPodSandboxStatsResponse(stats=await self._sandbox_stats(request.filter))

    async def stream_pod_sandbox_stats(
        self, request: pb.StreamPodSandboxStatsRequest
    ) -> AsyncIterator[pb.StreamPodSandboxStatsResponse]:
        for part in _parts(await self._sandbox_stats(request.filter)):
            yield pb.StreamPodSandboxStatsResponse(pod_sandbox_stats=part)

    async def list_metric_descriptors(
        self, request: pb.ListMetricDescriptorsRequest
    ) -> pb.ListMetricDescriptorsResponse:
        raise CRIError(Code.UNIMPLEMENTED, "method ListMetricDescriptors not implemented")

    async def list_pod_sandbox_metrics(
        self, request: pb.ListPodSandboxMetricsRequest
    ) -> pb.ListPodSandboxMetricsResponse:
        raise CRIError(Code.UNIMPLEMENTED, "method ListPodSandboxMetrics not implemented")

    async def stream_pod_sandbox_metrics(
        self, request: pb.StreamPodSandboxMetricsRequest
    ) -> AsyncIterator[pb.StreamPodSandboxMetricsResponse]:
        raise CRIError(Code.UNIMPLEMENTED, "method StreamPodSandboxMetrics not implemented")
        yield  # makes this an iterator, as the protocol says

    # Images

    async def list_images(self, request: pb.ListImagesRequest) -> pb.ListImagesResponse:
        return pb.ListImagesResponse(images=self._image_entries(request.filter))

    async def stream_images(self, request: pb.StreamImagesRequest) -> AsyncIterator[pb.StreamImagesResponse]:
        for part in _parts(self._image_entries(request.filter)):
            yield pb.StreamImagesResponse(images=part)

    async def image_status(self, request: pb.ImageStatusRequest) -> pb.ImageStatusResponse:
        image = self.images.get(request.image.image)
        if image is None:
            return pb.ImageStatusResponse()
        response = pb.ImageStatusResponse(image=messages.image_entry(image))
        if request.verbose:
            info = {"chainID": "", "imageSpec": self.images.config(image)}
            response.info["info"] = orjson.dumps(info).decode()
        return response

    async def pull_image(self, request: pb.PullImageRequest) -> pb.PullImageResponse:
        credentials = Credentials.of(request.auth) if request.HasField("auth") else None
        try:
            image = await self.images.pull(request.image.image, credentials)
        except names.InvalidName as error:
            raise CRIError(Code.INVALID_ARGUMENT, str(error)) from error
        except ImageError as error:
            code = getattr(error, "code", Code.UNKNOWN)
            name = names.parse(request.image.image)
            raise CRIError(code, f'failed to pull and unpack image "{name}": {error}') from error
        return pb.PullImageResponse(image_ref=image.id)

    async def remove_image(self, request: pb.RemoveImageRequest) -> pb.RemoveImageResponse:
        await asyncio.to_thread(self.images.remove, request.image.image)
        return pb.RemoveImageResponse()

    async def image_fs_info(self, request: pb.ImageFsInfoRequest) -> pb.ImageFsInfoResponse:
        images = await asyncio.to_thread(self._stats.filesystem, self.config.under_root("images"))
        containers = await asyncio.to_thread(self._stats.filesystem, self.config.under_root("containers"))
        return pb.ImageFsInfoResponse(image_filesystems=[images], container_filesystems=[containers])

    # Inside

    def _program(self, handler: str) -> str:
        program = self._handlers.get(handler)
        if program is None:
            if not handler:
                raise CRIError(Code.FAILED_PRECONDITION, "neither crun nor runc is installed")
            text = f'failed to get sandbox runtime: no runtime for "{handler}" is configured'
            raise CRIError(Code.UNKNOWN, text)
        return program

    def _runtime_of(self, container: Container) -> OCIRuntime:
        return self._runtime(self.sandboxes.get(container.state.sandbox_id))

    def _runtime(self, sandbox: Sandbox) -> OCIRuntime:
        program = self._program(sandbox.state.handler)
        return OCIRuntime(program, self.config.under_state(os.path.basename(program)))

    def _containers_of(self, sandbox: Sandbox) -> list[Container]:
        return [
            container for container in self.containers.records.all.values() if container.state.sandbox_id == sandbox.id
        ]

    def _entry(self, container: Container) -> pb.Container:
        return messages.container_entry(container, self._image_ref(container)[0])

    def _status(self, container: Container) -> pb.ContainerStatus:
        reference, name = self._image_ref(container)
        return messages.container_status(container, reference, name, log_path(self.containers.bundle(container.id)))

    def _container_info(self, container: Container) -> dict[str, Any]:
        state = container.state
        with open(self.containers.bundle(container.id).path("config.json"), "rb") as file:
            spec = orjson.loads(file.read())
        return {"pid": state.pid, "sandboxID": state.sandbox_id, "cgroup": state.cgroup, "runtimeSpec": spec}

    def _image_ref(self, container: Container) -> tuple[str, str]:
        image = self.images.get(container.state.image_id)
        if image is None:
            return container.state.image_id, ""
        return _reference(image), image.tags[0] if image.tags else ""

    def _image_entries(self, wanted: pb.ImageFilter) -> list[pb.Image]:
        images: list[Image] = self.images.all()
        if wanted.image.image:
            found = self.images.get(wanted.image.image)
            images = [found] if found is not None else []
        return [messages.image_entry(image) for image in images]

    async def _container_stats(self, wanted: pb.ContainerStatsFilter) -> list[pb.ContainerStats]:
        found = messages.filter_containers(self.containers.records.all.values(), wanted)
        running = [container for container in found if container.state.state == "running"]
        return await asyncio.to_thread(lambda: [self._stats.container(container) for container in running])

    async def _sandbox_stats(self, wanted: pb.PodSandboxStatsFilter) -> list[pb.PodSandboxStats]:
        found = [
            sandbox
            for sandbox in self.sandboxes.records.all.values()
            if sandbox.state.ready
            and sandbox.id.startswith(wanted.id)
            and messages.matches_labels(sandbox.config.labels, wanted.label_selector)
        ]
        return [await self._stats.sandbox(sandbox, self._launcher) for sandbox in found]

    def _container_event(self, container: Container, kind: str) -> None:
        sandbox = self.sandboxes.records.all.get(container.state.sandbox_id)
        if sandbox is not None:
            self._publish(sandbox, container.id, kind)

    def _sandbox_event(self, sandbox: Sandbox, kind: str) -> None:
        self._publish(sandbox, sandbox.id, kind)

    def _publish(self, sandbox: Sandbox, id: str, kind: str) -> None:
        if not self._events.listened_to:
            return
        self._events.publish(
            pb.ContainerEventResponse(
                container_id=id,
                container_event_type=_EVENTS[kind],
                created_at=time.time_ns(),
                pod_sandbox_status=messages.sandbox_status(sandbox),
                containers_statuses=[self._status(container) for container in self._containers_of(sandbox)],
            )
        )


def _condition(kind: str, trouble: str, reason: str) -> pb.RuntimeCondition:
    return pb.RuntimeCondition(type=kind, status=not trouble, reason=reason if trouble else "", message=trouble)


def _reference(image: Image) -> str:
    return image.digests[0] if image.digests else image.id


def _parts(entries: Sequence[T]) -> list[Sequence[T]]:
    return [entries[start : start + STREAM_SIZE] for start in range(0, len(entries), STREAM_SIZE)]
