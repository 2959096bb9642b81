"""PrioritySort: the higher priority first, then who came first."""

from __future__ import annotations

from typing import Any

from berg.scheduler.framework.interface import QueueSort
from berg.scheduler.state.podinfo import PodInfo


class PrioritySort(QueueSort):
    name = "PrioritySort"

    def sort_key(self, pod: PodInfo, timestamp: float) -> Any:
        return (-pod.cls.priority, timestamp)
