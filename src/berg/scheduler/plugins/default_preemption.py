"""DefaultPreemption: makes room for a pod by evicting pods of lower priority."""

from __future__ import annotations

from typing import Any

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, PostFilter
from berg.scheduler.framework.status import Status
from berg.scheduler.preemption import preempt


class DefaultPreemption(PostFilter):
    name = "DefaultPreemption"

    def post_filter(self, cycle: Cycle, diagnosis: Any) -> tuple[str | None, Status]:
        return preempt(cycle, diagnosis, self.handle.objects, self.args)

    def events(self) -> list[EventWithHint]:
        return [on("AssignedPod", Action.DELETE)]
