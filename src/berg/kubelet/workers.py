"""Pod workers: one for each pod UID, which carries the pod through syncing → terminating → terminated.

A worker runs one step at a time. It is woken by `wake` (a new spec, an event of the runtime, a probe) and by its
own timer after a failure. Once a pod is told to terminate it never goes back. A request to terminate interrupts a
sync that is under way; a shorter grace period interrupts the killing and starts it again with less time.

The steps themselves are the `Syncer`'s; this file holds only the order of things.

Source: pkg/kubelet/pod_workers.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from berg.kubelet import pod as p
from berg.kubelet.start_errors import SyncError
from berg.machinery.clock import Clock
from berg.machinery.status import ApiError, Obj
from berg.machinery.tasks import end
from berg.runtime.cri import CRIError

log = logging.getLogger(__name__)

BACK_OFF_S = 10.0
TRANSIENT_BACK_OFF_S = 1.0
MAX_PAUSE_S = 60.0


class Syncer(Protocol):
    """The three steps. Each may be cancelled, and is called again until it returns."""

    async def sync(self, pod: Obj) -> bool:
        """True when the pod has come to its end by itself. Raises SyncError to be called again."""
        ...

    async def sync_terminating(
        self, pod: Obj, grace_override_s: int | None, change: Callable[[Obj], Obj] | None
    ) -> None: ...

    async def sync_terminated(self, pod: Obj) -> None: ...

    async def sync_terminating_runtime(self, uid: str) -> None:
        """Of a pod that the runtime runs and nobody knows."""
        ...


@dataclass(slots=True)
class Kill:
    """A request from inside (eviction, preemption): `change` is applied to the pod's status."""

    grace_override_s: int | None = None
    change: Callable[[Obj], Obj] | None = None
    evict: bool = False


class PodWorker:
    def __init__(self, uid: str, pod: Obj | None, syncer: Syncer, clock: Clock, done: Callable[[str], None]) -> None:
        self.uid = uid
        self.pod = pod
        self.terminating = False
        self.terminated = False
        self.finished = False
        self.evicted = False
        self.deleted = False
        """The source no longer has the pod."""
        self._syncer = syncer
        self._clock = clock
        self._done = done
        self._grace_s: int | None = None
        self._change: Callable[[Obj], Obj] | None = None
        self._wake = asyncio.Event()
        self._step: asyncio.Task[bool] | None = None
        self._interruptible = False
        self.finished_event = asyncio.Event()
        self._task = asyncio.ensure_future(self._run())

    # -- what others ask

    def wake(self) -> None:
        self._wake.set()

    def update(self, pod: Obj) -> None:
        self.pod = pod
        if p.deletion_requested(pod):
            self._terminate(Kill(p.grace_period_s(pod) if self.terminating else None))
        elif p.is_terminal_phase(p.phase(pod)) and not p.is_static(pod):
            self._terminate(Kill())
        self.wake()

    def remove(self) -> None:
        """The source no longer has it (forced deletion, a static file that went)."""
        self.deleted = True
        self._terminate(Kill())
        self.wake()

    def kill(self, kill: Kill) -> None:
        self.evicted = self.evicted or kill.evict
        self._terminate(kill)
        self.wake()

    def _terminate(self, kill: Kill) -> None:
        if kill.change is not None:
            self._change = kill.change
        first = not self.terminating
        self.terminating = True
        shortened = kill.grace_override_s is not None and (
            self._grace_s is None or kill.grace_override_s < self._grace_s
        )
        if first:
            self._grace_s = kill.grace_override_s
            if self._grace_s is None and self.pod is not None and self.pod["metadata"].get("deletionTimestamp"):
                self._grace_s = p.grace_period_s(self.pod)
            self._explicit = kill.grace_override_s is not None
        elif shortened:
            self._grace_s = kill.grace_override_s
            self._explicit = True
        if (first or shortened) and not self.terminated and self._step is not None:
            self._step.cancel()

    _explicit = False

    async def stop(self) -> None:
        """Lets go of the pod without touching it."""
        await end(self._task)

    # -- the loop

    async def _run(self) -> None:
        while not self.finished:
            self._wake.clear()
            pause = await self._one_step()
            if pause is not None:
                await self._wait(pause)
        self.finished_event.set()
        self._done(self.uid)

    async def _one_step(self) -> float | None:
        """How long to wait before the next step (infinite: until woken), or None to go on at once."""
        self._step = asyncio.ensure_future(self._work())
        try:
            return None if await self._step else float("inf")
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                await end(self._step)
                raise
            return None  # interrupted: something more important is to be done
        except SyncError as e:
            log.info("pod %s: %s", self._name, e)
            if e.retry_at is not None:
                return min(max(e.retry_at - self._clock.now().timestamp(), 0.0), MAX_PAUSE_S)
            return TRANSIENT_BACK_OFF_S if e.transient else BACK_OFF_S
        except (CRIError, ApiError, OSError) as e:
            log.warning("pod %s: %s", self._name, e)
            return TRANSIENT_BACK_OFF_S
        except Exception:
            log.exception("pod %s", self._name)
            return BACK_OFF_S
        finally:
            self._step = None

    @property
    def _name(self) -> str:
        return p.show(self.pod) if self.pod is not None else self.uid

    async def _work(self) -> bool:
        """True when the next step is due at once."""
        if self.pod is None:
            await self._syncer.sync_terminating_runtime(self.uid)
            self.terminated = self.finished = True
            return True
        if self.terminated:
            await self._syncer.sync_terminated(self.pod)
            self.finished = True
            return True
        if self.terminating:
            grace = self._grace_s if self._explicit else None
            await self._syncer.sync_terminating(self.pod, grace, self._change)
            self.terminated = True
            return True
        if await self._syncer.sync(self.pod):
            self._step = None  # not to be interrupted by what it found out itself
            self._terminate(Kill())
            return True
        return False

    async def _wait(self, seconds: float) -> None:
        if seconds == float("inf"):
            await self._wake.wait()
            return
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for w in waits:
                w.cancel()


class PodWorkers:
    """All workers of the node, by UID."""

    def __init__(self, syncer: Syncer, clock: Clock) -> None:
        self._syncer = syncer
        self._clock = clock
        self._workers: dict[str, PodWorker] = {}
        self.on_finished: Callable[[str], None] = lambda uid: None

    def get(self, uid: str) -> PodWorker | None:
        return self._workers.get(uid)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(list(self._workers.values()))

    def update(self, pod: Obj) -> PodWorker:
        worker = self._workers.get(p.uid(pod))
        if worker is None:
            worker = self._workers[p.uid(pod)] = self._make(p.uid(pod), pod)
        if worker.finished:
            worker.pod = pod
        else:
            worker.update(pod)
        return worker

    def orphan(self, uid: str) -> PodWorker:
        """A pod that runs and that no source knows."""
        worker = self._workers.get(uid)
        if worker is None:
            worker = self._workers[uid] = self._make(uid, None)
            worker.deleted = worker.terminating = True
        return worker

    def _make(self, uid: str, pod: Obj | None) -> PodWorker:
        return PodWorker(uid, pod, self._syncer, self._clock, self._finished)

    def _finished(self, uid: str) -> None:
        self.on_finished(uid)

    def wake(self, uid: str) -> None:
        if (worker := self._workers.get(uid)) is not None:
            worker.wake()

    def drop(self, uid: str) -> None:
        """Of a worker that has finished and whose pod is gone from its source."""
        self._workers.pop(uid, None)

    async def stop(self) -> None:
        await asyncio.gather(*(w.stop() for w in self._workers.values()))
        self._workers.clear()
