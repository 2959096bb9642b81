"""/stats/summary: the node's and its pods' figures, as the metrics pipeline reads them.

Source: staging kubelet/pkg/apis/stats/v1alpha1, pkg/kubelet/stats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from berg.kubelet import machine
from berg.kubelet import pod as p
from berg.kubelet.server.metrics import container_stats
from berg.machinery.clock import rfc3339
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.kubelet.kubelet import Kubelet


async def summary(kubelet: Kubelet) -> Obj:
    now = rfc3339(kubelet.clock.now())
    by_pod: dict[str, list[Any]] = {}
    for s in await container_stats(kubelet):
        by_pod.setdefault(s.attributes.labels.get(p.LABEL_POD_UID, ""), []).append(s)
    return {"node": _node(kubelet, now), "pods": [_pod(kubelet, uid, s, now) for uid, s in by_pod.items() if uid]}


def _node(kubelet: Kubelet, now: str) -> Obj:
    memory = machine.meminfo()
    disk = machine.disk(kubelet.config.root_dir)
    limit, running = machine.pids()
    fs = _fs(disk, now)
    return {
        "nodeName": kubelet.config.node_name,
        "cpu": {"time": now, "usageCoreNanoSeconds": int(machine.cpu_seconds() * 1e9)},
        "memory": {
            "time": now,
            "availableBytes": memory.get("MemAvailable", 0),
            "usageBytes": memory.get("MemTotal", 0) - memory.get("MemFree", 0),
            "workingSetBytes": memory.get("MemTotal", 0) - memory.get("MemAvailable", 0),
        },
        "fs": fs,
        "runtime": {"imageFs": fs, "containerFs": fs},
        "rlimit": {"time": now, "maxpid": limit, "curproc": running},
    }


def _fs(disk: machine.Disk, now: str) -> Obj:
    return {
        "time": now,
        "availableBytes": disk.available_bytes,
        "capacityBytes": disk.capacity_bytes,
        "usedBytes": disk.capacity_bytes - disk.available_bytes,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": disk.inodes - disk.inodes_free,
    }


def _pod(kubelet: Kubelet, uid: str, stats: list[Any], now: str) -> Obj:
    labels = stats[0].attributes.labels
    containers = [_container(kubelet, uid, s, now) for s in stats]
    cpu = sum(s.cpu.usage_core_nano_seconds.value for s in stats)
    return {
        "podRef": {
            "name": labels.get(p.LABEL_POD_NAME, ""),
            "namespace": labels.get(p.LABEL_POD_NAMESPACE, ""),
            "uid": uid,
        },
        "startTime": (kubelet.statuses.get(uid) or {}).get("startTime"),
        "containers": containers,
        "cpu": {
            "time": now,
            "usageNanoCores": sum(s.cpu.usage_nano_cores.value for s in stats),
            "usageCoreNanoSeconds": cpu,
        },
        "memory": {
            "time": now,
            "usageBytes": sum(s.memory.usage_bytes.value for s in stats),
            "workingSetBytes": sum(s.memory.working_set_bytes.value for s in stats),
        },
    }


def _container(kubelet: Kubelet, uid: str, s: Any, now: str) -> Obj:
    name = s.attributes.labels.get(p.LABEL_CONTAINER_NAME, "")
    started = next(
        (
            ((c.get("state") or {}).get("running") or {}).get("startedAt")
            for c in (kubelet.statuses.get(uid) or {}).get("containerStatuses") or ()
            if c["name"] == name
        ),
        None,
    )
    return {
        "name": name,
        "startTime": started,
        "cpu": {
            "time": now,
            "usageNanoCores": s.cpu.usage_nano_cores.value,
            "usageCoreNanoSeconds": s.cpu.usage_core_nano_seconds.value,
        },
        "memory": {
            "time": now,
            "usageBytes": s.memory.usage_bytes.value,
            "workingSetBytes": s.memory.working_set_bytes.value,
            "rssBytes": s.memory.rss_bytes.value,
            "pageFaults": s.memory.page_faults.value,
            "majorPageFaults": s.memory.major_page_faults.value,
        },
        "rootfs": {
            "time": now,
            "usedBytes": s.writable_layer.used_bytes.value,
            "inodesUsed": s.writable_layer.inodes_used.value,
        },
    }
