"""Seats, queues, and who goes next."""

from __future__ import annotations

import asyncio

import pytest

from berg.apiserver.flowcontrol.level import Level, Rejected, hand
from tests.unit.apiserver.served_api import Served


def level(limit: int, queues: int = 8, hand_size: int = 2, length: int = 2) -> Level:
    made = Level("l")
    queuing = {"queues": queues, "handSize": hand_size, "queueLengthLimit": length}
    spec = {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}
    made.configure({"metadata": {}, "spec": spec}, limit)
    return made


def test_hands_are_of_different_cards_and_steady() -> None:
    for flow in map(str, range(50)):
        cards = hand(flow, 16, 4)
        assert len(set(cards)) == 4 and all(0 <= c < 16 for c in cards) and cards == hand(flow, 16, 4)


async def test_a_noisy_flow_does_not_hold_up_another() -> None:
    one = level(1, queues=64, hand_size=2, length=50)
    one.start(1)
    order: list[str] = []

    async def request(flow: str) -> None:
        await one.wait(flow, 1, 10)
        order.append(flow)
        one.finish(1)

    tasks = [asyncio.create_task(request("noisy")) for _ in range(40)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(request("quiet")))
    await asyncio.sleep(0)
    assert one.waiting == 41
    one.finish(1)
    await asyncio.gather(*tasks)
    assert order.index("quiet") < 5
    assert (one.executing, one.waiting) == (0, 0)


async def test_full_queues_refuse() -> None:
    one = level(1, queues=1, hand_size=1, length=1)
    one.start(1)
    waiting = asyncio.create_task(one.wait("f", 1, 10))
    await asyncio.sleep(0)
    with pytest.raises(Rejected, match="queue-full"):
        await one.wait("f", 1, 10)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert one.waiting == 0
    one.finish(1)
    assert one.free


async def test_waiting_ends() -> None:
    one = level(1)
    one.start(1)
    with pytest.raises(Rejected, match="time-out"):
        await one.wait("f", 1, 0.001)
    assert one.waiting == 0


async def test_answers_name_their_schema_and_level(served: Served) -> None:
    response = await served.raw("GET", "/api/v1/namespaces/default")
    path = "/apis/flowcontrol.apiserver.k8s.io/v1"
    schema = await served.get(f"{path}/flowschemas/exempt")
    assert response.headers["X-Kubernetes-PF-FlowSchema-UID"] == schema["metadata"]["uid"]


async def test_a_schema_tells_whether_its_level_is_there(served: Served) -> None:
    group = "/apis/flowcontrol.apiserver.k8s.io/v1"
    made = {"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}}
    await served.create(f"{group}/flowschemas", made)

    async def dangling() -> tuple[str, str]:
        await served.clock.advance(0, settle=20)
        (found,) = (await served.get(f"{group}/flowschemas/s"))["status"]["conditions"]
        return found["status"], found["reason"]

    assert await dangling() == ("True", "NotFound")
    limited = {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}
    level = {"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": limited}}
    await served.create(f"{group}/prioritylevelconfigurations", level)
    assert await dangling() == ("False", "Found")
    metrics = (await served.raw("GET", "/metrics")).body.decode()
    assert 'apiserver_flowcontrol_nominal_limit_seats{priority_level="l"}' in metrics
