"""Plugins written for one node at a time: plain Python, no arrays.

    class NotOnMondays(NodeFilter):
        name = "NotOnMondays"

        def filter_node(self, cycle, node):
            return unschedulable("it is Monday") if … else None

Found by entry point (`berg.scheduler.plugins`) and enabled by name in a profile. They cost a call for every node that
is asked about, so they are asked last, if the profile lists them last.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from berg.scheduler.framework.interface import Cycle, Filter, Ints, Rows, Scope, Score
from berg.scheduler.framework.status import Status
from berg.scheduler.state.arrays import RowArray
from berg.scheduler.state.podinfo import PodInfo

Obj = dict[str, Any]


def _indices(cycle: Cycle, rows: Rows) -> RowArray:
    return np.arange(cycle.snapshot.capacity) if isinstance(rows, slice) else rows


class NodeFilter(Filter):
    scope: ClassVar[Scope] = Scope.CLUSTER

    def filter_node(self, cycle: Cycle, node: Obj) -> Status | None:
        """None when the pod may go there."""
        raise NotImplementedError

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        indices = _indices(cycle, rows)
        codes = np.zeros(len(indices), dtype=np.int64)
        answers: list[Status] = cycle.data.setdefault(f"{self.name}/answers", [])
        for i, row in enumerate(indices.tolist()):
            node = cycle.snapshot.nodes[row]
            if node is not None and (status := self.filter_node(cycle, node)) is not None:
                if status not in answers:
                    answers.append(status)
                codes[i] = answers.index(status) + 1
        return codes

    def explain(self, cycle: Cycle, code: int) -> Status:
        answers: list[Status] = cycle.data[f"{self.name}/answers"]
        return answers[code - 1]


class NodeScore(Score):
    score_scope: ClassVar[Scope] = Scope.CLUSTER

    def score_node(self, cycle: Cycle, node: Obj) -> int:
        """0 to 100, or anything if `normalizes` is set and `normalize` overridden."""
        raise NotImplementedError

    def score(self, cycle: Cycle, rows: Rows) -> Ints | None:
        indices = _indices(cycle, rows).tolist()
        nodes = (cycle.snapshot.nodes[row] for row in indices)
        return np.array([self.score_node(cycle, n) if n is not None else 0 for n in nodes], dtype=np.int64)


def pods_on(cycle: Cycle, node: str) -> list[PodInfo]:
    """The pods on a node, assumed ones too."""
    return list(cycle.snapshot.pods[cycle.snapshot.rows[node]].values())
