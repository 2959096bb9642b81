"""The order of a pod's life, with a syncer that only notes what it is asked for."""

import asyncio

from berg.kubelet.start_errors import SyncError
from berg.kubelet.workers import Kill, PodWorkers
from berg.machinery.clock import FakeClock

from .fakes import pod


class Notes:
    def __init__(self):
        self.calls = []
        self.terminal = False
        self.failures = []
        self.gate: asyncio.Event | None = None
        self.kill_gate: asyncio.Event | None = None

    async def sync(self, pod):
        self.calls.append("sync")
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return self.terminal

    async def sync_terminating(self, pod, grace, change):
        self.calls.append(f"terminating {grace}")
        if self.kill_gate is not None:
            await self.kill_gate.wait()

    async def sync_terminated(self, pod):
        self.calls.append("terminated")

    async def sync_terminating_runtime(self, uid):
        self.calls.append("runtime")


async def settle():
    for _ in range(30):
        await asyncio.sleep(0)


def make():
    notes, clock = Notes(), FakeClock()
    return notes, clock, PodWorkers(notes, clock)


def deleted(one, grace):
    meta = {**one["metadata"], "deletionTimestamp": "t", "deletionGracePeriodSeconds": grace}
    return {**one, "metadata": meta}


async def test_a_pod_is_synced_and_woken():
    notes, _, workers = make()
    workers.update(pod())
    await settle()
    assert notes.calls == ["sync"]
    workers.wake("uid-p")
    await settle()
    assert notes.calls == ["sync", "sync"]
    await workers.stop()


async def test_a_failed_sync_is_tried_again_when_it_is_due():
    notes, clock, workers = make()
    notes.failures = [
        SyncError("x"),
        SyncError("y", retry_at=clock.now().timestamp() + 14),
        SyncError("z", transient=True),
    ]
    workers.update(pod())
    await settle()
    await clock.advance(9.9)
    assert len(notes.calls) == 1
    await clock.advance(0.2)
    assert len(notes.calls) == 2
    await clock.advance(3)
    assert len(notes.calls) == 2
    await clock.advance(1)
    assert len(notes.calls) == 3
    await clock.advance(1)
    assert len(notes.calls) == 4
    await workers.stop()


async def test_a_pod_that_ends_by_itself():
    notes, _, workers = make()
    finished = []
    workers.on_finished = finished.append
    notes.terminal = True
    workers.update(pod())
    await settle()
    assert notes.calls == ["sync", "terminating None", "terminated"]
    assert finished == ["uid-p"]


async def test_deletion_interrupts_a_sync():
    notes, _, workers = make()
    notes.gate = asyncio.Event()
    one = pod()
    workers.update(one)
    await settle()
    workers.update(deleted(one, 30))
    await settle()
    assert notes.calls == ["sync", "terminating None", "terminated"]


async def test_a_shorter_grace_period_starts_the_killing_again():
    notes, _, workers = make()
    notes.kill_gate = asyncio.Event()
    one = pod()
    workers.update(deleted(one, 30))
    await settle()
    workers.update(deleted(one, 30))
    await settle()
    assert notes.calls == ["terminating None"]
    workers.update(deleted(one, 1))
    await settle()
    assert notes.calls == ["terminating None", "terminating 1"]
    notes.kill_gate.set()
    await settle()
    assert notes.calls[-1] == "terminated"


async def test_eviction_has_its_own_grace_period():
    notes, _, workers = make()
    workers.update(pod())
    await settle()
    workers.get("uid-p").kill(Kill(0, evict=True))
    await settle()
    assert notes.calls == ["sync", "terminating 0", "terminated"]


async def test_orphans_are_killed():
    notes, _, workers = make()
    workers.orphan("gone")
    await settle()
    assert notes.calls == ["runtime"]
