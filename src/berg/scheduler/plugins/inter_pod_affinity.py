"""InterPodAffinity: pods that must, or would rather, share a topology domain with others, or keep apart from them.

Both directions count: the new pod's terms about existing pods, and existing pods' terms about the new one.

Source: plugins/interpodaffinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import MAX_SCORE, Cycle, Filter, Ints, Rows, Scope, Score
from berg.scheduler.framework.status import Status, unresolvable, unschedulable
from berg.scheduler.state import nodeselector
from berg.scheduler.state.podinfo import PodClass, PodInfo, Term

Obj = dict[str, Any]
REASON_AFFINITY = "node(s) didn't match pod affinity rules"
REASON_ANTI = "node(s) didn't match pod anti-affinity rules"
REASON_EXISTING = "node(s) didn't satisfy existing pods anti-affinity rules"
_AFFINITY, _ANTI, _EXISTING = 1, 2, 3


class InterPodAffinity(Filter, Score):
    name = "InterPodAffinity"
    scope = Scope.CLUSTER
    score_scope = Scope.CLUSTER
    normalizes = True

    def __init__(self, args: Obj, handle: Any) -> None:
        super().__init__(args, handle)
        self._hard_weight = args.get("hardPodAffinityWeight", 1)
        self._ignore_existing = bool(args.get("ignorePreferredTermsOfExistingPods"))

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        snapshot, cls = cycle.snapshot, cycle.cls
        apart = [c for c in snapshot.counters.carriers(cls) if c.kind == "required-anti" and c.total]
        if not (apart or cls.affinity or cls.anti_affinity):
            return None
        codes = np.zeros(nodeselector.count_rows(snapshot, rows), dtype=np.int64)
        for carrier in apart:
            column = snapshot.label(carrier.term.topology_key)
            ids = column.ids[rows]
            codes[(carrier.by_domain(column)[ids] > 0) & (ids >= 0)] = _EXISTING
        for term in cls.anti_affinity:
            column = snapshot.label(term.topology_key)
            ids = column.ids[rows]
            codes[(snapshot.counters.of_terms((term,)).by_domain(column)[ids] > 0) & (ids >= 0)] = _ANTI
        if cls.affinity:
            codes[~self._near(cycle, rows)] = _AFFINITY
        return codes

    def _near(self, cycle: Cycle, rows: Rows) -> Any:
        """Nodes in domains where each term's topology holds a pod that matches all terms; or, for the first pod of
        a group that wants to be together, any node with the labels."""
        snapshot, cls = cycle.snapshot, cycle.cls
        counter = snapshot.counters.of_terms(cls.affinity)
        labelled = np.ones(nodeselector.count_rows(snapshot, rows), dtype=np.bool_)
        near = labelled.copy()
        anywhere = False
        for term in cls.affinity:
            column = snapshot.label(term.topology_key)
            ids = column.ids[rows]
            sums = counter.by_domain(column)
            labelled &= ids >= 0
            near &= sums[ids] > 0
            anywhere = anywhere or bool((sums[:-1] > 0).any())
        if not anywhere and _matches_all(cls, cls.affinity, snapshot.counters.namespaces.get(cls.namespace, {})):
            return labelled
        return near & labelled

    def explain(self, cycle: Cycle, code: int) -> Status:
        if code == _AFFINITY:
            return unresolvable(REASON_AFFINITY)
        return unschedulable(REASON_ANTI if code == _ANTI else REASON_EXISTING)

    def score(self, cycle: Cycle, rows: Rows) -> Ints | None:
        snapshot, cls = cycle.snapshot, cycle.cls
        own = bool(cls.preferred_affinity or cls.preferred_anti_affinity)
        total: Ints | None = None

        def add(sums: Ints, key: str, weight: int) -> Ints:
            column = snapshot.label(key)
            ids = column.ids[rows]
            points = np.where(ids >= 0, sums[ids] * weight, 0)
            return points if total is None else total + points

        if own or not self._ignore_existing:
            for carrier in snapshot.counters.carriers(cls):
                weight = self._weight(carrier.kind, carrier.weight)
                if carrier.total and weight:
                    key = carrier.term.topology_key
                    total = add(carrier.by_domain(snapshot.label(key)), key, weight)
        for sign, terms in ((1, cls.preferred_affinity), (-1, cls.preferred_anti_affinity)):
            for weight, term in terms:
                counter = snapshot.counters.of_terms((term,))
                if counter.total:
                    total = add(counter.by_domain(snapshot.label(term.topology_key)), term.topology_key, sign * weight)
        return total

    def _weight(self, kind: str, weight: int) -> int:
        match kind:
            case "required":
                return int(self._hard_weight)
            case "preferred":
                return weight
            case "preferred-anti":
                return -weight
        return 0

    def normalize(self, cycle: Cycle, scores: Ints) -> Ints:
        low, high = int(scores.min()), int(scores.max())
        if high == low:
            return np.zeros_like(scores)
        return (MAX_SCORE * ((scores - low) / (high - low))).astype(np.int64)

    def events(self) -> list[EventWithHint]:
        changes = Action.ADD | Action.DELETE | Action.UPDATE_POD_LABEL
        return [
            on("AssignedPod", changes, _concerns),
            on("UnscheduledPod", Action.UPDATE_POD_LABEL, lambda pod, _, new: _is(pod, new)),
            on("Node", Action.ADD | Action.UPDATE_NODE_LABEL),
        ]


def _is(pod: PodInfo, new: Any) -> bool:
    return new is not None and new["metadata"].get("uid") == pod.uid


def _matches_all(cls: PodClass, terms: tuple[Term, ...], namespace_labels: dict[str, str]) -> bool:
    return all(t.matches(cls.namespace, cls.labels, namespace_labels) for t in terms)


def _concerns(pod: PodInfo, old: Any, new: Any) -> bool:
    """Whether a pod that came, went or was relabelled may change what the rejected pod's rules say."""
    for other in (old, new):
        if other is None:
            continue
        meta = other["metadata"]
        namespace, labels = meta.get("namespace") or "", meta.get("labels") or {}
        terms = pod.cls.affinity + pod.cls.anti_affinity
        # a namespaceSelector may match whatever the namespace's labels are: then ask the scheduler to look again
        if any((namespace in t.namespaces or not t.namespaces) and t.selector.matches(labels) for t in terms):
            return True
        if new is None and ((other["spec"].get("affinity") or {}).get("podAntiAffinity")):
            return True
    return False
