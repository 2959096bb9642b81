"""Which pods of lower priority would have to go so that a pod fits, and on which node that hurts least. No I/O.

For every node that was rejected for a reason that may be removed: take all pods of lower priority away; if the pod
then fits, put back as many as possible, the most important first, those protected by a disruption budget before the
others. What could not be put back are the victims. Of all nodes the one is taken with, in this order, the fewest
budgets violated, the lowest highest priority among the victims, the smallest sum of priorities, the fewest victims,
and the youngest of its most important victims.

Where only resources matter (no affinity, ports or volumes), a node is decided by adding up, and the results of all
nodes are kept for the pods of the class and recomputed only for rows that changed.

Source: pkg/scheduler/framework/preemption, plugins/defaultpreemption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from berg.machinery.labels import Selector
from berg.scheduler.framework.diagnosis import Diagnosis
from berg.scheduler.framework.interface import Cycle, Filter
from berg.scheduler.framework.status import Code, Status, unresolvable, unschedulable
from berg.scheduler.state.objects import Objects
from berg.scheduler.state.podinfo import PodInfo
from berg.scheduler.state.snapshot import PODS, Snapshot

Obj = dict[str, Any]

NO_VICTIMS = unresolvable("No preemption victims found for incoming pod")
NOT_HELPFUL = unresolvable("Preemption is not helpful for scheduling")


@dataclass(slots=True)
class Candidate:
    row: int
    victims: list[PodInfo]
    violations: int
    cost: tuple[Any, ...] = ()
    """smaller is better"""

    def __post_init__(self) -> None:
        top = max(p.priority for p in self.victims)
        earliest = min(p.start_time for p in self.victims if p.priority == top)
        total = sum(p.priority + 2**31 for p in self.victims)
        self.cost = (self.violations, top, total, len(self.victims), _Later(earliest))


@dataclass(slots=True, frozen=True)
class _Later:
    """Orders start times backwards: the youngest goes first."""

    time: str

    def __lt__(self, other: _Later) -> bool:
        return self.time > other.time


@dataclass(slots=True)
class Plan:
    """What preemption wants done: read by the scheduler, which does it."""

    node: str
    victims: list[PodInfo]


@dataclass(slots=True)
class UnderWay:
    """A preemption that was decided on. While `asking`, the evictions are still being asked for."""

    victims: set[str]
    """UIDs"""
    asking: bool = True


@dataclass(slots=True)
class Budget:
    namespace: str
    selector: Selector
    allowed: int
    disrupted: frozenset[str]


@dataclass(slots=True)
class _Kept:
    """Results for a class, by row, up to a place in the change log."""

    place: int
    budgets_version: int
    results: dict[int, Candidate | Status] = field(default_factory=dict)


def preempt(
    cycle: Cycle, diagnosis: Diagnosis, objects: Objects, args: Obj, under_way: UnderWay | None = None
) -> tuple[str | None, Status]:
    """PostFilter's answer; on success `cycle.data["preemption"]` is the Plan. `under_way` is what an earlier attempt
    of the pod decided: no second one is begun before its victims are gone."""
    refusal = _not_eligible(cycle, diagnosis, under_way)
    if refusal:
        return None, unschedulable(f"preemption: {refusal}")
    potential = diagnosis.rows_with(Code.UNSCHEDULABLE)
    results = _dry_run(cycle, potential, objects, args)
    candidates = [r for r in results.values() if isinstance(r, Candidate)]
    if not candidates:
        return "", unschedulable(f"preemption: {_refused(cycle, diagnosis, results)}")
    best = min(candidates, key=lambda c: c.cost)
    cycle.data["preemption"] = Plan(cycle.snapshot.names[best.row], best.victims)
    return cycle.snapshot.names[best.row], Status(Code.SUCCESS)


TERMINATING = "not eligible due to a terminating pod on the nominated node."


def _not_eligible(cycle: Cycle, diagnosis: Diagnosis, under_way: UnderWay | None) -> str:
    pod, snapshot = cycle.pod, cycle.snapshot
    if not pod.cls.preempts:
        return "not eligible due to preemptionPolicy=Never."
    if under_way is not None:
        left = [snapshot.where[uid] for uid in under_way.victims if uid in snapshot.where]
        rows = [snapshot.rows.get(p.node, -1) for p in left]
        if any(r >= 0 and diagnosis.code_of(r) != Code.UNSCHEDULABLE_AND_UNRESOLVABLE for r in rows):
            return TERMINATING
    row = snapshot.rows.get(pod.nominated_node, -1) if pod.nominated_node else -1
    if row < 0 or diagnosis.code_of(row) == Code.UNSCHEDULABLE_AND_UNRESOLVABLE:
        return ""
    if any(p.terminating and p.priority < pod.priority and _preempted(p) for p in snapshot.pods[row].values()):
        return TERMINATING
    return ""


def _preempted(pod: PodInfo) -> bool:
    return any(
        c.get("type") == "DisruptionTarget" and c.get("status") == "True" and c.get("reason") == "PreemptionByScheduler"
        for c in (pod.obj.get("status") or {}).get("conditions") or ()
    )


def _refused(cycle: Cycle, diagnosis: Diagnosis, results: dict[int, Candidate | Status]) -> str:
    why = Diagnosis(diagnosis.nodes)
    by_status: dict[Status, list[int]] = {}
    for row, status in results.items():
        if isinstance(status, Status):
            by_status.setdefault(status, []).append(row)
    rest = [int(r) for r in np.flatnonzero(cycle.snapshot.valid) if int(r) not in results]
    if rest:
        by_status.setdefault(NOT_HELPFUL, []).extend(rest)
    for status, rows in by_status.items():
        why.add(status, np.array(rows, dtype=np.intp))
    return why.message()


def _dry_run(cycle: Cycle, potential: Any, objects: Objects, args: Obj) -> dict[int, Candidate | Status]:
    if not len(potential):
        return {}
    budgets = _budgets(objects)
    known: dict[int, Candidate | Status] = {}
    fitting: type[_Sums | _Trial] = _Trial
    if _only_resources(cycle, cycle.filters):
        known, fitting = _known(cycle, objects.version("PodDisruptionBudget")), _Sums
    wanted = max(
        len(potential) * args.get("minCandidateNodesPercentage", 10) // 100,
        args.get("minCandidateNodesAbsolute", 100),
    )
    start = cycle.rng.randrange(len(potential))
    results: dict[int, Candidate | Status] = {}
    found = harmless = 0
    for i in range(len(potential)):
        row = int(potential[(start + i) % len(potential)])
        result = known.get(row)
        if result is None:
            result = known[row] = _victims(cycle, row, budgets, fitting(cycle, row).fits_without)
        results[row] = result
        if isinstance(result, Candidate):
            found += 1
            harmless += not result.violations
            if found >= wanted and harmless:
                break
    return results


def _only_resources(cycle: Cycle, filters: list[Filter]) -> bool:
    cls = cycle.cls
    if (
        cls.host_ports
        or cls.affinity
        or cls.anti_affinity
        or cls.volumes
        or cls.resource_claims
        or any(c.hard for c in cls.spread)
    ):
        return False
    if any(c.kind == "required-anti" and c.total for c in cycle.snapshot.counters.carriers(cls)):
        return False
    known = {
        "NodeResourcesFit",
        "NodeUnschedulable",
        "NodeName",
        "TaintToleration",
        "NodeAffinity",
        "NodeDeclaredFeatures",
    }
    indifferent = {"PodTopologySpread", "InterPodAffinity", "VolumeBinding", "VolumeZone", "DynamicResources"}
    return all(f.name in known | indifferent for f in filters) and any(f.name == "NodeResourcesFit" for f in filters)


def _known(cycle: Cycle, budgets_version: int) -> dict[int, Candidate | Status]:
    """What is still true of earlier results for the class; new ones may be added."""
    snapshot, memo = cycle.snapshot, cycle.cls.memo
    kept: _Kept | None = memo.get("preemption")
    changed = snapshot.log.since(kept.place) if kept and kept.budgets_version == budgets_version else None
    if kept is None or changed is None:
        kept = memo["preemption"] = _Kept(0, budgets_version)
    else:
        for entry in changed:
            kept.results.pop(entry >> 1, None)
    kept.place = snapshot.log.end
    return kept.results


FitsWithout = Callable[[list[PodInfo]], Status | None]


def _victims(cycle: Cycle, row: int, budgets: list[Budget], fits_without: FitsWithout) -> Candidate | Status:
    lower = [p for p in cycle.snapshot.pods[row].values() if p.priority < cycle.pod.priority]
    if not lower:
        return NO_VICTIMS
    status = fits_without(lower)
    if status is not None:
        return status
    lower.sort(key=_importance)
    violating, other = _split(lower, budgets)
    gone = {p.uid: p for p in lower}
    violations = 0
    for group, counts in ((violating, True), (other, False)):
        for pod in group:
            del gone[pod.uid]
            if fits_without(list(gone.values())) is not None:
                gone[pod.uid] = pod
                violations += counts
    return Candidate(row, sorted(gone.values(), key=_importance), violations)


def _importance(pod: PodInfo) -> tuple[int, str]:
    """The most important first: the higher priority, then who has run longer."""
    return (-pod.priority, pod.start_time)


class _Sums:
    """Fits by adding up requests: plain integers, no arrays."""

    def __init__(self, cycle: Cycle, row: int) -> None:
        snapshot = cycle.snapshot
        self._snapshot = snapshot
        self._asked = ((PODS, 1), *snapshot.request(cycle.cls))
        nominated = [
            p
            for p in snapshot.nominated.get(row, {}).values()
            if p.uid != cycle.pod.uid and p.priority >= cycle.pod.priority
        ]
        self._free = {
            c: int(snapshot.allocatable[c, row]) - int(snapshot.requested[c, row]) - self._held(nominated, c)
            for c, _ in self._asked
        }

    def _held(self, pods: list[PodInfo], column: int) -> int:
        if column == PODS:
            return len(pods)
        return sum(n for p in pods for c, n in self._snapshot.request(p.cls) if c == column)

    def fits_without(self, gone: list[PodInfo]) -> Status | None:
        lacking = [c for c, n in self._asked if self._free[c] + self._held(gone, c) < n]
        if not lacking:
            return None
        names = self._snapshot.resources.names
        return unschedulable(*("Too many pods" if c == PODS else f"Insufficient {names[c]}" for c in lacking))


class _Trial:
    """Fits by asking the filters about the row without the pods."""

    def __init__(self, cycle: Cycle, row: int) -> None:
        self._cycle, self._row, self._filters = cycle, row, cycle.filters

    def fits_without(self, gone: list[PodInfo]) -> Status | None:
        snapshot: Snapshot = self._cycle.snapshot
        rows = np.array([self._row], dtype=np.intp)
        with snapshot.trial(remove=[(p, self._row) for p in gone]):
            for f in self._filters:
                codes = f.filter(self._cycle, rows)
                if codes is not None and codes[0]:
                    return f.explain(self._cycle, int(codes[0]))
        return None


def _budgets(objects: Objects) -> list[Budget]:
    return [
        Budget(
            b["metadata"].get("namespace") or "",
            Selector.of(b["spec"].get("selector")),
            (b.get("status") or {}).get("disruptionsAllowed") or 0,
            frozenset((b.get("status") or {}).get("disruptedPods") or ()),
        )
        for b in objects.list("PodDisruptionBudget")
    ]


def _split(pods: list[PodInfo], budgets: list[Budget]) -> tuple[list[PodInfo], list[PodInfo]]:
    """(those whose eviction would violate a budget, the others), in the given order."""
    if not budgets:
        return [], pods
    left = [b.allowed for b in budgets]
    violating: list[PodInfo] = []
    other: list[PodInfo] = []
    for pod in pods:
        violates = False
        for i, b in enumerate(budgets):
            if b.namespace != pod.namespace or not pod.cls.labels or b.selector.everything:
                continue
            if not b.selector.matches(pod.cls.labels) or pod.name in b.disrupted:
                continue
            left[i] -= 1
            violates = violates or left[i] < 0
        (violating if violates else other).append(pod)
    return violating, other
