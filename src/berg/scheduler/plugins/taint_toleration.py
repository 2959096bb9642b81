"""TaintToleration: a node's taints must be tolerated; PreferNoSchedule ones are avoided where possible.

Nodes share few distinct lists of taints, so tolerations are tried once for each list.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, Rows, Scope, Score, default_normalize
from berg.scheduler.framework.status import Status, unresolvable
from berg.scheduler.state.podinfo import PodClass, PodInfo, Taint

REASON = "node(s) had untolerated taint(s)"
HARD = ("NoSchedule", "NoExecute")


class TaintToleration(Filter, Score):
    name = "TaintToleration"
    scope = Scope.NODE
    score_scope = Scope.NODE
    normalizes = True

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        lists = cycle.snapshot.taint_lists
        if len(lists) == 1:
            return None
        table = np.array([untolerated(cycle.cls, taints) for taints in lists], dtype=np.int64)
        return table[cycle.snapshot.taints[rows]]

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unresolvable(REASON)

    def score(self, cycle: Cycle, rows: Rows) -> Ints | None:
        lists = cycle.snapshot.taint_lists
        if len(lists) == 1:
            return None
        table = np.array([_disliked(cycle.cls, taints) for taints in lists], dtype=np.int64)
        return table[cycle.snapshot.taints[rows]]

    def normalize(self, cycle: Cycle, scores: Ints) -> Ints:
        return default_normalize(scores, reverse=True)

    def events(self) -> list[EventWithHint]:
        return [
            on("Node", Action.ADD | Action.UPDATE_NODE_TAINT, _tolerable_now),
            on(
                "Pod",
                Action.UPDATE_POD_TOLERATION,
                lambda pod, _, new: new is not None and new["metadata"].get("uid") == pod.uid,
            ),
        ]


def untolerated(cls: PodClass, taints: tuple[Taint, ...]) -> bool:
    return any(t.effect in HARD and not cls.tolerates(t) for t in taints)


def _disliked(cls: PodClass, taints: tuple[Taint, ...]) -> int:
    tolerations = [t for t in cls.tolerations if t.effect in ("", "PreferNoSchedule")]
    return sum(
        taint.effect == "PreferNoSchedule" and not any(t.tolerates(taint) for t in tolerations) for taint in taints
    )


def _taints(node: Any) -> tuple[Taint, ...]:
    taints = (node.get("spec") or {}).get("taints") or ()
    return tuple(Taint(t.get("key", ""), t.get("value") or "", t.get("effect", "")) for t in taints)


def _tolerable_now(pod: PodInfo, old: Any, new: Any) -> bool:
    if new is None or untolerated(pod.cls, _taints(new)):
        return False
    return old is None or untolerated(pod.cls, _taints(old))
