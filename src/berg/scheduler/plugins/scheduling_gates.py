"""SchedulingGates: a pod with gates is not looked at until they are gone. Source: KEP-3521."""

from __future__ import annotations

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import PreEnqueue
from berg.scheduler.framework.status import Status, unresolvable
from berg.scheduler.state.podinfo import PodInfo


class SchedulingGates(PreEnqueue):
    name = "SchedulingGates"

    def pre_enqueue(self, pod: PodInfo) -> Status | None:
        gates = pod.obj["spec"].get("schedulingGates")
        if not gates:
            return None
        return unresolvable(f"waiting for scheduling gates: [{' '.join(g['name'] for g in gates)}]")

    def events(self) -> list[EventWithHint]:
        return [
            on(
                "UnscheduledPod",
                Action.UPDATE_POD_GATES,
                lambda pod, _, new: new is not None and new["metadata"].get("uid") == pod.uid,
            )
        ]
