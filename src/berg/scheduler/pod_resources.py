"""`/metrics/resources` of the scheduler: what each pod asks for and may use, as the scheduler counts it.

Source: pkg/scheduler/metrics/resources/resources.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from berg.machinery.metrics import Registry, Samples
from berg.machinery.quotas import pod_total

Obj = dict[str, Any]
_LABELS = ("namespace", "node", "pod", "priority", "resource", "scheduler", "unit")
_UNITS = {"cpu": "cores", "memory": "bytes", "storage": "bytes", "ephemeral-storage": "bytes"}


def text(pods: Callable[[], Iterable[Obj]]) -> bytes:
    r = Registry()
    for name, help, field in (
        ("kube_pod_resource_request", "[STABLE] What pods ask for, by resource.", "requests"),
        ("kube_pod_resource_limit", "[STABLE] What pods may use at most, by resource.", "limits"),
    ):
        r.gauge(name, help, _LABELS, lambda field=field: _samples(pods(), field))  # type: ignore[misc]
    return r.text().encode()


def _samples(pods: Iterable[Obj], field: str) -> Samples:
    for pod in pods:
        metadata, spec = pod["metadata"], pod["spec"]
        if spec.get("nodeName") and (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        about = (metadata["namespace"], spec.get("nodeName") or "", metadata["name"], _priority(spec))
        for name, amount in pod_total(spec, field).items():
            if value := amount.nano / 1e9:
                yield (*about, name, spec.get("schedulerName") or "", _unit(name)), value


def _priority(spec: Obj) -> str:
    return "" if spec.get("priority") is None else str(spec["priority"])


def _unit(name: str) -> str:
    if name.startswith("hugepages-"):
        return "bytes"
    return "integer" if name.startswith("attachable-volumes-") else _UNITS.get(name, "")
