"""What the runtime says of a pod: sandboxes and containers, newest first, and how it is asked.

`PodStatus` is the one source of truth about what runs; it is read anew for each sync and never kept beyond it.
`read(cri, uid)` asks for one pod, `list_all(cri)` says which pods the runtime knows at all.

Source: pkg/kubelet/container/runtime.go, kuberuntime_container.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berg.kubelet import pod as p
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, Code, CRIError

MAX_MESSAGE_BYTES = 4096
MAX_LOG_MESSAGE_LINES = 80
MAX_LOG_MESSAGE_BYTES = 2048

_STATES = {
    pb.CONTAINER_CREATED: "created",
    pb.CONTAINER_RUNNING: "running",
    pb.CONTAINER_EXITED: "exited",
    pb.CONTAINER_UNKNOWN: "unknown",
}


@dataclass(slots=True)
class ContainerStatus:
    id: str
    name: str
    state: str
    """created, running, exited or unknown"""
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    """Nanoseconds since the epoch."""
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_ref: str = ""
    image_id: str = ""
    hash: int = 0
    restart_count: int = 0
    sandbox_id: str = ""
    log_path: str = ""
    resources: Any = None
    """LinuxContainerResources as the runtime applied them, or None."""
    user: Any = None
    stop_signal: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class SandboxStatus:
    id: str
    ready: bool
    attempt: int
    created_at: int
    ips: list[str]
    host_network: bool


@dataclass(slots=True)
class PodStatus:
    uid: str
    name: str = ""
    namespace: str = ""
    ips: list[str] = field(default_factory=list)
    sandboxes: list[SandboxStatus] = field(default_factory=list)
    containers: list[ContainerStatus] = field(default_factory=list)

    def find(self, name: str) -> ContainerStatus | None:
        """The newest container called `name`."""
        return next((c for c in self.containers if c.name == name), None)

    def running(self) -> list[ContainerStatus]:
        return [c for c in self.containers if c.state == "running"]

    @property
    def empty(self) -> bool:
        return not self.sandboxes and not self.containers


def container_status(s: Any) -> ContainerStatus:
    """From a CRI ContainerStatus; the termination message is read for what has ended."""
    annotations = dict(s.annotations)
    c = ContainerStatus(
        id=s.id,
        name=s.labels.get(p.LABEL_CONTAINER_NAME) or s.metadata.name,
        state=_STATES.get(s.state, "unknown"),
        created_at=s.created_at,
        image=s.image.user_specified_image or s.image.image,
        image_ref=s.image_ref,
        image_id=s.image_id or s.image_ref,
        hash=int(annotations.get(p.ANNOTATION_HASH) or "0", 16),
        restart_count=int(annotations.get(p.ANNOTATION_RESTART_COUNT) or s.metadata.attempt),
        log_path=s.log_path,
        annotations=annotations,
    )
    if s.HasField("resources") and s.resources.HasField("linux"):
        c.resources = s.resources.linux
    if s.HasField("user") and s.user.HasField("linux"):
        c.user = s.user.linux
    if s.stop_signal:
        c.stop_signal = pb.Signal.Name(s.stop_signal).removeprefix("SIGNAL_")
    if c.state != "created":
        c.started_at = s.started_at
    if c.state == "exited":
        c.exit_code, c.reason, c.finished_at = s.exit_code, s.reason, s.finished_at
        text = _termination_message(s, annotations)
        c.message = ": ".join(m for m in (s.message, text) if m)
    return c


def _termination_message(s: Any, annotations: dict[str, str]) -> str:
    from_logs = (
        annotations.get(p.ANNOTATION_TERMINATION_POLICY) == "FallbackToLogsOnError"
        and s.exit_code != 0
        and s.reason != "ContainerCannotRun"
    )
    path = annotations.get(p.ANNOTATION_TERMINATION_PATH) or ""
    if path:
        path = path if path.startswith("/") else "/" + path
        for mount in s.mounts:
            if mount.container_path == path:
                try:
                    text = _tail_bytes(Path(mount.host_path), MAX_MESSAGE_BYTES)
                except FileNotFoundError:
                    break
                except OSError as e:
                    return f"Error on reading termination log {mount.host_path}: {e}"
                if text or not from_logs:
                    return text
                break
    if from_logs and s.log_path:
        from berg.kubelet.logs import last_lines

        return last_lines(Path(s.log_path), MAX_LOG_MESSAGE_LINES, MAX_LOG_MESSAGE_BYTES)
    return ""


def _tail_bytes(path: Path, limit: int) -> str:
    with path.open("rb") as f:
        size = f.seek(0, 2)
        f.seek(max(0, size - limit))
        return f.read(limit).decode("utf-8", "replace")


def sandbox_status(s: Any) -> SandboxStatus:
    ips = [s.network.ip] if s.HasField("network") and s.network.ip else []
    ips += [extra.ip for extra in s.network.additional_ips if extra.ip]
    return SandboxStatus(
        id=s.id,
        ready=s.state == pb.SANDBOX_READY,
        attempt=s.metadata.attempt,
        created_at=s.created_at,
        ips=ips,
        host_network=s.linux.namespaces.options.network == pb.NODE,
    )


def assemble(uid: str, sandboxes: Iterable[Any], containers: Iterable[tuple[str, Any]]) -> PodStatus:
    """From CRI's PodSandboxStatus messages and (sandbox id, ContainerStatus) pairs."""
    status = PodStatus(uid)
    for s in sandboxes:
        status.name, status.namespace = s.metadata.name, s.metadata.namespace
        status.sandboxes.append(sandbox_status(s))
    status.sandboxes.sort(key=lambda s: (s.created_at, s.attempt), reverse=True)
    for sandbox_id, c in containers:
        one = container_status(c)
        one.sandbox_id = sandbox_id
        status.containers.append(one)
    status.containers.sort(key=lambda c: (c.created_at, c.restart_count), reverse=True)
    if status.sandboxes and status.sandboxes[0].ready:
        status.ips = list(status.sandboxes[0].ips)
    return status


async def read(cri: CRI, uid: str) -> PodStatus:
    """The pod's sandboxes and containers. What vanishes while it is read is left out. Raises CRIError."""
    selector = {p.LABEL_POD_UID: uid}
    listed, contained = await asyncio.gather(
        cri.list_pod_sandbox(pb.ListPodSandboxRequest(filter=pb.PodSandboxFilter(label_selector=selector))),
        cri.list_containers(pb.ListContainersRequest(filter=pb.ContainerFilter(label_selector=selector))),
    )
    sandboxes, containers = await asyncio.gather(
        asyncio.gather(*(_sandbox(cri, s.id) for s in listed.items)),
        asyncio.gather(*(_container(cri, c.id) for c in contained.containers)),
    )
    owners = [c.pod_sandbox_id for c in contained.containers]
    return assemble(
        uid,
        [s for s in sandboxes if s is not None],
        [(owner, c) for owner, c in zip(owners, containers, strict=True) if c is not None],
    )


async def _sandbox(cri: CRI, id: str) -> Any:
    try:
        return (await cri.pod_sandbox_status(pb.PodSandboxStatusRequest(pod_sandbox_id=id))).status
    except CRIError as e:
        if e.code == Code.NOT_FOUND:
            return None
        raise


async def _container(cri: CRI, id: str) -> Any:
    try:
        return (await cri.container_status(pb.ContainerStatusRequest(container_id=id))).status
    except CRIError as e:
        if e.code == Code.NOT_FOUND:
            return None
        raise


@dataclass(slots=True)
class RuntimePod:
    """A pod as a list of the runtime shows it: enough to know what is there and in which state."""

    uid: str
    name: str
    namespace: str
    states: dict[str, str] = field(default_factory=dict)
    """container or sandbox id → state"""


async def list_all(cri: CRI) -> dict[str, RuntimePod]:
    """Every pod that the runtime knows, by UID."""
    sandboxes, containers = await asyncio.gather(
        cri.list_pod_sandbox(pb.ListPodSandboxRequest()), cri.list_containers(pb.ListContainersRequest())
    )
    pods: dict[str, RuntimePod] = {}
    for s in sandboxes.items:
        uid = s.metadata.uid
        if uid:
            one = pods.setdefault(uid, RuntimePod(uid, s.metadata.name, s.metadata.namespace))
            one.states[s.id] = "ready" if s.state == pb.SANDBOX_READY else "notready"
    for c in containers.containers:
        uid = c.labels.get(p.LABEL_POD_UID, "")
        if uid:
            one = pods.setdefault(
                uid, RuntimePod(uid, c.labels.get(p.LABEL_POD_NAME, ""), c.labels.get(p.LABEL_POD_NAMESPACE, ""))
            )
            one.states[c.id] = _STATES.get(c.state, "unknown")
    return pods
