"""How much a pod asks for.

Source: k8s.io/component-helpers resource/helpers.go (PodRequests), KEP-753 sidecars, KEP-2837 pod-level resources,
KEP-1287 resize.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from berg.machinery import quantity

Obj = dict[str, Any]
Amounts = dict[str, int]
"""by resource name: cpu in millicores, everything else in whole units"""

DEFAULT_CPU_MILLI = 100
DEFAULT_MEMORY_BYTES = 200 * 1024 * 1024
POD_LEVEL = ("cpu", "memory")


def amounts(resources: dict[str, Any] | None) -> Amounts:
    return {name: quantity.milli(q) if name == "cpu" else quantity.value(q) for name, q in (resources or {}).items()}


def pod_requests(pod: Obj) -> Amounts:
    """What must be free on a node for the pod to be put there."""
    spec = pod["spec"]
    running = _running(pod)
    total = _aggregate(spec, lambda c: _container(c, running.get(c.get("name", ""))))
    total = _pod_level(spec, total)
    _add(total, amounts(spec.get("overhead")))
    return {name: n for name, n in total.items() if n}


def nonzero_requests(pod: Obj) -> tuple[int, int]:
    """(cpu, memory) with a small default for each container that asks for none, so that they are spread too."""

    def container(c: Obj) -> Amounts:
        asked = _container(c, None)
        return {
            "cpu": asked.get("cpu", DEFAULT_CPU_MILLI),
            "memory": asked.get("memory", DEFAULT_MEMORY_BYTES),
        }

    total = _pod_level(pod["spec"], _aggregate(pod["spec"], container))
    _add(total, amounts(pod["spec"].get("overhead")))
    return total.get("cpu", 0), total.get("memory", 0)


def _container(c: Obj, running: Obj | None) -> Amounts:
    asked = amounts((c.get("resources") or {}).get("requests"))
    if running:  # a resize is accounted at the larger of what is wanted and what is held
        held = [amounts((running.get("resources") or {}).get("requests")), amounts(running.get("allocatedResources"))]
        for one in held:
            _max(asked, one)
    return asked


def _running(pod: Obj) -> dict[str, Obj]:
    status = pod.get("status") or {}
    return {
        s["name"]: s
        for field in ("containerStatuses", "initContainerStatuses")
        for s in status.get(field) or ()
        if s.get("resources") or s.get("allocatedResources")
    }


def _aggregate(spec: Obj, of: Callable[[Obj], Amounts]) -> Amounts:
    """Containers and sidecars add up; init containers run one after the other, beside the sidecars before them."""
    total: Amounts = {}
    for c in spec.get("containers") or ():
        _add(total, of(c))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for c in spec.get("initContainers") or ():
        asked = of(c)
        if c.get("restartPolicy") == "Always":
            _add(total, asked)
            _add(sidecars, asked)
            _max(peak, sidecars)
        else:
            _add(asked, sidecars)
            _max(peak, asked)
    _max(total, peak)
    return total


def _pod_level(spec: Obj, total: Amounts) -> Amounts:
    asked = amounts((spec.get("resources") or {}).get("requests"))
    for name, n in asked.items():
        if name in POD_LEVEL or name.startswith("hugepages-"):
            total[name] = n
    return total


def _add(total: Amounts, more: Amounts) -> None:
    for name, n in more.items():
        total[name] = total.get(name, 0) + n


def _max(total: Amounts, other: Amounts) -> None:
    for name, n in other.items():
        if n > total.get(name, 0):
            total[name] = n
