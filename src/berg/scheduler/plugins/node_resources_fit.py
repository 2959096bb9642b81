"""NodeResourcesFit: the pod's requests must fit into what is left of the node; emptier (or fuller) nodes score.

Code: bit i says that the i-th requested resource is insufficient, bit 31 + i that even the empty node is too small;
bit 62 that the node has as many pods as it may.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, Rows, Scope, Score
from berg.scheduler.framework.status import Status, unresolvable, unschedulable
from berg.scheduler.plugins.resource_scores import OneScore, fit_score, least, most, ratio
from berg.scheduler.state.podinfo import PodClass, PodInfo
from berg.scheduler.state.requests import amounts, pod_requests
from berg.scheduler.state.snapshot import PODS

Obj = dict[str, Any]
_TOO_MANY_PODS = 1 << 62
_TOO_SMALL = 31


class NodeResourcesFit(Filter, Score):
    name = "NodeResourcesFit"
    scope = Scope.PODS
    score_scope = Scope.PODS

    def __init__(self, args: Obj, handle: Any) -> None:
        super().__init__(args, handle)
        self._ignored = set(args.get("ignoredResources") or ())
        self._ignored_groups = tuple(f"{g}/" for g in args.get("ignoredResourceGroups") or ())
        strategy = args.get("scoringStrategy") or {}
        self._resources: list[tuple[str, int]] = [
            (str(r["name"]), int(r.get("weight") or 1))
            for r in strategy.get("resources") or ({"name": "cpu"}, {"name": "memory"})
        ]
        kind = strategy.get("type") or "LeastAllocated"
        shape = (strategy.get("requestedToCapacityRatio") or {}).get("shape") or ()
        self._rounds = kind == "RequestedToCapacityRatio"
        self._one: OneScore = {"LeastAllocated": least, "MostAllocated": most}.get(kind) or ratio(shape)

    def _asked(self, cycle: Cycle) -> list[tuple[int, int]]:
        names = cycle.snapshot.resources.names
        return [(column, n) for column, n in cycle.snapshot.request(cycle.cls) if not self._ignores(names[column])]

    def _ignores(self, name: str) -> bool:
        return name in self._ignored or name.startswith(self._ignored_groups or ("\0",))

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        snapshot = cycle.snapshot
        reserved = _reserved(cycle, rows) if snapshot.nominated else {}

        def used(column: int) -> Ints:
            held = snapshot.requested[column, rows]
            return held + reserved[column] if column in reserved else held

        codes = np.where(used(PODS) + 1 > snapshot.allocatable[PODS, rows], _TOO_MANY_PODS, 0)
        for i, (column, n) in enumerate(self._asked(cycle)):
            allocatable = snapshot.allocatable[column, rows]
            lacks = used(column) + n > allocatable
            codes |= lacks.astype(np.int64) << i
            codes |= (lacks & (allocatable < n)).astype(np.int64) << (_TOO_SMALL + i)
        return np.asarray(codes)

    def explain(self, cycle: Cycle, code: int) -> Status:
        reasons = ["Too many pods"] if code & _TOO_MANY_PODS else []
        small = False
        for i, (column, _) in enumerate(self._asked(cycle)):
            if code >> i & 1:
                reasons.append(f"Insufficient {cycle.snapshot.resources.names[column]}")
                small = small or bool(code >> (_TOO_SMALL + i) & 1)
        return unresolvable(*reasons) if small else unschedulable(*reasons)

    def score(self, cycle: Cycle, rows: Rows) -> Ints | None:
        return fit_score(cycle, rows, self._resources, self._one, rounds=self._rounds)

    def events(self) -> list[EventWithHint]:
        return [
            on("AssignedPod", Action.DELETE | Action.UPDATE_POD_SCALE_DOWN, _frees_something),
            on("UnscheduledPod", Action.UPDATE_POD_SCALE_DOWN, lambda pod, _, new: _is(pod, new)),
            on("Node", Action.ADD | Action.UPDATE_NODE_ALLOCATABLE, self._fits_now),
        ]

    def _fits_now(self, pod: PodInfo, old: Any, new: Any) -> bool:
        if new is None:
            return False
        have = amounts((new.get("status") or {}).get("allocatable"))
        wanted = {k: n for k, n in pod.cls.requests.items() if not self._ignores(k)}
        if have.get("pods", 0) < 1 or any(have.get(k, 0) < n for k, n in wanted.items()):
            return False
        if old is None:
            return True
        had = amounts((old.get("status") or {}).get("allocatable"))
        return any(have.get(k, 0) > had.get(k, 0) for k in (*wanted, "pods"))


def _reserved(cycle: Cycle, rows: Rows) -> dict[int, Ints]:
    """What nominated pods of at least the same priority will take from their nodes, by column."""
    snapshot, cls = cycle.snapshot, cycle.cls
    at = {r: r for r in snapshot.nominated} if isinstance(rows, slice) else {r: i for i, r in enumerate(rows.tolist())}
    taken: dict[int, Ints] = {}

    def take(column: int, i: int, n: int) -> None:
        if column not in taken:
            taken[column] = np.zeros(len(snapshot.valid[rows]), dtype=np.int64)
        taken[column][i] += n

    for row, i in at.items():
        for pod in snapshot.nominated.get(row, {}).values():
            if pod.cls.priority >= cls.priority:
                take(PODS, i, 1)
                for column, n in snapshot.request(pod.cls):
                    take(column, i, n)
    return taken


def _is(pod: PodInfo, new: Any) -> bool:
    return new is not None and new["metadata"].get("uid") == pod.uid


def _frees_something(pod: PodInfo, old: Any, new: Any) -> bool:
    if old is None:
        return False
    if new is None:
        return bool(old["spec"].get("nodeName") or (old.get("status") or {}).get("nominatedNodeName"))
    before, after = pod_requests(old), pod_requests(new)
    return any(after.get(k, 0) < before.get(k, 0) for k in pod.cls.requests)


def fits_class(cls: PodClass) -> bool:
    """Whether resources are all that a class's pods ask of a node's other pods."""
    return not (cls.host_ports or cls.affinity or cls.anti_affinity or cls.volumes or any(c.hard for c in cls.spread))
