"""In-place resize: what a pod's spec asks for, what the node has granted, and what is in force.

A pod runs with what is *allocated* to it. When its spec asks for something else, that is granted if the node has
room, and otherwise waits (PodResizePending: Deferred, or Infeasible when it can never be). What is granted and not
yet in force shows as PodResizeInProgress.

After a restart of the kubelet the API's status says what was allocated and what was in force.

Source: pkg/kubelet/allocation, KEP-1287.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from berg.kubelet import container_resources
from berg.kubelet import pod as p
from berg.machinery import quantity
from berg.machinery.status import Obj

RESIZABLE = ("cpu", "memory")
SECTIONS = ("requests", "limits")

Amounts = dict[tuple[str, str], int]
"""(section, resource) → milli-units."""


def amounts(resources: Obj | None) -> Amounts:
    found: Amounts = {}
    for section in SECTIONS:
        for name in RESIZABLE:
            value = ((resources or {}).get(section) or {}).get(name)
            if value is not None:
                found[section, name] = quantity.milli(value)
    return found


def resizable_containers(pod: Obj) -> list[Obj]:
    return p.containers(pod) + [c for c in p.init_containers(pod) if p.is_sidecar(c)]


def with_resources(pod: Obj, by_name: dict[str, Obj]) -> Obj:
    """A copy of `pod` whose containers have these resources."""
    spec = dict(pod["spec"])
    for key in ("containers", "initContainers"):
        if spec.get(key):
            spec[key] = [{**c, "resources": by_name.get(c["name"], c.get("resources") or {})} for c in spec[key]]
    return {**pod, "spec": spec}


def same(a: Obj, b: Obj) -> bool:
    names = {c["name"]: c for c in resizable_containers(b)}
    return all(
        amounts(c.get("resources")) == amounts(names[c["name"]].get("resources"))
        for c in resizable_containers(a)
        if c["name"] in names
    )


def from_status(pod: Obj) -> dict[str, Obj]:
    """What the API says was allocated, by container; empty for a pod that has not run yet."""
    found: dict[str, Obj] = {}
    status = pod.get("status") or {}
    specs = {c["name"]: c for c in resizable_containers(pod)}
    for key in ("containerStatuses", "initContainerStatuses"):
        for s in status.get(key) or ():
            spec = specs.get(s["name"])
            if spec is None or s.get("resources") is None or not s.get("containerID"):
                continue
            resources = {k: dict(v) for k, v in (spec.get("resources") or {}).items() if isinstance(v, dict)}
            for section, said in (("requests", s.get("allocatedResources")), ("limits", s["resources"].get("limits"))):
                for name in RESIZABLE:
                    if said and name in said:
                        resources.setdefault(section, {})[name] = said[name]
            found[s["name"]] = resources
    return found


@dataclass(slots=True)
class _Condition:
    reason: str
    message: str
    generation: int


class Allocation:
    def __init__(self, event: Callable[[Obj, str, str, str], None], wake: Callable[[str], None]) -> None:
        self._event = event
        self._wake = wake
        self._allocated: dict[str, dict[str, Obj]] = {}
        self._pending: dict[str, _Condition] = {}
        self._in_progress: dict[str, _Condition] = {}

    def allocated(self, pod: Obj) -> Obj:
        """The pod with what is granted to it."""
        uid = p.uid(pod)
        if uid not in self._allocated:
            said = from_status(pod)
            self._allocated[uid] = {c["name"]: said.get(c["name"], c.get("resources") or {}) for c in _all(pod)}
        granted = with_resources(pod, self._allocated[uid])
        return pod if same(granted, pod) else granted

    def update(self, pod: Obj, allocatable: Callable[[], dict[str, str]], others: Callable[[], Iterable[Obj]]) -> Obj:
        """Grants what the spec asks for, if it can be. `others` are the node's other pods as they are allocated."""
        uid = p.uid(pod)
        granted = self.allocated(pod)
        if granted is pod:
            self._pending.pop(uid, None)
            return pod
        refusal = _refusal(pod, allocatable(), others())
        if refusal is None:
            self._allocated[uid] = {c["name"]: c.get("resources") or {} for c in _all(pod)}
            self._pending.pop(uid, None)
            self._in_progress[uid] = _Condition("", "", p.generation(pod))
            self._event(pod, "Normal", "ResizeStarted", f"Pod resize started: {_summary(pod)}")
            return pod
        was = self._pending.get(uid)
        now = _Condition(*refusal, p.generation(pod))
        self._pending[uid] = now
        if was is None or (was.reason, was.generation) != (now.reason, now.generation):
            text = f"Pod resize {now.reason}: {_summary(pod, now.message)}"
            self._event(pod, "Warning", f"Resize{now.reason}", text)
        return granted

    def settle(self, pod: Obj, in_force: bool, error: str = "") -> None:
        """Called after each sync: whether what is granted is in force."""
        uid = p.uid(pod)
        if in_force:
            if (done := self._in_progress.pop(uid, None)) is not None:
                text = f"Pod resize completed: {_summary(pod, generation=done.generation)}"
                self._event(pod, "Normal", "ResizeCompleted", text)
            return
        was = self._in_progress.get(uid)
        generation = was.generation if was else p.generation(pod)
        self._in_progress[uid] = _Condition("Error" if error else "", error, generation)
        if error and (was is None or was.message != error):
            self._event(pod, "Warning", "ResizeError", f"Pod resize error: {_summary(pod, error, generation)}")

    def conditions(self, pod: Obj) -> list[Obj]:
        found: list[Obj] = []
        for type, held in (("PodResizePending", self._pending), ("PodResizeInProgress", self._in_progress)):
            if (c := held.get(p.uid(pod))) is not None:
                one: Obj = {"type": type, "status": "True", "observedGeneration": c.generation}
                if c.reason:
                    one["reason"] = c.reason
                if c.message:
                    one["message"] = c.message
                found.append(one)
        return found

    def room_was_made(self) -> None:
        """A pod has gone: those that wait for room look again."""
        for uid, c in list(self._pending.items()):
            if c.reason == "Deferred":
                self._wake(uid)

    def forget(self, uid: str) -> None:
        for held in (self._allocated, self._pending, self._in_progress):
            held.pop(uid, None)


def _all(pod: Obj) -> list[Obj]:
    return p.containers(pod) + p.init_containers(pod)


def _refusal(pod: Obj, allocatable: dict[str, str], others: Iterable[Obj]) -> tuple[str, str] | None:
    if p.is_static(pod):
        return "Infeasible", "In-place resize of static-pods is not supported"
    others = list(others)
    for name in RESIZABLE:
        wanted = container_resources.pod_requests(pod, name)
        have = quantity.milli(allocatable.get(name, "0"))
        unit = 1 if name == "cpu" else 1000
        if wanted > have:
            return (
                "Infeasible",
                f"Node didn't have enough capacity: {name}, requested: {wanted // unit}, capacity: {have // unit}",
            )
        used = sum(container_resources.pod_requests(o, name) for o in others)
        if wanted + used > have:
            return (
                "Deferred",
                f"Node didn't have enough resource: {name}, requested: {wanted // unit}, "
                f"used: {used // unit}, capacity: {have // unit}",
            )
    return None


def _summary(pod: Obj, error: str = "", generation: int | None = None) -> str:
    def of(containers: list[Obj]) -> list[Any]:
        return [{"name": c["name"], "resources": c.get("resources") or {}} for c in containers]

    summary: Obj = {}
    if p.init_containers(pod):
        summary["initContainers"] = of(p.init_containers(pod))
    summary["containers"] = of(p.containers(pod))
    summary["generation"] = p.generation(pod) if generation is None else generation
    if error:
        summary["error"] = error
    return orjson.dumps(summary).decode()


def needs_restart(c: Obj, wanted: Amounts, now: Amounts) -> bool:
    """Whether the container's resizePolicy asks for a restart for what changes."""
    policies = {r["resourceName"]: r["restartPolicy"] for r in c.get("resizePolicy") or ()}
    changed = {
        name for section, name in wanted.keys() | now.keys() if wanted.get((section, name)) != now.get((section, name))
    }
    return any(policies.get(name) == "RestartContainer" for name in changed)
