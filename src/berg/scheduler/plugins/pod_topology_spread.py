"""PodTopologySpread: pods that a selector matches are spread evenly over topology domains.

Counts come from the snapshot's counters. Where a node does not take part (its affinity, taints or labels exclude it),
its pods are not counted, so domains are summed over the nodes that do.

Source: plugins/podtopologyspread, KEP-895, KEP-3022 (minDomains), KEP-3094 (node inclusion policies).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from berg.machinery.labels import Selector
from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import MAX_SCORE, Cycle, Filter, Ints, PreFilter, Rows, Scope, Score
from berg.scheduler.framework.status import Status, unresolvable, unschedulable
from berg.scheduler.plugins.taint_toleration import untolerated
from berg.scheduler.state import nodeselector
from berg.scheduler.state.arrays import ALL, Bools, Floats
from berg.scheduler.state.counters import LabelClass, PodCounter
from berg.scheduler.state.podinfo import PodClass, PodInfo, Spread, parse_spread, selector_id
from berg.scheduler.state.snapshot import Snapshot

Obj = dict[str, Any]
REASON = "node(s) didn't match pod topology spread constraints"
REASON_MISSING_LABEL = f"{REASON} (missing required label)"
HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
SYSTEM_DEFAULTS = (
    {"maxSkew": 3, "topologyKey": HOSTNAME, "whenUnsatisfiable": "ScheduleAnyway"},
    {"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "ScheduleAnyway"},
)
_MISSING_LABEL, _SKEW = 1, 2


class PodTopologySpread(PreFilter, Filter, Score):
    name = "PodTopologySpread"
    scope = Scope.CLUSTER
    score_scope = Scope.CLUSTER
    normalizes = True

    def __init__(self, args: Obj, handle: Any) -> None:
        super().__init__(args, handle)
        self._system = (args.get("defaultingType") or "System") == "System"
        defaults = SYSTEM_DEFAULTS if self._system else args.get("defaultConstraints") or ()
        self._defaults = [parse_spread({**c, "labelSelector": None}, {}) for c in defaults]

    def constraints(self, cls: PodClass, *, hard: bool) -> list[Spread]:
        """The pod's own, or else the profile's defaults with the selector of what the pod belongs to."""
        if cls.spread:
            return [c for c in cls.spread if c.hard == hard]
        defaults = [c for c in self._defaults if c.hard == hard]
        if not defaults:
            return []
        selector, id = self._default_selector(cls)
        return [replace(c, selector=selector, selector_id=id) for c in defaults] if selector is not None else []

    def _default_selector(self, cls: PodClass) -> tuple[Selector | None, bytes]:
        objects = self.handle.objects
        kind = cls.owner.get("kind", "") if cls.owner else ""
        version = (objects.version("Service"), objects.version(kind) if kind else 0)
        kept: tuple[tuple[int, int], Selector | None, bytes] | None = cls.memo.get("default-selector")
        if kept is None or kept[0] != version:
            selector = default_selector(cls, objects)
            kept = cls.memo["default-selector"] = (version, selector, str(selector).encode())
        return kept[1], kept[2]

    def pre_filter(self, cycle: Cycle) -> Status | None:
        hard = self.constraints(cycle.cls, hard=True)
        if hard:
            cycle.data["spread"] = _domains_of(cycle.snapshot, cycle.cls, hard)
        return None

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        hard = self.constraints(cycle.cls, hard=True)
        if not hard:
            return None
        snapshot, labels = cycle.snapshot, cycle.cls.labels
        domains: list[tuple[Ints, Bools]] = _domains_of(snapshot, cycle.cls, hard)
        codes = np.zeros(nodeselector.count_rows(snapshot, rows), dtype=np.int64)
        for constraint, (sums, present) in zip(reversed(hard), reversed(domains), strict=True):
            column = snapshot.label(constraint.topology_key)
            ids = column.ids[rows]
            here = int(present.sum())
            fewest = int(sums[present].min()) if here and here >= constraint.min_domains else 0
            skew = sums[ids] + int(constraint.selector.matches(labels)) - fewest
            codes[skew > constraint.max_skew] = _SKEW
            codes[ids < 0] = _MISSING_LABEL
        return codes

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unresolvable(REASON_MISSING_LABEL) if code == _MISSING_LABEL else unschedulable(REASON)

    def pre_score(self, cycle: Cycle, feasible: Rows) -> Status | None:
        cycle.data["feasible"] = feasible
        return None

    def score(self, cycle: Cycle, rows: Rows) -> Ints | None:
        soft = self.constraints(cycle.cls, hard=False)
        if not soft:
            return None
        snapshot, cls = cycle.snapshot, cycle.cls
        all_keys = bool(cls.spread) or not self._system
        ids = [snapshot.label(c.topology_key).ids[rows] for c in soft]
        takes_part = np.ones(len(ids[0]), dtype=np.bool_)
        if all_keys:
            for one in ids:
                takes_part &= one >= 0
        total: Floats = np.zeros(len(takes_part))
        for constraint, values in zip(soft, ids, strict=True):
            column = snapshot.label(constraint.topology_key)
            counter = _counter(snapshot, cls, constraint)
            if constraint.topology_key == HOSTNAME:
                size = int(takes_part.sum())
                counts = counter.by_row[rows]
            else:
                size = len(np.unique(values[takes_part & (values >= 0)]))
                counts = _sums(snapshot, cls, constraint, soft if all_keys else [], counter)[values]
            score = counts * np.log(size + 2) + (constraint.max_skew - 1)
            total += np.where(values >= 0, score, 0.0) if column is not None else 0.0
        scores = np.floor(total + 0.5).astype(np.int64)
        scores[~takes_part] = -1
        return scores

    def normalize(self, cycle: Cycle, scores: Ints) -> Ints:
        ignored = scores < 0
        counted = scores[~ignored]
        if not len(counted):
            return np.zeros_like(scores)
        low, high = int(counted.min()), int(counted.max())
        if high == 0:
            normal = np.full_like(scores, MAX_SCORE)
        else:
            normal = MAX_SCORE * (high + low - scores) // high
        normal[ignored] = 0
        return normal

    def events(self) -> list[EventWithHint]:
        return [
            on("AssignedPod", Action.ADD | Action.DELETE | Action.UPDATE_POD_LABEL, self._counts),
            on("UnscheduledPod", Action.UPDATE_POD_LABEL, lambda pod, _, new: _is(pod, new)),
            on("Node", Action.ADD | Action.DELETE | Action.UPDATE_NODE_LABEL | Action.UPDATE_NODE_TAINT),
        ]

    def _counts(self, pod: PodInfo, old: Any, new: Any) -> bool:
        for other in (old, new):
            if other is not None and (other["metadata"].get("namespace") or "") == pod.namespace:
                labels = other["metadata"].get("labels") or {}
                if any(c.selector.matches(labels) for c in self.constraints(pod.cls, hard=True)):
                    return True
        return False


def _is(pod: PodInfo, new: Any) -> bool:
    return new is not None and new["metadata"].get("uid") == pod.uid


def _counter(snapshot: Snapshot, cls: PodClass, constraint: Spread) -> PodCounter:
    namespace, selector = cls.namespace, constraint.selector

    def matches(group: LabelClass) -> bool:
        return group.namespace == namespace and selector.matches(group.labels)

    id = b"spread:" + namespace.encode() + b"\0" + constraint.selector_id
    return snapshot.counters.counter(id, matches, exact=selector.exact(), terminating=False)


def _taking_part(snapshot: Snapshot, cls: PodClass, constraint: Spread, keys: list[Spread]) -> Bools | None:
    """The nodes whose pods count; None when all do that have the topology label."""
    mask: Bools | None = None
    others = [k for k in keys if k.topology_key != constraint.topology_key]
    for other in others:
        has = snapshot.label(other.topology_key).ids >= 0
        mask = has if mask is None else mask & has
    if constraint.honor_affinity:
        matched = nodeselector.required(snapshot, cls.spec, ALL)
        if matched is not None:
            mask = matched if mask is None else mask & matched
    if constraint.honor_taints and len(snapshot.taint_lists) > 1:
        table = np.array([not untolerated(cls, taints) for taints in snapshot.taint_lists])
        tolerated = table[snapshot.taints]
        mask = tolerated if mask is None else mask & tolerated
    return mask


def _sums(snapshot: Snapshot, cls: PodClass, constraint: Spread, keys: list[Spread], counter: PodCounter) -> Ints:
    """Matching pods by domain, over the nodes that take part."""
    column = snapshot.label(constraint.topology_key)
    mask = _taking_part(snapshot, cls, constraint, keys)
    if mask is None or bool((mask | ~snapshot.valid).all()):
        return counter.by_domain(column)
    counted = np.where(mask, counter.by_row, 0)
    return np.bincount(column.ids + 1, weights=counted, minlength=column.domains + 1)[
        np.r_[1 : column.domains + 1, 0]
    ].astype(np.int64)


def _domains_of(snapshot: Snapshot, cls: PodClass, hard: list[Spread]) -> list[tuple[Ints, Bools]]:
    """For each constraint: matching pods by domain, and which domains there are."""
    found: list[tuple[Ints, Bools]] = []
    for constraint in hard:
        column = snapshot.label(constraint.topology_key)
        counter = _counter(snapshot, cls, constraint)
        mask = _taking_part(snapshot, cls, constraint, hard)
        sums = _sums(snapshot, cls, constraint, hard, counter)
        present = np.zeros(len(sums), dtype=np.bool_)
        present[column.ids if mask is None else column.ids[mask]] = True
        present[-1] = False
        found.append((sums, present))
    return found


def default_selector(cls: PodClass, objects: Any) -> Selector | None:
    """Of the services that select the pod and of its controller; None when there is neither.

    Source: plugins/helper/spread.go, DefaultSelector.
    """
    requirements: list[Any] = []
    for service in objects.list("Service", cls.namespace):
        wanted = service["spec"].get("selector") or {}
        if wanted and all(cls.labels.get(k) == v for k, v in wanted.items()):
            requirements += Selector.of_map(wanted).requirements
    if cls.owner:
        owner = objects.get(cls.owner.get("kind", ""), cls.namespace, cls.owner.get("name", ""))
        if owner is not None:
            wanted = owner["spec"].get("selector")
            of = Selector.of_map if cls.owner["kind"] == "ReplicationController" else Selector.of
            if wanted:
                requirements += of(wanted).requirements
    return Selector(tuple(dict.fromkeys(requirements))) if requirements else None


__all__ = ["PodTopologySpread", "default_selector", "selector_id"]
