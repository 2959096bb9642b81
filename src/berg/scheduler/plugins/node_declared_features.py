"""NodeDeclaredFeatures: a pod that needs what only newer kubelets can do goes to nodes that say they can.

Nodes declare in `status.declaredFeatures`. What a pod needs is inferred from its spec. Source: KEP-5328.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, Rows, Scope
from berg.scheduler.framework.status import Status, unresolvable
from berg.scheduler.state.podinfo import PodClass, PodInfo

Obj = dict[str, Any]
REASON = "node(s) didn't match Pod's required features"


class NodeDeclaredFeatures(Filter):
    name = "NodeDeclaredFeatures"
    scope = Scope.NODE

    def applies(self, cls: PodClass) -> bool:
        return bool(cls.features)

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        nodes = cycle.snapshot.nodes
        indices = range(len(nodes)) if isinstance(rows, slice) else rows.tolist()
        return np.array([not _has(nodes[i], cycle.cls) for i in indices], dtype=np.int64)

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unresolvable(REASON)

    def events(self) -> list[EventWithHint]:
        return [on("Node", Action.ADD | Action.UPDATE_NODE_DECLARED_FEATURE, _can_now)]


def _has(node: Obj | None, cls: PodClass) -> bool:
    declared = ((node or {}).get("status") or {}).get("declaredFeatures") or ()
    return all(f in declared for f in cls.features)


def _can_now(pod: PodInfo, old: Any, new: Any) -> bool:
    return _has(new, pod.cls) and not (old is not None and _has(old, pod.cls))
