"""What the eviction manager looks at on a real machine: signals of the node, and what each pod uses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from berg.kubelet import machine
from berg.kubelet import pod as p
from berg.kubelet.config import KubeletConfig
from berg.kubelet.eviction import Signal, Usage
from berg.kubelet.image_gc import ImageGC
from berg.machinery import quantity
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
    pods = list(pods)
    local = await asyncio.to_thread(lambda: {p.uid(pod): local_bytes(config, pod) for pod in pods})
    return {uid: Usage(memory.get(uid, 0), disk.get(uid, 0) + n) for uid, n in local.items()}


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


async def over_limit(cri: CRI, config: KubeletConfig, pods: list[Obj]) -> list[tuple[Obj, str]]:
    """Pods whose emptyDirs or containers are larger than they may be. Only those with limits are measured."""
    found: list[tuple[Obj, str]] = []
    limited = []
    for pod in pods:
        if (message := await _large_empty_dir(config, pod)) is not None:
            found.append((pod, message))
        elif any(_storage_limit(c) for c in p.containers(pod)):
            limited.append(pod)
    if limited:
        used = await usage(cri, config, limited)
        for pod in limited:
            limits = [_storage_limit(c) for c in p.containers(pod)]
            if all(limits) and used[p.uid(pod)].disk > sum(limits):
                total = quantity.from_value(sum(limits), "BinarySI")
                found.append(
                    (pod, f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. ")
                )
    return found


def _storage_limit(c: Obj) -> int:
    return quantity.value(((c.get("resources") or {}).get("limits") or {}).get("ephemeral-storage", "0"))


async def _large_empty_dir(config: KubeletConfig, pod: Obj) -> str | None:
    root = config.pod_dir(p.uid(pod)) / "volumes" / "kubernetes.io~empty-dir"
    for v in pod["spec"].get("volumes") or ():
        limit = (v.get("emptyDir") or {}).get("sizeLimit")
        if limit and await asyncio.to_thread(tree_bytes, root / v["name"]) > quantity.value(limit) > 0:
            return f'Usage of EmptyDir volume "{v["name"]}" exceeds the limit "{limit}". '
    return None
