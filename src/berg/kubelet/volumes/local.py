"""Volumes that are simply there: emptyDir and hostPath.

Source: pkg/volume/emptydir/empty_dir.go, pkg/volume/hostpath/host_path.go.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from berg.kubelet import container_resources
from berg.kubelet.volumes import mounter, ownership
from berg.kubelet.volumes.content import VolumeError
from berg.machinery import quantity
from berg.machinery.status import Obj


def empty_dir(pod: Obj, volume: Obj, path: Path, memory_allocatable: int) -> None:
    """Makes the directory (or the tmpfs) once; its mode is 0777 as everyone expects."""
    source = volume["emptyDir"] or {}
    path.mkdir(parents=True, exist_ok=True, mode=0o750)
    if source.get("medium") == "Memory" and not mounter.is_mount_point(path):
        mounter.tmpfs(path, _memory_size(pod, source, memory_allocatable))
    elif (source.get("medium") or "").startswith("HugePages"):
        _huge_pages(source["medium"], pod, path)
    marker = path.parent.parent.parent / "plugins" / "kubernetes.io~empty-dir" / volume["name"] / "ready"
    if marker.exists():
        return
    path.chmod(0o777)
    group = ownership.group_of(pod)
    if group is not None:
        ownership.apply(path, group, policy=ownership.policy_of(pod))
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _memory_size(pod: Obj, source: Obj, allocatable: int) -> int:
    """The smallest of the volume's limit, the pod's memory limit and what the node has. Source: KEP-1967."""
    sizes = [allocatable, container_resources.pod_limits(pod, "memory") // 1000]
    if source.get("sizeLimit"):
        sizes.append(quantity.value(source["sizeLimit"]))
    return min((s for s in sizes if s > 0), default=0)


def _huge_pages(medium: str, pod: Obj, path: Path) -> None:
    if mounter.is_mount_point(path):
        return
    size = medium.removeprefix("HugePages").removeprefix("-")
    if not size:
        sizes = {
            name.removeprefix("hugepages-")
            for key in ("containers", "initContainers")
            for c in pod["spec"].get(key) or ()
            for name in (c.get("resources") or {}).get("limits") or {}
            if name.startswith("hugepages-")
        }
        if len(sizes) != 1:
            raise VolumeError("medium HugePages needs exactly one page size in the pod's resources")
        size = sizes.pop()
    mounter.mount("nodev", path, "hugetlbfs", 0, f"pagesize={quantity.value(size)}")


_CHECKS = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def host_path(source: Obj) -> Path:
    """The path, checked and made as `type` says. Raises VolumeError."""
    path, kind = source["path"], source.get("type") or ""
    if not kind:
        return Path(path)
    try:
        if kind == "DirectoryOrCreate" and not os.path.lexists(path):
            os.makedirs(path, 0o755)
        elif kind == "FileOrCreate" and not os.path.lexists(path):
            fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
            os.close(fd)
        mode = os.stat(path).st_mode
    except OSError as e:
        check = _CHECKS.get(kind.removesuffix("OrCreate"))
        raise VolumeError(f"hostPath type check failed: {path} is not {check[1] if check else kind}") from e
    test, words = _CHECKS[kind.removesuffix("OrCreate")]
    if not test(mode):
        raise VolumeError(f"hostPath type check failed: {path} is not {words}")
    return Path(path)
