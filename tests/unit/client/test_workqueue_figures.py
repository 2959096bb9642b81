from berg.client.workqueue import WorkQueue
from berg.machinery.clock import FakeClock


async def test_how_long_keys_wait_and_are_worked_on():
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("a")
    await clock.advance(2)
    queue.add("a")  # it waits since it was first added
    assert await queue.get() == "a"
    assert (queue.waited.count, queue.waited.total) == (1, 2.0)
    await clock.advance(3)
    assert queue.ages_s() == [3.0]
    queue.done("a")
    assert (queue.worked.count, queue.worked.total) == (1, 3.0)
    assert queue.ages_s() == []
