"""NodeUnschedulable: cordoned nodes take only pods that tolerate the cordon's taint."""

from __future__ import annotations

from typing import Any

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, Rows, Scope
from berg.scheduler.framework.status import Status, unresolvable
from berg.scheduler.state.podinfo import PodClass, PodInfo, Taint

CORDON = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
REASON = "node(s) were unschedulable"


class NodeUnschedulable(Filter):
    name = "NodeUnschedulable"
    scope = Scope.NODE

    def applies(self, cls: PodClass) -> bool:
        return not cls.tolerates(CORDON)

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        return cycle.snapshot.unschedulable[rows].astype("int64")

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unresolvable(REASON)

    def events(self) -> list[EventWithHint]:
        return [
            on("Node", Action.ADD | Action.UPDATE_NODE_TAINT, _uncordoned),
            on("Pod", Action.UPDATE_POD_TOLERATION, lambda pod, _, new: _same(pod, new)),
        ]


def _uncordoned(pod: PodInfo, old: Any, new: Any) -> bool:
    if new is None or (new.get("spec") or {}).get("unschedulable"):
        return False
    return old is None or bool((old.get("spec") or {}).get("unschedulable"))


def _same(pod: PodInfo, new: Any) -> bool:
    return new is not None and new["metadata"].get("uid") == pod.uid
