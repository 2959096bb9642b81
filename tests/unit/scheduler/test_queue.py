"""The scheduling queue: order, backoff, hints, gates."""

from __future__ import annotations

import pytest

from berg.machinery.clock import FakeClock
from berg.scheduler.framework.events import Action, ClusterEvent
from berg.scheduler.queue import QueuedPod, SchedulingQueue
from berg.scheduler.state.podinfo import PodInfo

from .objects import Core, node, pod

NODE_ADDED = ClusterEvent("Node", Action.ADD)


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def queue(core: Core) -> SchedulingQueue:
    return SchedulingQueue({"default-scheduler": core.profile}, core.clock)


def take(queue: SchedulingQueue) -> QueuedPod:
    q = queue.pop()
    assert q is not None
    return q


def reject(queue: SchedulingQueue, q: QueuedPod, *by: str, error: bool = False) -> None:
    queue.retry(q, by, error=error)
    queue.done(q.pod.uid)


def add(core: Core, queue: SchedulingQueue, name: str, **spec: object) -> PodInfo:
    info = core.parser.parse(pod(name, **spec))
    queue.add(info)
    return info


async def test_priority_then_age(core: Core, queue: SchedulingQueue) -> None:
    add(core, queue, "a")
    await core.clock.advance(1)
    add(core, queue, "b")
    add(core, queue, "c", priority=10)
    assert [take(queue).pod.name for _ in range(3)] == ["c", "a", "b"]
    assert queue.pop() is None


async def test_unschedulable_waits_for_an_event_that_helps(core: Core, queue: SchedulingQueue) -> None:
    add(core, queue, "a", cpu="2")
    reject(queue, take(queue), "NodeResourcesFit")
    assert queue.pop() is None
    queue.happened(NODE_ADDED, None, node("small", cpu="1"))
    assert queue.counts()["unschedulable"] == 1
    await core.clock.advance(2)
    queue.happened(NODE_ADDED, None, node("big", cpu="4"))
    assert take(queue).pod.name == "a"


async def test_an_event_while_in_flight_is_not_missed(core: Core, queue: SchedulingQueue) -> None:
    add(core, queue, "a", cpu="2")
    q = take(queue)
    queue.happened(NODE_ADDED, None, node("big"))
    reject(queue, q, "NodeResourcesFit")
    assert queue.counts()["backoff"] == 1


async def test_backoff_doubles_up_to_its_maximum(core: Core, queue: SchedulingQueue) -> None:
    add(core, queue, "a")
    waits = []
    for _ in range(6):
        q = take(queue)
        reject(queue, q, error=True)
        waits.append(queue.backoff_s(q))
        assert queue.pop() is None, "an error is not tried again before its time"
        await core.clock.advance(waits[-1])
    assert waits == [1, 2, 4, 8, 10, 10]


async def test_with_nothing_else_to_do_backoff_is_cut_short(core: Core, queue: SchedulingQueue) -> None:
    add(core, queue, "a", cpu="1")
    reject(queue, take(queue), "NodeResourcesFit")
    queue.happened(NODE_ADDED, None, node("n"))
    assert queue.counts()["backoff"] == 1
    assert take(queue).pod.name == "a"


async def test_after_five_minutes_it_is_tried_anyway(core: Core, queue: SchedulingQueue) -> None:
    add(core, queue, "a")
    reject(queue, take(queue), "NodeAffinity")
    await core.clock.advance(299)
    assert queue.pop() is None
    await core.clock.advance(2)
    assert take(queue).pod.name == "a"


async def test_gates_hold_until_they_are_gone(core: Core, queue: SchedulingQueue) -> None:
    obj = pod("a", schedulingGates=[{"name": "x"}, {"name": "y"}])
    queue.add(core.parser.parse(obj))
    assert queue.pop() is None
    held = queue.get(obj["metadata"]["uid"])
    assert held is not None and held.gated is not None
    assert held.gated.message == "waiting for scheduling gates: [x y]"
    free = {**obj, "spec": {**obj["spec"], "schedulingGates": []}}
    queue.update(core.parser.parse(free))
    assert take(queue).pod.name == "a"


async def test_deleted_pods_are_gone_wherever_they_were(core: Core, queue: SchedulingQueue) -> None:
    waiting = add(core, queue, "a")
    flying = add(core, queue, "b")
    queue.delete(waiting.uid)
    q = take(queue)
    assert q.pod is flying
    queue.delete(flying.uid)
    reject(queue, q, "NodeAffinity")
    assert len(queue) == 0 and queue.pop() is None


def test_clock_is_injected() -> None:
    assert isinstance(Core().clock, FakeClock)
