"""What is mounted into a container: its volumeMounts, /etc/hosts, and the file for its termination message.

A subPath is opened below its volume one component at a time without following links, and what is given to the
runtime is a bind mount of that open directory or file; a container that swaps a directory for a link in between
gains nothing.

Source: pkg/kubelet/kubelet_pods.go makeMounts; kuberuntime_container.go makeMounts; volume/util/subpath.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berg.kubelet import hosts
from berg.kubelet import pod as p
from berg.kubelet.env import expand
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb

PROPAGATION = {
    "HostToContainer": pb.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": pb.PROPAGATION_BIDIRECTIONAL,
}
TERMINATION_LOG = "/dev/termination-log"


class MountError(Exception):
    """Shown as CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A volume that is ready: where it is on the host."""

    path: Path
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """One container and what there is to be mounted."""

    pod: Obj
    container: Obj
    pod_dir: Path
    volumes: Mapping[str, MountedVolume]
    image_volumes: Mapping[str, str]
    """Volume name → image reference: mounted by the runtime itself."""
    env: Mapping[str, str]
    ips: list[str]
    cluster_domain: str


def make(at: Place) -> list[Any]:
    """CRI Mount messages, in the order of the spec. Blocking file work, all of it small. Raises MountError."""
    c = at.container
    mounts = [_volume_mount(at, i, m) for i, m in enumerate(c.get("volumeMounts") or ())]
    if hosts.wanted(at.pod, c, at.ips):
        path = at.pod_dir / "etc-hosts"
        path.write_text(hosts.content(at.pod, at.ips, at.cluster_domain))
        path.chmod(0o644)
        mounts.append(pb.Mount(container_path="/etc/hosts", host_path=str(path)))
    mounts.append(_termination_log(c, at.pod_dir))
    return mounts


def _volume_mount(at: Place, index: int, m: Obj) -> Any:
    c, volume = at.container, at.volumes.get(m["name"])
    if volume is None:
        raise MountError(f'cannot find volume "{m["name"]}" to mount into container "{c["name"]}"')
    sub_path = m.get("subPath") or ""
    if m.get("subPathExpr"):
        sub_path = _expand_strictly(m["subPathExpr"], at.env)
    if sub_path.startswith("/"):
        raise MountError(f"error SubPath `{sub_path}` must not be an absolute path")
    if ".." in sub_path.split("/"):
        raise MountError(f"unable to provision SubPath `{sub_path}`: must not contain '..'")
    mount = pb.Mount(
        container_path=m["mountPath"] if m["mountPath"].startswith("/") else "/" + m["mountPath"],
        readonly=bool(m.get("readOnly")) or volume.read_only,
        propagation=PROPAGATION.get(m.get("mountPropagation") or "", pb.PROPAGATION_PRIVATE),
        recursive_read_only=m.get("recursiveReadOnly") == "Enabled",
    )
    if m["name"] in at.image_volumes:
        mount.image.image = at.image_volumes[m["name"]]
        mount.image_sub_path = sub_path
    elif sub_path:
        mount.host_path = str(_safe_subpath(c, index, m, at.pod_dir, volume.path, sub_path))
    else:
        mount.host_path = str(volume.path)
    return mount


def _expand_strictly(text: str, env: Mapping[str, str]) -> str:
    missing: list[str] = []

    def find(name: str) -> str:
        if not env.get(name):
            missing.append(name)
        return env.get(name, "")

    value = expand(text, find)
    if missing:
        raise MountError("missing value for " + ", ".join(f'"{n}"' for n in missing))
    return value


def _safe_subpath(c: Obj, index: int, m: Obj, pod_dir: Path, volume: Path, sub_path: str) -> Path:
    try:
        fd = open_beneath(volume, sub_path, create=True)
    except OSError as e:
        raise MountError(f'failed to prepare subPath for volumeMount "{m["name"]}" of container "{c["name"]}"') from e
    try:
        target = pod_dir / "volume-subpaths" / m["name"] / c["name"] / str(index)
        _bind(fd, target)
    except OSError as e:
        raise MountError(f'failed to prepare subPath for volumeMount "{m["name"]}" of container "{c["name"]}"') from e
    finally:
        os.close(fd)
    return target


def open_beneath(root: Path, path: str, *, create: bool) -> int:
    """A file descriptor (O_PATH) of `path` below `root`.

    Links inside the volume are followed only as far as they stay inside: that is how `..data` of a ConfigMap
    volume is reached. With `create`, directories that are missing are made with the volume's own mode.
    """
    real_root = os.path.realpath(root)
    mode = stat.S_IMODE(os.stat(real_root).st_mode)
    resolved = os.path.realpath(os.path.join(real_root, path))
    if os.path.commonpath([real_root, resolved]) != real_root:
        raise OSError(f"{path} leaves the volume")
    fd = os.open(real_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parts = [x for x in os.path.relpath(resolved, real_root).split("/") if x not in ("", ".")]
        for part in parts:
            try:
                below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except FileNotFoundError:
                if not create:
                    raise
                os.mkdir(part, dir_fd=fd)
                os.chmod(part, mode, dir_fd=fd)
                below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            if stat.S_ISLNK(os.fstat(below).st_mode):
                os.close(below)
                raise OSError(f"{part} became a link")
            os.close(fd)
            fd = below
        return fd
    except BaseException:
        os.close(fd)
        raise


def _bind(fd: int, target: Path) -> None:
    from berg.kubelet.volumes import mounter

    if mounter.is_mount_point(target):
        mounter.unmount(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        target.mkdir(mode=0o750, exist_ok=True)
    else:
        target.touch(mode=0o640, exist_ok=True)
    mounter.bind(f"/proc/self/fd/{fd}", target)


def _termination_log(c: Obj, pod_dir: Path) -> Any:
    directory = pod_dir / "containers" / c["name"]
    directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    path = directory / secrets.token_hex(4)
    path.touch()
    path.chmod(0o666)
    inside = c.get("terminationMessagePath") or TERMINATION_LOG
    return pb.Mount(container_path=inside if inside.startswith("/") else "/" + inside, host_path=str(path))


def container_annotations(pod: Obj, c: Obj, restart_count: int) -> dict[str, str]:
    """What a restarted kubelet must know of a container that it finds running."""
    import orjson

    annotations = {
        p.ANNOTATION_HASH: f"{p.hash_container(c):x}",
        p.ANNOTATION_RESTART_COUNT: str(restart_count),
        p.ANNOTATION_TERMINATION_PATH: c.get("terminationMessagePath") or TERMINATION_LOG,
        p.ANNOTATION_TERMINATION_POLICY: c.get("terminationMessagePolicy") or "File",
    }
    for key, value in (
        (p.ANNOTATION_POD_DELETION_GRACE, pod["metadata"].get("deletionGracePeriodSeconds")),
        (p.ANNOTATION_POD_TERMINATION_GRACE, pod["spec"].get("terminationGracePeriodSeconds")),
    ):
        if value is not None:
            annotations[key] = str(value)
    if hook := (c.get("lifecycle") or {}).get("preStop"):
        annotations[p.ANNOTATION_PRE_STOP] = orjson.dumps(hook).decode()
    if c.get("ports"):
        annotations[p.ANNOTATION_PORTS] = orjson.dumps(c["ports"]).decode()
    return annotations
