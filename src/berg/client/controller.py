"""The canonical loop: run → worker → reconcile(key).

A controller names the informers it reads and says in `reconcile` what it does for one key. It never blocks, keeps
no truth of its own and may run twice without harm. Whether a failure is tried again is decided here and nowhere
else: a key that failed comes back with growing delay, at most `max_retries` times where that is set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from berg.client.workqueue import WorkQueue
from berg.machinery.clock import Clock
from berg.machinery.status import ApiError
from berg.machinery.tasks import end

log = logging.getLogger(__name__)


class Loop:
    """One queue and its workers. A controller has one or a few."""

    def __init__(
        self,
        name: str,
        queue: WorkQueue[str],
        reconcile: Callable[[str], Awaitable[None]],
        *,
        workers: int = 5,
        max_retries: int | None = None,
    ) -> None:
        self.name, self.queue, self.workers, self.max_retries = name, queue, workers, max_retries
        self._reconcile = reconcile
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._work(), name=f"{self.name} worker {i}") for i in range(self.workers)]

    async def stop(self) -> None:
        self.queue.shut_down()
        await end(*self._tasks)
        self._tasks = []

    async def _work(self) -> None:
        while (key := await self.queue.get()) is not None:
            try:
                await self.process(key)
            finally:
                self.queue.done(key)

    async def process(self, key: str) -> None:
        try:
            await self._reconcile(key)
        except asyncio.CancelledError:
            raise
        except Exception as e:
            if isinstance(e, ApiError):
                # The informer is behind: the object changed, exists or is gone already. That is routine.
                level = logging.DEBUG if e.reason in ("Conflict", "AlreadyExists", "NotFound") else logging.WARNING
                log.log(level, "%s: %s: %s", self.name, key, e.message)
            else:
                log.exception("%s: %s", self.name, key)
            if self.max_retries is None or self.queue.retries(key) < self.max_retries:
                self.queue.add_rate_limited(key)
            else:
                log.warning("%s: %s is given up after %d attempts", self.name, key, self.max_retries)
                self.queue.forget(key)
        else:
            self.queue.forget(key)


class Controller:
    """Subclasses set `name`, register their handlers in `__init__`, and write `reconcile`."""

    name = ""
    workers = 5
    max_retries: int | None = None

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.queue: WorkQueue[str] = WorkQueue(clock)
        self.loops = [Loop(self.name, self.queue, self.reconcile, workers=self.workers, max_retries=self.max_retries)]
        self._tasks: set[asyncio.Task[None]] = set()

    async def reconcile(self, key: str) -> None:
        raise NotImplementedError

    def add_loop(self, reconcile: Callable[[str], Awaitable[None]], *, workers: int = 1) -> WorkQueue[str]:
        """A second queue with workers of its own."""
        queue: WorkQueue[str] = WorkQueue(self.clock)
        self.loops.append(Loop(self.name, queue, reconcile, workers=workers, max_retries=self.max_retries))
        return queue

    async def start(self) -> None:
        """The informers are synced when this is called."""
        for loop in self.loops:
            loop.start()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for loop in self.loops:
            await loop.stop()

    def spawn(self, work: Awaitable[None], name: str = "") -> None:
        """A task that lives no longer than the controller."""

        async def run() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("%s: %s", self.name, name)

        task = asyncio.get_running_loop().create_task(run(), name=f"{self.name} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
