"""Resources of a container and of a pod as the kernel counts them: shares, quota, bytes, OOM score.

Source: pkg/kubelet/kuberuntime/kuberuntime_container_linux.go, cm/helpers_linux.go, qos/policy.go.
"""

from __future__ import annotations

from typing import Any

from berg.kubelet import pod as p
from berg.machinery import quantity
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb

MIN_SHARES = 2
MAX_SHARES = 262144
SHARES_PER_CPU = 1024
QUOTA_PERIOD_US = 100_000
MIN_QUOTA_US = 1000
CRITICAL_PRIORITY = 2_000_000_000
OOM_GUARANTEED = -997
OOM_BEST_EFFORT = 1000
OOM_SANDBOX = -998


def shares(milli: int) -> int:
    if milli == 0:
        return MIN_SHARES  # what the kernel takes for "as little as there is"
    return min(max(milli * SHARES_PER_CPU // 1000, MIN_SHARES), MAX_SHARES)


def quota(milli: int, period_us: int = QUOTA_PERIOD_US) -> int:
    """Microseconds of each period; 0 for no limit."""
    return max(milli * period_us // 1000, MIN_QUOTA_US) if milli else 0


def _milli(resources: Obj, section: str) -> int:
    return quantity.milli((resources.get(section) or {}).get("cpu", "0"))


def _bytes(resources: Obj, section: str) -> int:
    return quantity.value((resources.get(section) or {}).get("memory", "0"))


def oom_score_adj(pod: Obj, c: Obj, memory_capacity: int) -> int:
    if (pod["spec"].get("priority") or 0) >= CRITICAL_PRIORITY:
        return OOM_GUARANTEED
    match p.qos_class(pod):
        case "Guaranteed":
            return OOM_GUARANTEED
        case "BestEffort":
            return OOM_BEST_EFFORT
    request = _bytes(c.get("resources") or {}, "requests")
    pod_level = _bytes(pod["spec"].get("resources") or {}, "requests")
    if pod_level:
        others = p.containers(pod) + [x for x in p.init_containers(pod) if p.is_sidecar(x)]
        rest = pod_level - sum(_bytes(x.get("resources") or {}, "requests") for x in others)
        request += max(rest, 0) // max(len(others), 1)
    adjust = 1000 - 1000 * request // max(memory_capacity, 1)
    if p.is_sidecar(c):
        lowest = min((_bytes(x.get("resources") or {}, "requests") for x in p.containers(pod)), default=0)
        adjust = min(adjust, 1000 - 1000 * lowest // max(memory_capacity, 1))
    # A container that asks for much must still be killed before a guaranteed one, and before best effort after.
    return min(max(adjust, 1000 + OOM_GUARANTEED), OOM_BEST_EFFORT - 1)


def linux(pod: Obj, c: Obj, memory_capacity: int, *, cpu_cfs_quota: bool = True, cgroup_v2: bool = False) -> Any:
    """The CRI LinuxContainerResources of one container."""
    resources = c.get("resources") or {}
    limits = {**((pod["spec"].get("resources") or {}).get("limits") or {}), **(resources.get("limits") or {})}
    effective = {"limits": limits, "requests": resources.get("requests") or {}}
    request, limit = _milli(effective, "requests"), _milli(effective, "limits")
    own_limit = _milli(resources, "limits")
    if not request and "cpu" not in effective["requests"] and own_limit:
        request = own_limit
    answer = pb.LinuxContainerResources(
        cpu_shares=shares(request),
        memory_limit_in_bytes=_bytes(effective, "limits"),
        oom_score_adj=oom_score_adj(pod, c, memory_capacity),
    )
    if cpu_cfs_quota:
        answer.cpu_period = QUOTA_PERIOD_US
        answer.cpu_quota = quota(limit)
    for name, value in limits.items():
        if name.startswith("hugepages-"):
            size = quantity.value(name.removeprefix("hugepages-"))
            answer.hugepage_limits.add(page_size=_page_size(size), limit=quantity.value(value))
    if cgroup_v2 and answer.memory_limit_in_bytes:
        answer.unified["memory.oom.group"] = "1"
    return answer


def _page_size(size: int) -> str:
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def pod_requests(pod: Obj, resource: str) -> int:
    """In milli-units: what the scheduler and the node count for this pod."""
    return _pod_total(pod, resource, "requests")


def pod_limits(pod: Obj, resource: str) -> int:
    """In milli-units, 0 when one of the containers has no limit."""
    pod_level = (pod["spec"].get("resources") or {}).get("limits") or {}
    if resource in pod_level:
        return quantity.milli(pod_level[resource])
    every = p.containers(pod) + p.init_containers(pod)
    if not all(resource in ((c.get("resources") or {}).get("limits") or {}) for c in every):
        return 0
    return _pod_total(pod, resource, "limits")


def _pod_total(pod: Obj, resource: str, section: str) -> int:
    """Regular containers and sidecars together, or the largest stage of the initialization, whichever is more."""

    def of(c: Obj) -> int:
        return quantity.milli(((c.get("resources") or {}).get(section) or {}).get(resource, "0"))

    overhead = quantity.milli((pod["spec"].get("overhead") or {}).get(resource, "0"))
    pod_level = (pod["spec"].get("resources") or {}).get(section) or {}
    if resource in pod_level:
        return quantity.milli(pod_level[resource]) + overhead
    running = sum(of(c) for c in p.containers(pod))
    sidecars = peak = 0
    for c in p.init_containers(pod):
        if p.is_sidecar(c):
            sidecars += of(c)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + of(c))
    return max(running + sidecars, peak) + overhead
