"""A container as CRI's ContainerConfig: everything that CreateContainer is told.

Source: pkg/kubelet/kuberuntime/kuberuntime_container.go generateContainerConfig.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berg.kubelet import container_resources, mounts, security
from berg.kubelet import pod as p
from berg.kubelet.config import KubeletConfig
from berg.kubelet.env import EnvError, expand, mapping_of
from berg.kubelet.images import ImageManager
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRIError


class ConfigError(Exception):
    """Shown as the message of CreateContainerConfigError."""


@dataclass(slots=True)
class Request:
    pod: Obj
    container: Obj
    image: str
    """The runtime's reference."""
    restart_count: int
    ips: list[str]
    volumes: Mapping[str, mounts.MountedVolume]
    log_path: str
    target_id: str = ""
    image_volumes: Mapping[str, str] = field(default_factory=dict)


async def make(
    request: Request,
    config: KubeletConfig,
    images: ImageManager,
    environment: Callable[[Obj, Obj, list[str]], Awaitable[dict[str, str]]],
    *,
    memory_capacity: int,
    cgroup_v2: bool,
) -> Any:
    """Raises ConfigError."""
    pod, c = request.pod, request.container
    try:
        env = await environment(pod, c, request.ips)
        uid, user = await _image_user(images, request.image)
        security.verify_non_root(pod, c, uid, user)
        context = security.container(
            pod,
            c,
            uid,
            user,
            target_id=request.target_id,
            seccomp_root=Path(config.root_dir) / "seccomp",
            seccomp_default=config.seccomp_default,
        )
        mounted = mounts.make(
            mounts.Place(
                pod,
                c,
                config.pod_dir(p.uid(pod)),
                request.volumes,
                request.image_volumes,
                env,
                request.ips,
                config.cluster_domain,
            )
        )
    except (EnvError, security.SecurityError, mounts.MountError, CRIError, OSError) as e:
        raise ConfigError(str(e)) from e
    find = mapping_of(env)
    answer = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=c["name"], attempt=request.restart_count),
        image=pb.ImageSpec(image=request.image, user_specified_image=c.get("image") or ""),
        command=[expand(x, find) for x in c.get("command") or ()],
        args=[expand(x, find) for x in c.get("args") or ()],
        working_dir=c.get("workingDir") or "",
        labels={
            p.LABEL_POD_NAME: p.name(pod),
            p.LABEL_POD_NAMESPACE: p.namespace(pod),
            p.LABEL_POD_UID: p.uid(pod),
            p.LABEL_CONTAINER_NAME: c["name"],
        },
        annotations=mounts.container_annotations(pod, c, request.restart_count),
        mounts=mounted,
        log_path=request.log_path,
        stdin=bool(c.get("stdin")),
        stdin_once=bool(c.get("stdinOnce")),
        tty=bool(c.get("tty")),
    )
    for name, value in env.items():
        answer.envs.add(key=name, value=value.encode("utf-8", "surrogateescape"))
    if signal := (c.get("lifecycle") or {}).get("stopSignal"):
        answer.stop_signal = _signal(signal)
    answer.linux.security_context.CopyFrom(context)
    answer.linux.resources.CopyFrom(
        container_resources.linux(pod, c, memory_capacity, cpu_cfs_quota=config.cpu_cfs_quota, cgroup_v2=cgroup_v2)
    )
    return answer


def _signal(name: str) -> pb.Signal:
    for known in (f"SIGNAL_{name}", name):
        if known in pb.Signal.keys():  # noqa: SIM118 - an enum's wrapper, no dict
            return pb.Signal.Value(known)  # type: ignore[return-value]
    raise ConfigError(f"unknown signal {name}")


async def _image_user(images: ImageManager, image: str) -> tuple[int | None, str]:
    """(uid, name) that the image runs as; no user at all means root."""
    found = await images.present(image)
    if found is None:
        raise ConfigError(f'image "{image}" not found')
    if found.HasField("uid"):
        return found.uid.value, ""
    if found.username:
        return None, found.username
    return 0, ""
