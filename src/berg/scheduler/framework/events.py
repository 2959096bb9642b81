"""What happens in the cluster, as the queue and the plugins' hints see it.

Source: k8s.io/kube-scheduler framework/types.go (ActionType, ClusterEvent, ClusterEventWithHint).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

from berg.scheduler.state.podinfo import PodInfo

Obj = dict[str, Any]


class Action(IntFlag):
    ADD = 1
    DELETE = 2
    UPDATE_NODE_ALLOCATABLE = 4
    UPDATE_NODE_LABEL = 8
    UPDATE_NODE_TAINT = 16
    UPDATE_NODE_CONDITION = 32
    UPDATE_NODE_ANNOTATION = 64
    UPDATE_POD_LABEL = 128
    UPDATE_POD_SCALE_DOWN = 256
    UPDATE_POD_TOLERATION = 512
    UPDATE_POD_GATES = 1024
    UPDATE_OTHER = 2048
    UPDATE_NODE_DECLARED_FEATURE = 4096
    UPDATE = 4 | 8 | 16 | 32 | 64 | 128 | 256 | 512 | 1024 | 2048 | 4096
    ALL = 8191


Hint = Callable[[PodInfo, Obj | None, Obj | None], bool]
"""(rejected pod, old object, new object) → is it worth trying again"""


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """`resource` is a kind: Node, Pod (any pod), AssignedPod, UnscheduledPod, PersistentVolume, …; or `*`."""

    resource: str
    action: Action

    @property
    def label(self) -> str:
        """As metrics call it: NodeAdd, AssignedPodDelete; of several updates at once, NodeUpdate."""
        name = self.action.name or ""
        words = "Update" if not name or "|" in name else "".join(word.capitalize() for word in name.split("_"))
        return f"{self.resource}{words}"

    def matches(self, happened: ClusterEvent) -> bool:
        same = self.resource in ("*", happened.resource)
        a_pod = self.resource == "Pod" and happened.resource in ("AssignedPod", "UnscheduledPod")
        return (same or a_pod) and bool(self.action & happened.action)


@dataclass(frozen=True, slots=True)
class EventWithHint:
    event: ClusterEvent
    hint: Hint | None = None
    """None: always worth it"""


def on(resource: str, action: Action, hint: Hint | None = None) -> EventWithHint:
    return EventWithHint(ClusterEvent(resource, action), hint)
