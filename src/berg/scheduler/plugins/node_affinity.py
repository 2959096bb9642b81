"""NodeAffinity: nodeSelector, required and preferred node affinity, and the profile's added affinity."""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import (
    Cycle,
    Filter,
    Ints,
    PreFilter,
    PreFilterResult,
    Rows,
    Scope,
    Score,
    default_normalize,
)
from berg.scheduler.framework.status import Status, unresolvable
from berg.scheduler.state import nodeselector
from berg.scheduler.state.podinfo import PodClass, PodInfo

Obj = dict[str, Any]
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
REASON = "node(s) didn't match Pod's node affinity/selector"
REASON_ENFORCED = "node(s) didn't match scheduler-enforced node affinity"
REASON_CONFLICT = "pod affinity terms conflict"
_MISMATCH, _ENFORCED = 1, 2


class NodeAffinity(PreFilter, Filter, Score):
    name = "NodeAffinity"
    scope = Scope.NODE
    score_scope = Scope.NODE
    normalizes = True

    def __init__(self, args: Obj, handle: Any) -> None:
        super().__init__(args, handle)
        added = args.get("addedAffinity") or {}
        self._enforced: Obj | None = added.get(REQUIRED)
        self._preferred: list[Obj] = added.get(PREFERRED) or []

    def pre_filter(self, cycle: Cycle) -> PreFilterResult | Status | None:
        terms = (cycle.cls.node_affinity.get(REQUIRED) or {}).get("nodeSelectorTerms")
        if not terms:
            return None
        names: frozenset[str] = frozenset()
        for term in terms:
            asked = [
                frozenset(f.get("values") or ())
                for f in term.get("matchFields") or ()
                if f.get("key") == "metadata.name" and f.get("operator") == "In"
            ]
            if not asked:  # this term alone lets every node in
                return None
            names |= frozenset.intersection(*asked)
        return PreFilterResult(names) if names else unresolvable(REASON_CONFLICT)

    def applies(self, cls: PodClass) -> bool:
        return bool(self._enforced is not None or cls.spec.get("nodeSelector") or REQUIRED in cls.node_affinity)

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        matched = nodeselector.required(cycle.snapshot, cycle.cls.spec, rows)
        codes = np.zeros(nodeselector.count_rows(cycle.snapshot, rows), dtype=np.int64)
        if matched is not None:
            codes[~matched] = _MISMATCH
        if self._enforced is not None:
            codes[~nodeselector.node_selector(cycle.snapshot, self._enforced, rows)] = _ENFORCED
        return codes

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unresolvable(REASON_ENFORCED if code == _ENFORCED else REASON)

    def scores_for(self, cls: PodClass) -> bool:
        return bool(self._preferred or cls.node_affinity.get(PREFERRED))

    def score(self, cycle: Cycle, rows: Rows) -> Ints | None:
        total = np.zeros(nodeselector.count_rows(cycle.snapshot, rows), dtype=np.int64)
        for one in [*self._preferred, *(cycle.cls.node_affinity.get(PREFERRED) or ())]:
            preference = one.get("preference") or {}
            if one.get("weight") and (preference.get("matchExpressions") or preference.get("matchFields")):
                total += one["weight"] * nodeselector.term(cycle.snapshot, preference, rows)
        return total

    def normalize(self, cycle: Cycle, scores: Ints) -> Ints:
        return default_normalize(scores)

    def events(self) -> list[EventWithHint]:
        return [on("Node", Action.ADD | Action.UPDATE_NODE_LABEL, self._matches_now)]

    def _matches_now(self, pod: PodInfo, old: Any, new: Any) -> bool:
        return new is not None and self._accepts(pod, new) and not (old is not None and self._accepts(pod, old))

    def _accepts(self, pod: PodInfo, node: Obj) -> bool:
        labels = node["metadata"].get("labels") or {}
        wanted = pod.cls.spec.get("nodeSelector") or {}
        required = pod.cls.node_affinity.get(REQUIRED)
        return (
            all(labels.get(k) == v for k, v in wanted.items())
            and (required is None or nodeselector.matches_node(required, node))
            and (self._enforced is None or nodeselector.matches_node(self._enforced, node))
        )
