"""What the eviction manager looks at on a real machine: signals of the node, and what each pod uses."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from berg.kubelet import machine
from berg.kubelet import pod as p
from berg.kubelet.config import KubeletConfig
from berg.kubelet.eviction import Signal, Usage
from berg.kubelet.image_gc import ImageGC
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, CRIError


async def signals(config: KubeletConfig, images: ImageGC) -> dict[str, Signal]:
    memory = machine.meminfo()
    node, image = machine.disk(config.root_dir), await images.image_disk()
    limit, running = machine.pids()
    found = {
        "memory.available": Signal(memory.get("MemAvailable", 0), memory.get("MemTotal", 0)),
        "nodefs.available": Signal(node.available_bytes, node.capacity_bytes),
        "imagefs.available": Signal(image.available_bytes, image.capacity_bytes),
        "pid.available": Signal(limit - running, limit),
    }
    if node.inodes:  # some file systems have none to count
        found["nodefs.inodesFree"] = Signal(node.inodes_free, node.inodes)
    if image.inodes:
        found["imagefs.inodesFree"] = Signal(image.inodes_free, image.inodes)
    return found


async def usage(cri: CRI, config: KubeletConfig, pods: Iterable[Obj]) -> dict[str, Usage]:
    try:
        stats = (await cri.list_container_stats(pb.ListContainerStatsRequest())).stats
    except CRIError:
        stats = []  # type: ignore[assignment]
    memory: dict[str, int] = {}
    disk: dict[str, int] = {}
    for s in stats:
        uid = s.attributes.labels.get(p.LABEL_POD_UID, "")
        memory[uid] = memory.get(uid, 0) + s.memory.working_set_bytes.value
        disk[uid] = disk.get(uid, 0) + s.writable_layer.used_bytes.value
    return {
        p.uid(pod): Usage(memory.get(p.uid(pod), 0), disk.get(p.uid(pod), 0) + local_bytes(config, pod)) for pod in pods
    }


def local_bytes(config: KubeletConfig, pod: Obj) -> int:
    """Of the pod's emptyDirs on disk and of its logs."""
    root = config.pod_dir(p.uid(pod)) / "volumes" / "kubernetes.io~empty-dir"
    on_disk = [
        root / v["name"]
        for v in pod["spec"].get("volumes") or ()
        if v.get("emptyDir") is not None and v["emptyDir"].get("medium", "") == ""
    ]
    logs = list(Path(config.pod_logs_dir).glob(f"*_{p.uid(pod)}"))
    return sum(tree_bytes(d) for d in on_disk + logs)


def tree_bytes(root: Path) -> int:
    """Blocks that a tree takes, other file systems below it left out."""
    try:
        device = os.lstat(root).st_dev
    except OSError:
        return 0
    total = 0
    for directory, names, files in os.walk(root):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except OSError:
                continue
        names[:] = [n for n in names if _device(os.path.join(directory, n)) == device]
    return total


def _device(path: str) -> int:
    try:
        return os.lstat(path).st_dev
    except OSError:
        return -1
