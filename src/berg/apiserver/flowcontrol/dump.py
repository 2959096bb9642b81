"""`/debug/api_priority_and_fairness/…`: levels, queues and waiting requests as tables, for people.

Source: k8s.io/apiserver pkg/util/flowcontrol/apf_controller_debug.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from berg.apiserver.http.message import Request, Response

if TYPE_CHECKING:
    from berg.apiserver.flowcontrol.control import FlowControl

_ROOT = "/debug/api_priority_and_fairness"
Row = Sequence[object]


def answers(control: FlowControl) -> dict[str, Callable[[Request], Response]]:
    return {
        f"{_ROOT}/dump_priority_levels": partial(_answer, _LEVELS, partial(_levels, control)),
        f"{_ROOT}/dump_queues": partial(_answer, _QUEUES, partial(_queues, control)),
        f"{_ROOT}/dump_requests": partial(_answer, _REQUESTS, partial(_requests, control)),
    }


def _answer(columns: str, rows: Callable[[], Iterable[Row]], request: Request) -> Response:
    table = [columns.split(), *([str(cell) for cell in row] for row in rows())]
    widths = [max(len(row[i]) for row in table) + 2 for i in range(len(table[0]))]
    last = len(widths) - 1
    lines = [
        "".join(cell if i == last else f"{cell},".ljust(widths[i]) for i, cell in enumerate(row)) + "\n"
        for row in table
    ]
    return Response(200, "".join(lines).encode(), "text/plain; charset=utf-8", {"X-Content-Type-Options": "nosniff"})


_LEVELS = (
    "PriorityLevelName ActiveQueues IsIdle IsQuiescing WaitingRequests ExecutingRequests DispatchedRequests "
    "RejectedRequests TimedoutRequests CancelledRequests"
)
_QUEUES = "PriorityLevelName Index PendingRequests"
_REQUESTS = "PriorityLevelName QueueIndex RequestIndexInQueue InitialSeats"


def _levels(control: FlowControl) -> Iterable[Row]:
    for level in sorted(control.current(), key=lambda level: level.name):
        active = sum(1 for queue in level.queues if queue.waiting)
        idle = "true" if not level.executing and not level.waiting else "false"
        timed_out = level.rejected.get("time-out", 0)
        refused = sum(level.rejected.values()) - timed_out
        yield (
            level.name, active, idle, "false", level.waiting, level.executing, level.dispatched, refused, timed_out,
            level.rejected.get("cancelled", 0),
        )  # fmt: skip


def _queues(control: FlowControl) -> Iterable[Row]:
    for level in control.current():
        for index, queue in enumerate(level.queues):
            yield level.name, index, len(queue.waiting)


def _requests(control: FlowControl) -> Iterable[Row]:
    for level in control.current():
        for index, queue in enumerate(level.queues):
            for position, (width, _) in enumerate(queue.waiting):
                yield level.name, index, position, width
