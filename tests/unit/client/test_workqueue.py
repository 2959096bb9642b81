import asyncio

import pytest

from berg.client.workqueue import Backoff, WorkQueue
from berg.machinery.clock import FakeClock


async def test_a_key_added_twice_is_handed_out_once():
    q: WorkQueue[str] = WorkQueue(FakeClock())
    q.add("a")
    q.add("b")
    q.add("a")
    assert [await q.get(), await q.get()] == ["a", "b"]
    assert len(q) == 0


async def test_a_key_is_never_with_two_workers():
    q: WorkQueue[str] = WorkQueue(FakeClock())
    q.add("a")
    assert await q.get() == "a"
    q.add("a")
    assert len(q) == 0
    q.done("a")
    assert await q.get() == "a"
    q.done("a")
    assert len(q) == 0


async def test_shut_down_drains_then_gives_none():
    q: WorkQueue[str] = WorkQueue(FakeClock())
    q.add("a")
    waiting = [asyncio.create_task(q.get()) for _ in range(3)]
    await asyncio.sleep(0)
    q.shut_down()
    assert sorted(await asyncio.gather(*waiting), key=str) == ["None", "a"] or [w.result() for w in waiting] == [
        "a",
        None,
        None,
    ]
    q.add("b")
    assert await q.get() is None


async def test_of_several_waits_the_shortest_counts():
    clock = FakeClock()
    q: WorkQueue[str] = WorkQueue(clock)
    q.add_after("a", 10)
    q.add_after("a", 2)
    q.add_after("a", 5)
    q.add_after("b", 3)
    await clock.advance(1)
    assert len(q) == 0
    await clock.advance(1)
    assert await q.get() == "a"
    q.done("a")
    await clock.advance(20)
    assert await q.get() == "b"
    assert len(q) == 0


async def test_a_cancelled_getter_loses_nothing():
    q: WorkQueue[str] = WorkQueue(FakeClock())
    first = asyncio.create_task(q.get())
    second = asyncio.create_task(q.get())
    await asyncio.sleep(0)
    q.add("a")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await asyncio.wait_for(second, 1) == "a"


def test_failures_wait_exponentially_and_forget_resets():
    clock = FakeClock()
    b: Backoff[str] = Backoff(clock)
    assert [b.when("a") for _ in range(4)] == pytest.approx([0.005, 0.01, 0.02, 0.04])
    b.forget("a")
    assert b.when("a") == pytest.approx(0.005)
    for _ in range(100):
        b.when("a")
    assert b.when("a") == 1000.0


def test_the_bucket_holds_back_many_different_keys():
    b: Backoff[str] = Backoff(FakeClock())
    delays = [b.when(f"k{i}") for i in range(120)]
    assert delays[99] == pytest.approx(0.005)
    assert delays[119] == pytest.approx(2.0)
