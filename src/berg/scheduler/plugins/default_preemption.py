"""DefaultPreemption: makes room for a pod by evicting pods of lower priority."""

from __future__ import annotations

from typing import Any

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, PostFilter, PreEnqueue
from berg.scheduler.framework.status import Status, unresolvable
from berg.scheduler.preemption import preempt
from berg.scheduler.state.podinfo import PodInfo


class DefaultPreemption(PreEnqueue, PostFilter):
    name = "DefaultPreemption"

    def pre_enqueue(self, pod: PodInfo) -> Status | None:
        """Not while its victims are still being asked to go: it would find them in its place, and take others."""
        under_way = self.handle.preemption_of(pod.uid)
        if under_way is not None and under_way.asking:
            return unresolvable("waiting for the preemption for this pod to be finished")
        return None

    def post_filter(self, cycle: Cycle, diagnosis: Any) -> tuple[str | None, Status]:
        under_way = self.handle.preemption_of(cycle.pod.uid)
        return preempt(cycle, diagnosis, self.handle.objects, self.args, under_way)

    def events(self) -> list[EventWithHint]:
        return [on("AssignedPod", Action.DELETE)]
