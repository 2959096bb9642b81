from __future__ import annotations

import asyncio
from typing import Any

from berg.apiserver.registry.crowd import AT_ONCE, LARGE, Crowd
from berg.machinery.resources import resource
from berg.machinery.status import Obj
from berg.testing import Cluster

MAPS = resource("configmaps")


async def test_some_take_their_turn_and_others_are_heard_in_between() -> None:
    crowd, order = Crowd(), []
    heard = False

    async def watcher(number: int) -> None:
        await crowd.turn()
        order.append(number)

    async def other() -> None:
        nonlocal heard
        while len(order) < 10 * AT_ONCE:
            before = len(order)
            await asyncio.sleep(0)
            assert len(order) - before <= AT_ONCE
            heard = True

    await asyncio.gather(*(watcher(n) for n in range(10 * AT_ONCE)), other())
    assert order == list(range(10 * AT_ONCE)) and heard


async def test_nobody_waits_longer_than_the_others_take() -> None:
    crowd, order = Crowd(), []

    async def watcher(number: int) -> None:
        for _ in range(5):
            await crowd.turn()
            order.append(number)

    await asyncio.gather(*(watcher(n) for n in range(3 * AT_ONCE)))
    for start in range(0, len(order), 3 * AT_ONCE):
        assert set(order[start : start + 3 * AT_ONCE]) == set(range(3 * AT_ONCE))


async def test_who_leaves_while_waiting_holds_nobody_up() -> None:
    crowd = Crowd()
    tasks = [asyncio.create_task(crowd.turn()) for _ in range(2 * AT_ONCE)]
    await asyncio.sleep(0)
    for task in tasks[:AT_ONCE]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[AT_ONCE:] == [None] * AT_ONCE
    await crowd.turn()


async def test_each_of_a_crowd_sees_every_change_once_and_in_order_and_only_its_own() -> None:
    async with Cluster(nodes=0, controllers=False, scheduler=False, https=False) as cluster:
        client = cluster.client
        expected: dict[str, list[str]] = {"": [], "app=a": [], "app=b": []}

        async def watch(selector: str) -> list[str]:
            seen: list[str] = []
            async for event in client.watch(MAPS, "default", label_selector=selector, resource_version=start):
                seen.append(f"{event.type} {event.object['metadata']['name']}")
                if event.object["metadata"]["name"] == f"last-{selector[-1:] or 'z'}":
                    return seen
            raise AssertionError("it ended")

        start = (await client.list(MAPS, "default"))["metadata"]["resourceVersion"]
        selectors = ["", "app=a", "app=b"] * (LARGE // 2)
        watches = [asyncio.create_task(watch(s)) for s in selectors]
        registry = cluster.server.services.registry(MAPS)
        while registry.crowd.size < len(selectors):  # noqa: ASYNC110
            await asyncio.sleep(0)
        for n in range(12):
            obj = await client.create(MAPS, map_of(f"m{n}", "ab"[n % 2]), "default")
            obj["metadata"]["labels"]["app"] = "ba"[n % 2]
            await client.update(MAPS, obj)
            for label, change in (("ab"[n % 2], ("ADDED", "DELETED")), ("ba"[n % 2], ("ADDED",))):
                expected[f"app={label}"] += [f"{c} m{n}" for c in change]
            expected[""] += [f"ADDED m{n}", f"MODIFIED m{n}"]
        for name, label in (("last-a", "a"), ("last-b", "b"), ("last-z", "z")):
            await client.create(MAPS, map_of(name, label), "default")
        expected["app=a"].append("ADDED last-a")
        expected["app=b"].append("ADDED last-b")
        expected[""] += ["ADDED last-a", "ADDED last-b", "ADDED last-z"]
        for selector, seen in zip(selectors, await asyncio.gather(*watches), strict=True):
            assert seen == expected[selector]


def map_of(name: str, label: str) -> Obj:
    found: dict[str, Any] = {"metadata": {"name": name, "labels": {"app": label}}, "data": {}}
    return found
