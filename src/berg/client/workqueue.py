"""The work queue: what every control loop takes its keys from.

Guarantees, client-go's own:
- fair: keys are handed out in the order in which they came;
- stingy: a key added many times before it is taken is handed out once;
- one worker per key: a key added while it is being processed is handed out again only after `done`;
- shutting down: `get` gives what is queued, then None.

Not promised: that a key is handed out once per `add`.

Three structures hold this: `_queue` is the order, `_dirty` is what needs processing, `_processing` is what is
being processed. A key in both `_dirty` and `_processing` is not in `_queue`; `done` puts it there.

`add_after` and `add_rate_limited` put a key on a heap that one timer serves.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from berg.machinery.clock import Clock, RealClock
from berg.machinery.metrics import Cell, exponential

K = TypeVar("K", bound=Hashable)
SECONDS = exponential(1e-8, 10, 10)


class Backoff(Generic[K]):
    """Exponential delay per key, and at least the delay of one token bucket over all keys.

    Source: client-go util/workqueue DefaultTypedControllerRateLimiter.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        base_s: float = 0.005,
        max_s: float = 1000.0,
        bucket_qps: float = 10.0,
        bucket_burst: int = 100,
    ) -> None:
        self._clock = clock
        self.base_s, self.max_s = base_s, max_s
        self._qps, self._burst = bucket_qps, bucket_burst
        self._tokens = float(bucket_burst)
        self._at = clock.monotonic()
        self.failures: dict[K, int] = {}

    def when(self, key: K) -> float:
        """Seconds to wait before the next attempt at `key`; counts this as a failure."""
        failures = self.failures.get(key, 0)
        self.failures[key] = failures + 1
        delay = min(self.base_s * 2.0 ** min(failures, 60), self.max_s)
        if not self._qps:
            return delay
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._qps) - 1
        self._at = now
        return max(delay, -self._tokens / self._qps if self._tokens < 0 else 0.0)

    def forget(self, key: K) -> None:
        self.failures.pop(key, None)


class WorkQueue(Generic[K]):
    def __init__(self, clock: Clock | None = None, backoff: Backoff[K] | None = None) -> None:
        self.clock: Clock = clock or RealClock()
        self.backoff: Backoff[K] = backoff or Backoff(self.clock)
        self._queue: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._getters: deque[asyncio.Future[None]] = deque()
        self._shut_down = False
        self.adds = self.retried = 0
        """how many keys were put in, and how many of these came back after a failure"""
        self.waited, self.worked = Cell(SECONDS), Cell(SECONDS)
        """how long keys were in the queue, and how long they were being processed"""
        self._added: dict[K, float] = {}
        self._started: dict[K, float] = {}
        self._waiting: list[tuple[float, int, K]] = []
        self._deadlines: dict[K, float] = {}
        self._order = itertools.count()
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = float("inf")

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, key: K) -> None:
        if self._shut_down or key in self._dirty:
            return
        self.adds += 1
        self._dirty.add(key)
        self._added.setdefault(key, self.clock.monotonic())
        if key not in self._processing:
            self._push(key)

    def ages_s(self) -> list[float]:
        """How long each key has been in process."""
        now = self.clock.monotonic()
        return [now - started for started in self._started.values()]

    async def get(self) -> K | None:
        """The next key, which `done` must give back; None when the queue is shut down and empty."""
        while not self._queue:
            if self._shut_down:
                return None
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled() and self._queue:
                    self._wake()  # the wake-up was ours; another must have it
                raise
            finally:
                if getter in self._getters:
                    self._getters.remove(getter)
        key = self._queue.popleft()
        self._processing.add(key)
        self._dirty.discard(key)
        now = self._started[key] = self.clock.monotonic()
        self.waited.observe(now - self._added.pop(key, now))
        return key

    def done(self, key: K) -> None:
        self._processing.discard(key)
        if (started := self._started.pop(key, None)) is not None:
            self.worked.observe(self.clock.monotonic() - started)
        if key in self._dirty:
            self._push(key)

    def shut_down(self) -> None:
        """What is queued is still handed out; what waits for its time is dropped."""
        self._shut_down = True
        self._waiting.clear()
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._getters:
            self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Adds `key` when `seconds` have passed; of several waits for one key the shortest counts."""
        if self._shut_down:
            return
        if seconds <= 0:
            self.add(key)
            return
        at = self.clock.monotonic() + seconds
        if (known := self._deadlines.get(key)) is not None and known <= at:
            return
        self._deadlines[key] = at
        heapq.heappush(self._waiting, (at, next(self._order), key))
        self._arm()

    def add_rate_limited(self, key: K) -> None:
        self.retried += 1
        self.add_after(key, self.backoff.when(key))

    def forget(self, key: K) -> None:
        """`key` succeeded, or is given up: its next failure counts as the first."""
        self.backoff.forget(key)

    def retries(self, key: K) -> int:
        return self.backoff.failures.get(key, 0)

    def _push(self, key: K) -> None:
        self._queue.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _arm(self) -> None:
        first = self._waiting[0][0]
        if self._timer is not None and not self._timer.done():
            if self._timer_at <= first:
                return
            self._timer.cancel()
        self._timer_at = first
        self._timer = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        while self._waiting:
            self._timer_at = self._waiting[0][0]
            delay = self._timer_at - self.clock.monotonic()
            if delay > 0:
                await self.clock.sleep(delay)
            now = self.clock.monotonic()
            while self._waiting and self._waiting[0][0] <= now:
                at, _, key = heapq.heappop(self._waiting)
                if self._deadlines.get(key) == at:  # a shorter wait leaves the longer one's entry behind
                    del self._deadlines[key]
                    self.add(key)
        self._timer_at = float("inf")
        self._timer = None
