"""NodeName: a pod that names its node goes nowhere else."""

from __future__ import annotations

import numpy as np

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, Rows, Scope
from berg.scheduler.framework.status import Status, unresolvable

REASON = "node(s) didn't match the requested node name"


class NodeName(Filter):
    name = "NodeName"
    scope = Scope.CLUSTER  # the name is the pod's own, not its class's

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        wanted = cycle.pod.obj["spec"].get("nodeName")
        if not wanted:
            return None
        other = np.ones(cycle.snapshot.capacity, dtype=np.int64)
        if (row := cycle.snapshot.rows.get(wanted)) is not None:
            other[row] = 0
        return other[rows]

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unresolvable(REASON)

    def events(self) -> list[EventWithHint]:
        return [on("Node", Action.ADD)]
