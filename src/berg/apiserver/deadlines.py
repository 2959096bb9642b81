"""`--request-timeout`: what is no stream is answered within it, or with 504.

Every request has the same time, so they pass their deadlines in the order in which they began: one timer, for the
oldest of them, serves all. A request costs two changes of a dict.

Source: k8s.io/apiserver pkg/server/filters/timeout.go.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from berg.apiserver.http.message import Response

_TOO_LATE = (
    b'{"metadata":{},"status":"Failure","message":"Timeout: request did not complete within the allotted timeout",'
    b'"reason":"Timeout","details":{},"code":504}\n'
)


class Deadlines:
    def __init__(self, seconds: float) -> None:
        """`seconds` 0: no request has one."""
        self.seconds = seconds
        self._running: dict[asyncio.Task[Any], float] = {}
        """the tasks that answer requests, each with its start, the first one first"""
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._now = time.monotonic

    def begin(self) -> asyncio.Task[Any] | None:
        """For the task that runs; to be given back to `end`. None: it has one already, or there are none."""
        task = asyncio.current_task()
        if task is None or not self.seconds or task in self._running:
            return None
        if self._timer is None:
            loop = task.get_loop()
            self._now = loop.time
            self._timer = loop.call_later(self.seconds, self._pass, loop)
        self._running[task] = self._now()
        return task

    def end(self, task: asyncio.Task[Any]) -> None:
        self._running.pop(task, None)
        if self._late:
            self._late.discard(task)

    def was_late(self, task: asyncio.Task[Any]) -> bool:
        """Whether it was cancelled for that; then it goes on, to answer so."""
        if task not in self._late:
            return False
        self._late.discard(task)
        task.uncancel()
        return True

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for task, started in list(self._running.items()):
            if started + self.seconds > now:
                self._timer = loop.call_at(started + self.seconds, self._pass, loop)
                return
            del self._running[task]
            self._late.add(task)
            task.cancel()


def too_late() -> Response:
    return Response(504, _TOO_LATE, "text/plain; charset=utf-8")
