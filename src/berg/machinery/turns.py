"""Long evaluations beside the event loop.

Most expressions cost microseconds and are evaluated where they are met. Others may cost as much as the limits let
them, which is seconds. So work that evaluates expressions is begun on the loop with a small allowance; what does not
come to its end within that is begun again in a thread that shares the interpreter with the loop in short turns, so
that the loop goes on answering. There is a lane for what takes a while and one for what takes long: the former never
waits for the latter.

The work must do nothing but find its result: it may run up to three times. A wrong guess costs what the allowance
before was, a small part of what follows.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Executor

T = TypeVar("T")

ON_THE_LOOP = 4_000
"""what may be spent on the loop: some 4 ms"""
_A_WHILE = 200_000
_THREADS = 2
"""in each lane"""
_SWITCH_INTERVAL_S = 0.0005
"""the longest that the loop waits for the interpreter while a lane is busy"""


class TooLong(BaseException):
    """The allowance is spent. No Exception: nothing on the way may take it for a fault of the expression."""


class Allowance:
    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


allowance: ContextVar[Allowance | None] = ContextVar("allowance", default=None)
"""of the work under way; None: as much as the expression's own limits"""
_lane = threading.local()


async def taken(work: Callable[[], T]) -> T:
    """What `work` gives. Raises what it raises."""
    token = allowance.set(Allowance(ON_THE_LOOP))
    try:
        return work()
    except TooLong:
        pass
    finally:
        allowance.reset(token)
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(_threads("a while"), partial(_turn, loop, work, _A_WHILE))
    except TooLong:
        return await loop.run_in_executor(_threads("long"), partial(_turn, loop, work, None))


def on_loop(call: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
    """From within work that has a thread of its own: what the coroutine gives, run by the loop. None on the loop."""
    loop: asyncio.AbstractEventLoop | None = getattr(_lane, "loop", None)
    return asyncio.run_coroutine_threadsafe(call(), loop).result() if loop is not None else None


def _turn(loop: asyncio.AbstractEventLoop, work: Callable[[], T], left: int | None) -> T:
    _lane.loop = loop
    token = allowance.set(Allowance(left) if left is not None else None)
    _busy.enter()
    try:
        return work()
    finally:
        _busy.leave()
        allowance.reset(token)
        _lane.loop = None


class _Busy:
    """While any lane works, the interpreter changes threads often."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes = 0
        self._usual = 0.0

    def enter(self) -> None:
        with self._lock:
            self._lanes += 1
            if self._lanes == 1:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(_SWITCH_INTERVAL_S)

    def leave(self) -> None:
        with self._lock:
            self._lanes -= 1
            if not self._lanes:
                sys.setswitchinterval(self._usual)


_busy = _Busy()


@cache
def _threads(lane: str) -> Executor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(_THREADS, thread_name_prefix=f"expressions that take {lane}")
