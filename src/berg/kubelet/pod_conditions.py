"""The conditions of a pod that the kubelet owns. Pure.

Source: pkg/kubelet/status/generate.go; KEP-5067 (observedGeneration).
"""

from __future__ import annotations

from berg.kubelet import pod as p
from berg.kubelet.actions import sandbox_changed
from berg.kubelet.runtime_status import PodStatus
from berg.machinery.status import Obj

OWNED = (
    "PodScheduled",
    "Ready",
    "Initialized",
    "ContainersReady",
    "PodReadyToStartContainers",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
)


def generate(pod: Obj, runtime: PodStatus, phase: str, statuses: list[Obj], others: list[Obj]) -> list[Obj]:
    """The kubelet's conditions, without times. `statuses` are those of init and regular containers,
    `others` the conditions that others wrote (readiness gates look there)."""
    by_name = {s["name"]: s for s in statuses}
    containers_ready = _containers_ready(pod, phase, by_name)
    return [
        _condition(pod, "PodReadyToStartContainers", not sandbox_changed(pod, runtime)[0]),
        _initialized(pod, phase, by_name),
        _ready(pod, containers_ready, others),
        containers_ready,
        _condition(pod, "PodScheduled", True),
    ]


def _condition(pod: Obj, type: str, ok: bool, reason: str = "", message: str = "") -> Obj:
    condition: Obj = {"type": type, "status": "True" if ok else "False"}
    if generation := p.generation(pod):
        condition["observedGeneration"] = generation
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _list(names: list[str]) -> str:
    return f"[{' '.join(names)}]"


def _containers_ready(pod: Obj, phase: str, by_name: dict[str, Obj]) -> Obj:
    watched = [c["name"] for c in p.init_containers(pod) if p.is_sidecar(c)] + [c["name"] for c in p.containers(pod)]
    unknown = [n for n in watched if n not in by_name]
    unready = [n for n in watched if n in by_name and not by_name[n].get("ready")]
    if phase == "Succeeded" and not unknown:
        return _condition(pod, "ContainersReady", False, "PodCompleted")
    if phase == "Failed":
        return _condition(pod, "ContainersReady", False, "PodFailed")
    messages = []
    if unknown:
        messages.append(f"containers with unknown status: {_list(unknown)}")
    if unready:
        messages.append(f"containers with unready status: {_list(unready)}")
    if messages:
        return _condition(pod, "ContainersReady", False, "ContainersNotReady", ", ".join(messages))
    return _condition(pod, "ContainersReady", True)


def _ready(pod: Obj, containers_ready: Obj, others: list[Obj]) -> Obj:
    if containers_ready["status"] != "True":
        return {**containers_ready, "type": "Ready"}
    messages = []
    for gate in pod["spec"].get("readinessGates") or ():
        wanted = gate["conditionType"]
        found = next((c for c in others if c["type"] == wanted), None)
        if found is None:
            messages.append(f'corresponding condition of pod readiness gate "{wanted}" does not exist.')
        elif found["status"] != "True":
            messages.append(f'the status of pod readiness gate "{wanted}" is not "True", but {found["status"]}')
    if messages:
        return _condition(pod, "Ready", False, "ReadinessGatesNotReady", ", ".join(messages))
    return _condition(pod, "Ready", True)


def _initialized(pod: Obj, phase: str, by_name: dict[str, Obj]) -> Obj:
    unknown, incomplete = [], []
    for c in p.init_containers(pod):
        s = by_name.get(c["name"])
        if s is None:
            unknown.append(c["name"])
        elif not (s.get("started") if p.is_sidecar(c) else s.get("ready")):
            incomplete.append(c["name"])
    if phase == "Succeeded" and not unknown:
        return _condition(pod, "Initialized", True, "PodCompleted")
    if any(_has_started(by_name.get(c["name"])) for c in p.containers(pod)):
        return _condition(pod, "Initialized", True)
    messages = []
    if unknown:
        messages.append(f"containers with unknown status: {_list(unknown)}")
    if incomplete:
        messages.append(f"containers with incomplete status: {_list(incomplete)}")
    if messages:
        return _condition(pod, "Initialized", False, "ContainersNotInitialized", ", ".join(messages))
    return _condition(pod, "Initialized", True)


def _has_started(s: Obj | None) -> bool:
    if s is None:
        return False
    return "terminated" in (s.get("lastState") or {}) or bool({"running", "terminated"} & set(s.get("state") or {}))
