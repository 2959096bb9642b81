"""Seats, queues, and who goes next."""

from __future__ import annotations

import asyncio

import pytest

from berg.apiserver.flowcontrol import borrowing
from berg.apiserver.flowcontrol.borrowing import Ask, Demand, Limits, limits
from berg.apiserver.flowcontrol.level import Level, Rejected, hand
from berg.apiserver.flowcontrol.turns import Turns
from tests.unit.apiserver.served_api import Served


def level(limit: int, queues: int = 8, hand_size: int = 2, length: int = 2) -> Level:
    made = Level("l")
    queuing = {"queues": queues, "handSize": hand_size, "queueLengthLimit": length}
    spec = {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}
    made.configure({"metadata": {}, "spec": spec}, Limits(limit, limit, limit))
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
    assert one.free(1)


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


def test_what_is_wide_waits_for_as_many_seats() -> None:
    one = level(4)
    one.start(3)
    assert one.free(1) and not one.free(2)
    one.finish(3)
    assert one.free(9)  # wider than all there is: alone
    one.start(1)
    assert not one.free(9)


def test_seats_of_a_level_by_its_configuration() -> None:
    assert limits(100, 245, 600, 90, None) == Limits(245, 24, 845)
    assert limits(40, 245, 600, 50, 20) == Limits(98, 49, 118)
    assert limits(0, 245, 600, 0, None) == Limits(0, 0, 600)


def test_demand_is_averaged_over_time() -> None:
    demand = Demand(0.0)
    demand.add(0, 7.5)
    demand.add(10, 2.5)
    assert demand.close(10.0) == 10
    assert demand.average == 2.5
    assert demand.deviation == pytest.approx(4.330, abs=0.001)
    assert demand.smoothed == pytest.approx(6.830, abs=0.001)
    demand.add(0, 10.0)
    assert demand.close(20.0) == 0
    assert demand.smoothed == pytest.approx(0.977 * 6.830, abs=0.001)


def test_idle_levels_lend_to_busy_ones() -> None:
    busy, idle = limits(50, 100, 100, 50, None), limits(50, 100, 100, 50, None)
    assert borrowing.deal(100, 0, [Ask(busy, 90, 90.0), Ask(idle, 0, 0.0)]) == [75, 25]
    assert borrowing.deal(100, 0, [Ask(busy, 90, 90.0), Ask(idle, 90, 90.0)]) == [50, 50]
    assert borrowing.deal(100, 0, [Ask(busy, 0, 0.0), Ask(idle, 0, 0.0)]) == [50, 50]
    bounded = limits(50, 100, 100, 50, 20)
    assert borrowing.deal(100, 0, [Ask(bounded, 90, 90.0), Ask(idle, 0, 0.0)]) == [60, 40]
    assert borrowing.deal(100, 40, [Ask(busy, 50, 50.0), Ask(idle, 50, 50.0)]) == [30, 30]
    assert borrowing.deal(100, 70, [Ask(busy, 50, 50.0), Ask(idle, 50, 50.0)]) == [25, 25]


@pytest.mark.parametrize("total", [60, 75, 100, 130])
def test_shares_are_fair_within_their_bounds(total: int) -> None:
    items = [(10.0, 60.0, 40.0), (20.0, 30.0, 25.0), (5.0, 200.0, 5.0)]
    dealt = borrowing.fair(total, items)
    assert sum(dealt) == pytest.approx(total)
    proportions = [d / t for d, (low, high, t) in zip(dealt, items, strict=True) if low < d < high]
    assert all(p == pytest.approx(proportions[0]) for p in proportions)


GROUP = "/apis/flowcontrol.apiserver.k8s.io/v1"


async def test_mandatory_objects_stay_as_they_are(served: Served) -> None:
    path = f"{GROUP}/prioritylevelconfigurations/catch-all"
    code, refused = await served.patch(path, {"spec": {"limited": {"nominalConcurrencyShares": 500}}})
    assert code == 422
    assert refused["details"]["causes"][0]["message"].endswith("spec of 'catch-all' must equal the fixed value")
    code, refused = await served.patch(f"{GROUP}/flowschemas/exempt", {"spec": {"matchingPrecedence": 2}})
    assert refused["details"]["causes"][0]["message"].endswith("spec of 'exempt' must equal the fixed value")
    before = await served.get(path)
    await served.ask("DELETE", path)
    await served.clock.advance(0, settle=50)
    after = await served.get(path)
    assert after["spec"] == before["spec"] and after["metadata"]["uid"] != before["metadata"]["uid"]


async def test_suggested_objects_are_put_back_while_they_are_marked(served: Served) -> None:
    path = f"{GROUP}/prioritylevelconfigurations/workload-low"
    await served.patch(path, {"spec": {"limited": {"nominalConcurrencyShares": 7}}})
    await served.clock.advance(0, settle=50)
    assert (await served.get(path))["spec"]["limited"]["nominalConcurrencyShares"] == 100
    mark = {"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}}
    await served.patch(path, {**mark, "spec": {"limited": {"nominalConcurrencyShares": 7}}})
    await served.clock.advance(0, settle=50)
    assert (await served.get(path))["spec"]["limited"]["nominalConcurrencyShares"] == 7


async def test_wide_requests_begin_one_by_one_and_small_ones_in_between() -> None:
    turns, order = Turns(), []

    async def wide(i: int) -> None:
        await turns.take()
        order.append(f"wide {i}")

    async def small() -> None:
        order.append("small")

    tasks = [asyncio.create_task(wide(i)) for i in range(5)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(small()))
    await asyncio.gather(*tasks)
    assert order[0] == "wide 0" and order.index("small") <= 2
    assert [o for o in order if o != "small"] == [f"wide {i}" for i in range(5)]


async def test_a_turn_that_was_given_up_is_anothers() -> None:
    turns = Turns()
    await turns.take()
    gone = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    gone.cancel()
    async with asyncio.timeout(1):
        await turns.take()
        await turns.take()
