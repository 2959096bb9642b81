"""NodeResourcesBalancedAllocation: prefers nodes whose resources the pod uses up evenly."""

from __future__ import annotations

from typing import Any

from berg.scheduler.framework.interface import Cycle, Ints, Rows, Scope, Score
from berg.scheduler.plugins.resource_scores import balanced_score, requested_of
from berg.scheduler.state.podinfo import PodClass

Obj = dict[str, Any]


class NodeResourcesBalancedAllocation(Score):
    name = "NodeResourcesBalancedAllocation"
    score_scope = Scope.PODS

    def __init__(self, args: Obj, handle: Any) -> None:
        super().__init__(args, handle)
        self._resources = [r["name"] for r in args.get("resources") or ({"name": "cpu"}, {"name": "memory"})]

    def scores_for(self, cls: PodClass) -> bool:
        """Not for pods that request nothing: they would all be drawn to the same node."""
        return any(requested_of(cls, name) for name in self._resources)

    def score(self, cycle: Cycle, rows: Rows) -> Ints | None:
        return balanced_score(cycle, rows, self._resources)
