"""Long evaluations leave the loop, and change nothing about what they come to."""

import asyncio
import sys
import threading

import pytest

from berg.machinery import turns
from berg.machinery.cel import CostExceeded, Environment
from berg.machinery.cel.types import DYN

RULE = Environment({"self": DYN}).compile("self.all(a, self.all(b, a + b != -1))")


def evaluated(count, seen=None, **more):
    def work():
        if seen is not None:
            seen.append(threading.current_thread())
        return RULE.evaluate({"self": list(range(count))}, **more)

    return work


async def test_cheap_work_stays():
    seen = []
    assert await turns.taken(evaluated(10, seen)) is True
    assert seen == [threading.current_thread()]


async def test_long_work_goes_and_the_loop_goes_on():
    seen, ticks, usual = [], 0, sys.getswitchinterval()

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(tick())
    try:
        assert await turns.taken(evaluated(150, seen)) is True
    finally:
        other.cancel()
    assert seen[0] is threading.current_thread() is not seen[-1]
    assert ticks > 3
    assert sys.getswitchinterval() == usual


async def test_what_takes_longest_has_a_lane_of_its_own():
    seen = []
    assert await turns.taken(evaluated(300, seen)) is True
    assert len({thread.name.rpartition("_")[0] for thread in seen}) == 3


async def test_limits_stay():
    with pytest.raises(CostExceeded) as caught:
        await turns.taken(evaluated(300, limit=50_000))
    assert caught.value.cost > 50_000


async def test_many_small_ones_are_long_together():
    seen = []

    def work():
        seen.append(threading.current_thread())
        return [RULE.evaluate({"self": list(range(10))}) for _ in range(100)]

    assert await turns.taken(work) == [True] * 100
    assert len(seen) == 2


async def test_the_loop_is_asked_from_within():
    loop = asyncio.get_running_loop()

    async def where():
        return asyncio.get_running_loop()

    def work():
        RULE.evaluate({"self": list(range(150))})
        return turns.on_loop(where)

    assert await turns.taken(work) is loop
    assert turns.on_loop(where) is None
