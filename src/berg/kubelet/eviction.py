"""Evicts pods when the node runs short of memory, disk or process ids, and says so in the node's conditions.

Every ten seconds the signals are compared with the thresholds. A hard threshold acts at once, a soft one after its
grace period; what can be reclaimed without a pod (unused images, dead containers) goes first. Then one pod at a
time: those that use more than they asked for before the others, lower priority first, then the largest excess.

`signals` and `usage` are given from outside, so that the decisions are plain code.

Source: pkg/kubelet/eviction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from berg.kubelet import container_resources
from berg.kubelet import pod as p
from berg.kubelet.config import KubeletConfig, duration_s
from berg.machinery import quantity
from berg.machinery.clock import Clock
from berg.machinery.status import Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

PERIOD_S = 10.0
CONDITIONS = {
    "memory.available": "MemoryPressure",
    "nodefs.available": "DiskPressure",
    "nodefs.inodesFree": "DiskPressure",
    "imagefs.available": "DiskPressure",
    "imagefs.inodesFree": "DiskPressure",
    "pid.available": "PIDPressure",
}
RESOURCES = {
    "memory.available": "memory",
    "nodefs.available": "ephemeral-storage",
    "nodefs.inodesFree": "inodes",
    "imagefs.available": "ephemeral-storage",
    "imagefs.inodesFree": "inodes",
    "pid.available": "pids",
}


@dataclass(frozen=True, slots=True)
class Threshold:
    signal: str
    value: str
    """A quantity, or a percentage of the capacity."""
    grace_s: float = 0.0
    min_reclaim: str = "0"

    def limit(self, capacity: int) -> int:
        return _amount(self.value, capacity)

    def reclaim(self, capacity: int) -> int:
        return _amount(self.min_reclaim, capacity)


def _amount(text: str, capacity: int) -> int:
    if text.endswith("%"):
        return int(capacity * float(text[:-1]) / 100)
    return quantity.value(text)


@dataclass(frozen=True, slots=True)
class Signal:
    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one pod: bytes of memory, bytes on disk, processes."""

    memory: int = 0
    disk: int = 0
    pids: int = 0


def thresholds(config: KubeletConfig) -> list[Threshold]:
    """Memory before disk, as upstream orders them. Raises ValueError on a soft threshold without a period."""
    found = [
        Threshold(s, v, 0.0, config.eviction_minimum_reclaim.get(s, "0"))
        for s, v in config.eviction_hard.items()
        if s in CONDITIONS and v not in ("0%", "0")
    ]
    for s, v in config.eviction_soft.items():
        if s not in config.eviction_soft_grace_period:
            raise ValueError(f"grace period must be specified for the soft eviction threshold {s}")
        grace = duration_s(config.eviction_soft_grace_period[s])
        found.append(Threshold(s, v, grace, config.eviction_minimum_reclaim.get(s, "0")))
    return sorted(found, key=lambda t: (t.signal not in ("memory.available", "pid.available"), t.signal))


class EvictionManager:
    def __init__(
        self,
        config: KubeletConfig,
        clock: Clock,
        signals: Callable[[], Awaitable[dict[str, Signal]]],
        pods: Callable[[], Iterable[Obj]],
        usage: Callable[[], Awaitable[dict[str, Usage]]],
        reclaim: Callable[[str], Awaitable[None]],
        evict: Callable[[Obj, int, str, Obj | None], bool],
        over_limit: Callable[[], Awaitable[list[tuple[Obj, str]]]],
        changed: Callable[[], None],
    ) -> None:
        """`evict`: (pod, grace period, message, DisruptionTarget condition) → whether it was begun.
        `over_limit`: pods that use more disk than they may, and what is said of them."""
        self._config = config
        self._clock = clock
        self._thresholds = thresholds(config)
        self._signals = signals
        self._pods = pods
        self._usage = usage
        self._reclaim = reclaim
        self._evict = evict
        self._changed = changed
        self._over_limit = over_limit
        self._first_met: dict[Threshold, float] = {}
        self._last_met: dict[str, float] = {}  # condition → when it was last met
        self._conditions: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def under_pressure(self, condition: str) -> bool:
        return condition in self._conditions

    def refuses(self, pod: Obj) -> str | None:
        """Why a new pod cannot be taken now; critical pods and, for memory alone, better classes can."""
        if not self._conditions or is_critical(pod):
            return None
        if self._conditions == {"MemoryPressure"} and (
            p.qos_class(pod) != "BestEffort"
            or any(
                t.get("key") == "node.kubernetes.io/memory-pressure"
                or (not t.get("key") and t.get("operator") == "Exists")
                for t in pod["spec"].get("tolerations") or ()
            )
        ):
            return None
        return f"The node had condition: [{' '.join(sorted(self._conditions))}]. "

    def start(self) -> None:
        if self._thresholds:
            self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        await end(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self.synchronize()
            except Exception:
                log.exception("eviction")
            await self._clock.sleep(PERIOD_S)

    async def synchronize(self) -> Obj | None:
        """One look; the pod that is being evicted, if any."""
        for pod, message in await self._over_limit():
            if self._evict(pod, 0, message, None):
                return pod
        observed, now = await self._signals(), self._clock.monotonic()
        met = [t for t in self._thresholds if t.signal in observed and self._is_met(t, observed[t.signal])]
        self._first_met = {t: self._first_met.get(t, now) for t in met}
        for t in met:
            self._last_met[CONDITIONS[t.signal]] = now
        period = self._config.eviction_pressure_transition_period
        conditions = {c for c, at in self._last_met.items() if now - at < period}
        if conditions != self._conditions:
            self._conditions = conditions
            self._changed()
        due = [t for t in met if now - self._first_met[t] >= t.grace_s]
        if not due:
            return None
        threshold = due[0]
        if CONDITIONS[threshold.signal] == "DiskPressure":
            await self._reclaim(threshold.signal)
            observed = await self._signals()
            if not self._is_met(threshold, observed[threshold.signal]):
                return None
        return await self._evict_one(threshold, observed[threshold.signal])

    def _is_met(self, t: Threshold, s: Signal) -> bool:
        limit = t.limit(s.capacity)
        if t in self._first_met:
            limit += t.reclaim(s.capacity)
        return s.available < limit

    async def _evict_one(self, threshold: Threshold, signal: Signal) -> Obj | None:
        resource = RESOURCES[threshold.signal]
        usage = await self._usage()
        for pod in rank(list(self._pods()), usage, resource):
            grace = 0 if threshold.grace_s == 0 else self._config.eviction_max_pod_grace_period
            message = _message(pod, usage.get(p.uid(pod), Usage()), resource, threshold, signal)
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "TerminationByKubelet",
                "message": message,
            }
            if self._evict(pod, grace, message, condition):
                return pod
        return None


def is_critical(pod: Obj) -> bool:
    return (
        p.is_static(pod)
        or p.is_mirror(pod)
        or (pod["spec"].get("priority") or 0) >= container_resources.CRITICAL_PRIORITY
    )


def _used(usage: Usage, resource: str) -> int:
    return {"memory": usage.memory, "pids": usage.pids}.get(resource, usage.disk)


def _requested(pod: Obj, resource: str) -> int:
    if resource in ("memory", "ephemeral-storage"):
        return container_resources.pod_requests(pod, resource) // 1000
    return 0


def rank(pods: list[Obj], usage: dict[str, Usage], resource: str) -> list[Obj]:
    """Who goes first."""

    def key(pod: Obj) -> tuple[bool, int, int]:
        excess = _used(usage.get(p.uid(pod), Usage()), resource) - _requested(pod, resource)
        return excess <= 0, pod["spec"].get("priority") or 0, -excess

    return sorted((x for x in pods if not is_critical(x)), key=key)


def _message(pod: Obj, usage: Usage, resource: str, t: Threshold, s: Signal) -> str:
    text = f"The node was low on resource: {resource}. "
    limit = quantity.from_value(t.limit(s.capacity), "BinarySI")
    text += f"Threshold quantity: {limit}, available: {s.available // 1024}Ki. "
    used, requested = _used(usage, resource), _requested(pod, resource)
    if used > requested and resource in ("memory", "ephemeral-storage") and len(p.containers(pod)) == 1:
        name = p.containers(pod)[0]["name"]
        text += (
            f"Container {name} was using {used // 1024}Ki, request is {quantity.from_value(requested, 'BinarySI')}, "
            f"has larger consumption of {resource}. "
        )
    return text
