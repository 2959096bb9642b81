"""A runtime that keeps pods in memory and an event list: enough of CRI to drive the kubelet's rooms."""

from __future__ import annotations

import itertools
from typing import Any

from berg.machinery.clock import FakeClock
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import Code, CRIError


class FakeCRI:
    def __init__(self, clock: FakeClock, images: tuple[str, ...] = ("busybox:latest",)) -> None:
        self.clock = clock
        self.images = {name: pb.Image(id=f"sha256:{name}", repo_tags=[name], size=7) for name in images}
        self.sandboxes: dict[str, Any] = {}
        self.containers: dict[str, Any] = {}
        self.owner: dict[str, str] = {}
        self.calls: list[str] = []
        self.fail: dict[str, CRIError] = {}
        self.exec_results: dict[tuple[str, ...], tuple[int, bytes]] = {}
        self.pulled_with: list[str] = []
        self.configs: dict[str, Any] = {}
        self._ids = itertools.count(1)

    def _now(self) -> int:
        return int(self.clock.now().timestamp() * 1e9) + next(self._ids)

    def _call(self, name: str, what: str = "") -> None:
        self.calls.append(f"{name} {what}".strip())
        if name in self.fail:
            raise self.fail[name]

    async def version(self, request: Any) -> Any:
        return pb.VersionResponse(runtime_name="fake", runtime_version="1")

    async def status(self, request: Any) -> Any:
        conditions = [pb.RuntimeCondition(type=t, status=True) for t in ("RuntimeReady", "NetworkReady")]
        return pb.StatusResponse(status=pb.RuntimeStatus(conditions=conditions))

    async def run_pod_sandbox(self, request: Any) -> Any:
        c = request.config
        self._call("run_pod_sandbox", c.metadata.name)
        id = f"s{next(self._ids)}"
        options = c.linux.security_context.namespace_options
        self.sandboxes[id] = pb.PodSandboxStatus(
            id=id,
            metadata=c.metadata,
            state=pb.SANDBOX_READY,
            created_at=self._now(),
            network=pb.PodSandboxNetworkStatus(ip="10.0.0.9"),
            linux=pb.LinuxPodSandboxStatus(namespaces=pb.Namespace(options=options)),
            labels=c.labels,
        )
        return pb.RunPodSandboxResponse(pod_sandbox_id=id)

    async def stop_pod_sandbox(self, request: Any) -> Any:
        self._call("stop_pod_sandbox", request.pod_sandbox_id)
        self.sandboxes[request.pod_sandbox_id].state = pb.SANDBOX_NOTREADY
        return pb.StopPodSandboxResponse()

    async def remove_pod_sandbox(self, request: Any) -> Any:
        self._call("remove_pod_sandbox", request.pod_sandbox_id)
        del self.sandboxes[request.pod_sandbox_id]
        return pb.RemovePodSandboxResponse()

    async def pod_sandbox_status(self, request: Any) -> Any:
        if request.pod_sandbox_id not in self.sandboxes:
            raise CRIError(Code.NOT_FOUND, "no sandbox")
        return pb.PodSandboxStatusResponse(status=self.sandboxes[request.pod_sandbox_id])

    async def list_pod_sandbox(self, request: Any) -> Any:
        wanted = request.filter.label_selector
        items = [
            pb.PodSandbox(id=s.id, metadata=s.metadata, state=s.state, created_at=s.created_at, labels=s.labels)
            for s in self.sandboxes.values()
            if all(s.labels.get(k) == v for k, v in wanted.items())
        ]
        return pb.ListPodSandboxResponse(items=items)

    async def create_container(self, request: Any) -> Any:
        c = request.config
        self._call("create_container", c.metadata.name)
        id = f"c{next(self._ids)}"
        self.configs[id] = c
        self.owner[id] = request.pod_sandbox_id
        self.containers[id] = pb.ContainerStatus(
            id=id,
            metadata=c.metadata,
            state=pb.CONTAINER_CREATED,
            created_at=self._now(),
            image=c.image,
            image_ref=c.image.image,
            labels=c.labels,
            annotations=c.annotations,
            mounts=c.mounts,
        )
        return pb.CreateContainerResponse(container_id=id)

    async def start_container(self, request: Any) -> Any:
        status = self.containers[request.container_id]
        self._call("start_container", status.metadata.name)
        status.state, status.started_at = pb.CONTAINER_RUNNING, self._now()
        return pb.StartContainerResponse()

    async def stop_container(self, request: Any) -> Any:
        status = self.containers[request.container_id]
        self._call("stop_container", f"{status.metadata.name} {request.timeout}")
        self.exit(status.metadata.name, 137)
        return pb.StopContainerResponse()

    async def remove_container(self, request: Any) -> Any:
        self._call("remove_container", self.containers[request.container_id].metadata.name)
        del self.containers[request.container_id]
        return pb.RemoveContainerResponse()

    async def list_containers(self, request: Any) -> Any:
        wanted = request.filter.label_selector
        items = [
            pb.Container(id=c.id, pod_sandbox_id=self.owner[c.id], metadata=c.metadata, state=c.state, labels=c.labels)
            for c in self.containers.values()
            if all(c.labels.get(k) == v for k, v in wanted.items())
        ]
        return pb.ListContainersResponse(containers=items)

    async def container_status(self, request: Any) -> Any:
        if request.container_id not in self.containers:
            raise CRIError(Code.NOT_FOUND, "no container")
        return pb.ContainerStatusResponse(status=self.containers[request.container_id])

    async def exec_sync(self, request: Any) -> Any:
        self._call("exec_sync", " ".join(request.cmd))
        code, output = self.exec_results.get(tuple(request.cmd), (0, b""))
        return pb.ExecSyncResponse(exit_code=code, stdout=output)

    async def image_status(self, request: Any) -> Any:
        wanted = request.image.image
        found = next((i for n, i in self.images.items() if wanted in (n, i.id)), None)
        return pb.ImageStatusResponse(image=found)

    async def pull_image(self, request: Any) -> Any:
        self._call("pull_image", request.image.image)
        self.pulled_with.append(request.auth.username)
        name = request.image.image
        self.images[name] = pb.Image(id=f"sha256:{name}", repo_tags=[name], size=7)
        return pb.PullImageResponse(image_ref=self.images[name].id)

    async def list_images(self, request: Any) -> Any:
        return pb.ListImagesResponse(images=list(self.images.values()))

    def exit(self, name: str, code: int) -> None:
        """The newest container called `name` ends."""
        status = max((c for c in self.containers.values() if c.metadata.name == name), key=lambda c: c.created_at)
        status.state, status.exit_code, status.finished_at = pb.CONTAINER_EXITED, code, self._now()
        status.reason = "Completed" if code == 0 else "Error"


def pod(name: str = "p", **spec: Any) -> dict[str, Any]:
    containers = spec.pop("containers", [{"name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent"}])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}", "generation": 1},
        "spec": {"containers": containers, "restartPolicy": "Always", **spec},
        "status": {"phase": "Pending"},
    }


class Events(list[tuple[str, str, str]]):
    """An event recorder: (type, reason, message)."""

    def __call__(self, obj: Any, type: str, reason: str, message: str) -> None:
        self.append((type, reason, message))

    @property
    def reasons(self) -> list[str]:
        return [e[1] for e in self]
