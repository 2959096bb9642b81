"""Time as a dependency. Nothing in Berg reads the wall clock or sleeps except through a `Clock`.

`RealClock` is the machine's. `FakeClock` stands still until a test calls `advance()`, which wakes sleepers in
the order of their deadlines and lets each run before the next one wakes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall time, always aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeClock:
    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ids = itertools.count()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._ids), woken))
        await woken

    async def advance(self, seconds: float, *, settle: int = 20) -> None:
        """Moves time on; after each wake-up the loop runs `settle` turns so that what woke can act."""
        target = self._elapsed + seconds
        for _ in range(settle):
            await asyncio.sleep(0)
        while self._sleepers and self._sleepers[0][0] <= target:
            deadline, _, woken = heapq.heappop(self._sleepers)
            self._elapsed = max(self._elapsed, deadline)
            if not woken.done():
                woken.set_result(None)
            for _ in range(settle):
                await asyncio.sleep(0)
        self._elapsed = target


def rfc3339(t: datetime) -> str:
    """`metav1.Time` on the wire: seconds, UTC, `Z`."""
    if t.tzinfo is not UTC:
        t = t.astimezone(UTC)
    return t.isoformat()[:19] + "Z"


def rfc3339_micro(t: datetime) -> str:
    """`metav1.MicroTime` on the wire."""
    return t.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """Raises ValueError on anything that is not RFC 3339. Nanoseconds are cut to microseconds."""
    t = datetime.fromisoformat(_cut_fraction(text))
    if t.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    return t.astimezone(UTC)


def _cut_fraction(text: str) -> str:
    head, dot, tail = text.partition(".")
    if not dot:
        return text
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[:digits][:6].ljust(6, '0')}{tail[digits:]}"
