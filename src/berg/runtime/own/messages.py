"""Records as CRI's messages, and CRI's filters over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.own.state import Container, Sandbox

if TYPE_CHECKING:
    from berg.runtime.own.images.store import Image

_STATES = {
    "created": pb.CONTAINER_CREATED,
    "running": pb.CONTAINER_RUNNING,
    "exited": pb.CONTAINER_EXITED,
    "unknown": pb.CONTAINER_UNKNOWN,
}


def container_state(container: Container) -> pb.ContainerState:
    return _STATES[container.state.state]


def sandbox_state(sandbox: Sandbox) -> pb.PodSandboxState:
    return pb.SANDBOX_READY if sandbox.state.ready else pb.SANDBOX_NOTREADY


def sandbox_entry(sandbox: Sandbox) -> pb.PodSandbox:
    return pb.PodSandbox(
        id=sandbox.id,
        metadata=sandbox.config.metadata,
        state=sandbox_state(sandbox),
        created_at=sandbox.state.created_at,
        labels=sandbox.config.labels,
        annotations=sandbox.config.annotations,
        runtime_handler=sandbox.state.handler,
    )


def sandbox_status(sandbox: Sandbox) -> pb.PodSandboxStatus:
    ips = sandbox.state.ips if sandbox.state.ready else []
    options = sandbox.config.linux.security_context.namespace_options
    return pb.PodSandboxStatus(
        id=sandbox.id,
        metadata=sandbox.config.metadata,
        state=sandbox_state(sandbox),
        created_at=sandbox.state.created_at,
        network=pb.PodSandboxNetworkStatus(
            ip=ips[0] if ips else "", additional_ips=[pb.PodIP(ip=ip) for ip in ips[1:]]
        ),
        linux=pb.LinuxPodSandboxStatus(namespaces=pb.Namespace(options=options)),
        labels=sandbox.config.labels,
        annotations=sandbox.config.annotations,
        runtime_handler=sandbox.state.handler,
    )


def container_entry(container: Container, image_ref: str) -> pb.Container:
    return pb.Container(
        id=container.id,
        pod_sandbox_id=container.state.sandbox_id,
        metadata=container.config.metadata,
        image=container.config.image,
        image_ref=image_ref,
        image_id=container.state.image_id,
        state=container_state(container),
        created_at=container.state.created_at,
        labels=container.config.labels,
        annotations=container.config.annotations,
    )


def container_status(container: Container, image_ref: str, image_name: str, log_path: str) -> pb.ContainerStatus:
    state, config = container.state, container.config
    status = pb.ContainerStatus(
        id=container.id,
        metadata=config.metadata,
        state=container_state(container),
        created_at=state.created_at,
        started_at=state.started_at,
        finished_at=state.finished_at,
        exit_code=state.exit_code,
        image=pb.ImageSpec(
            image=image_name or config.image.image, user_specified_image=config.image.user_specified_image
        ),
        image_ref=image_ref,
        image_id=state.image_id,
        reason=state.reason,
        message=state.message,
        labels=config.labels,
        annotations=config.annotations,
        mounts=config.mounts,
        log_path=log_path,
        user=pb.ContainerUser(
            linux=pb.LinuxContainerUser(uid=state.uid, gid=state.gid, supplemental_groups=state.groups)
        ),
        stop_signal=_signal(state.stop_signal),
    )
    if config.HasField("linux") and config.linux.HasField("resources"):
        status.resources.linux.CopyFrom(config.linux.resources)
    return status


def _signal(name: str) -> pb.Signal:
    text = name.upper()
    text = text if text.startswith("SIG") else f"SIG{text}"
    text = "SIGNAL_" + text.replace("RTMIN+", "RTMINPLUS").replace("RTMAX-", "RTMAXMINUS")
    return getattr(pb, text, pb.SIGNAL_RUNTIME_DEFAULT)


def signal_name(value: int) -> str:
    """CRI's enum to what a signal is called: `SIGNAL_SIGRTMINPLUS3` to `SIGRTMIN+3`; empty for the default."""
    if value == pb.SIGNAL_RUNTIME_DEFAULT:
        return ""
    name = pb.Signal.Name(value).removeprefix("SIGNAL_")
    return name.replace("RTMINPLUS", "RTMIN+").replace("RTMAXMINUS", "RTMAX-")


def image_entry(image: Image) -> pb.Image:
    name = image.user.partition(":")[0]
    entry = pb.Image(
        id=image.id,
        repo_tags=image.tags,
        repo_digests=image.digests,
        size=image.size,
        pinned=image.pinned,
        username="" if name.isdigit() else name,
    )
    if name.isdigit():
        entry.uid.value = int(name)
    elif not name:
        entry.uid.value = 0
    return entry


def matches_labels(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def filter_sandboxes(sandboxes: Iterable[Sandbox], wanted: pb.PodSandboxFilter) -> list[Sandbox]:
    return [
        sandbox
        for sandbox in sandboxes
        if sandbox.id.startswith(wanted.id)
        and (not wanted.HasField("state") or sandbox_state(sandbox) == wanted.state.state)
        and matches_labels(sandbox.config.labels, wanted.label_selector)
    ]


def filter_containers(
    containers: Iterable[Container], wanted: pb.ContainerFilter | pb.ContainerStatsFilter
) -> list[Container]:
    state = wanted.state if isinstance(wanted, pb.ContainerFilter) and wanted.HasField("state") else None
    return [
        container
        for container in containers
        if container.id.startswith(wanted.id)
        and container.state.sandbox_id.startswith(wanted.pod_sandbox_id)
        and (state is None or container_state(container) == state.state)
        and matches_labels(container.config.labels, wanted.label_selector)
    ]
