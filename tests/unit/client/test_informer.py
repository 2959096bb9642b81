import asyncio
from typing import Any

import pytest
from fake_api import FakeAPI

from berg.client.informer import InformerFactory
from berg.client.rest import Client
from berg.machinery import status
from berg.machinery.clock import FakeClock
from berg.machinery.resources import Resource

PODS = Resource("", "v1", "pods", "Pod", namespaced=True)


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": labels}}


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.api = FakeAPI(self.clock)
        self.factory = InformerFactory(Client(self.api, clock=self.clock), self.clock)
        self.seen: list[str] = []
        self.informer = self.factory.informer(PODS)
        self.informer.add_handler(
            lambda o: self.seen.append(f"+{o['metadata']['name']}"),
            lambda old, new: self.seen.append(f"~{new['metadata']['name']}"),
            lambda o: self.seen.append(f"-{o['metadata']['name']}"),
        )


@pytest.fixture
async def world():
    w = World()
    yield w
    await w.factory.stop()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("watch_list", [True, False])
async def test_sees_what_is_there_and_what_changes(world: World, watch_list: bool):
    world.api.watch_list = watch_list
    world.api.put("", "pods", pod("a", app="x"))
    await world.factory.start()
    assert world.seen == ["+a"]
    assert ("WATCH" if watch_list else "GET", "/api/v1/pods") in world.api.log
    world.api.put("", "pods", pod("b"))
    world.api.change("pods", "default/a", {"metadata": {"labels": {"app": "y"}}})
    world.api.drop("pods", "default/b")
    await settle()
    assert world.seen == ["+a", "+b", "~a", "-b"]
    a = world.informer.lister.get("default", "a")
    assert a is not None
    assert a["metadata"]["labels"] == {"app": "y"}
    assert (a["apiVersion"], a["kind"]) == ("v1", "Pod")


async def test_the_same_arguments_share_one_watch(world: World):
    assert world.factory.informer(PODS) is world.informer
    assert world.factory.informer(PODS, label_selector="a=b") is not world.informer
    await world.factory.start()
    await world.factory.start()
    assert [path for verb, path in world.api.log if verb == "WATCH"] == ["/api/v1/pods"] * 2


async def test_indexes_follow_the_objects(world: World):
    world.informer.add_index("app", lambda o: [(o["metadata"].get("labels") or {}).get("app", "")])
    world.api.put("", "pods", pod("a", app="x"))
    world.api.put("", "pods", pod("b", app="x"))
    await world.factory.start()
    assert len(world.informer.lister.by_index("app", "x")) == 2
    world.api.change("pods", "default/a", {"metadata": {"labels": {"app": "y"}}})
    world.api.drop("pods", "default/b")
    await settle()
    assert world.informer.lister.by_index("app", "x") == []
    assert world.informer.lister.index_values("app") == ["y"]


async def test_a_late_handler_is_told_of_everything(world: World):
    world.api.put("", "pods", pod("a"))
    await world.factory.start()
    late: list[str] = []
    world.informer.add_handler(lambda o: late.append(o["metadata"]["name"]))
    assert late == ["a"]


async def test_a_watch_that_ends_is_taken_up_where_it_was(world: World):
    await world.factory.start()
    world.api.put("", "pods", pod("a"))
    await settle()
    await world.clock.advance(5)
    world.api.break_watches()
    await settle()
    world.api.put("", "pods", pod("b"))
    await settle()
    assert world.seen == ["+a", "+b"]
    assert not [v for v, _ in world.api.log if v == "GET"]


async def test_too_old_means_a_new_list_that_tells_the_difference(world: World):
    world.api.put("", "pods", pod("a"))
    world.api.put("", "pods", pod("b"))
    await world.factory.start()
    refuse = [True]

    def hook(method: str, path: str, doc: Any) -> Any:
        if refuse.pop() if refuse else False:
            return status.expired("too old resource version")
        return None

    world.api.answer_hook = hook
    await world.clock.advance(5)
    for *_, queue in world.api._watchers:
        queue.put_nowait(None)
    world.api._watchers.clear()
    world.api._watchers = NoRemove()
    world.api.drop("pods", "default/a")
    world.api.put("", "pods", pod("c"))
    await settle()
    await world.clock.advance(5)
    assert world.seen == ["+a", "+b", "+c", "-a"]


class NoRemove(list):  # type: ignore[type-arg]
    def remove(self, value: Any) -> None:
        if value in self:
            super().remove(value)


async def test_failures_are_waited_out(world: World):
    world.api.answer_hook = lambda *_: status.service_unavailable("not yet")
    start = asyncio.create_task(world.factory.start())
    await world.clock.advance(10)
    assert not start.done()
    world.api.answer_hook = None
    world.api.put("", "pods", pod("a"))
    await world.clock.advance(60)
    assert start.done()
    assert world.seen == ["+a"]


async def test_an_object_made_anew_is_a_deletion_and_an_addition(world: World):
    await world.factory.start()
    world.informer.upsert({"metadata": {"name": "a", "namespace": "d", "uid": "1", "resourceVersion": "5"}})
    world.informer.upsert({"metadata": {"name": "a", "namespace": "d", "uid": "2", "resourceVersion": "9"}})
    assert world.seen == ["+a", "-a", "+a"]
