"""The watch cache over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from berg.storage.cacher import (
    CacheEntry,
    CacheEvent,
    KeyExists,
    KeyMissing,
    RevisionConflict,
    TooLargeResourceVersion,
    open_cacher,
)
from berg.storage.embedded import EmbeddedStore
from berg.storage.entry import splice
from berg.storage.interface import PutRequest, RevisionCompacted
from berg.storage.transform import TransformError
from berg.storage.watchcache import RECENT_EVENTS, WatchCache

Obj = dict[str, Any]


def pod(name: str, namespace: str = "ns", **labels: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {"nodeName": f"node-{name}"},
        "metadata": {"name": name, "namespace": namespace, **({"labels": labels} if labels else {})},
    }


def opened(store: EmbeddedStore, prefix: str = "/registry/pods/", namespaced: bool = True) -> WatchCache:
    return open_cacher(store, prefix, namespaced=namespaced, api_version="v1", kind="Pod")


@pytest.fixture
async def store() -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(None)
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def pods(store: EmbeddedStore) -> WatchCache:
    cacher = opened(store)
    await cacher.start()
    return cacher


def names(entries: Any) -> list[str]:
    return [e.name for e in entries]


def told(events: Any) -> list[tuple[str, str, int]]:
    return [(e.type, e.entry.name, e.revision) for e in events]


async def test_what_is_stored_and_what_is_served(store: EmbeddedStore, pods: WatchCache) -> None:
    entry = await pods.create("ns/a", pod("a"))
    stored = store.index.current[b"/registry/pods/ns/a"].value
    assert stored.startswith(b'{"kind":"Pod","apiVersion":"v1","metadata":{')
    assert b"resourceVersion" not in stored
    assert (entry.key, entry.namespace, entry.name, entry.revision) == ("ns/a", "ns", "a", store.revision)
    assert entry.raw.startswith(b'{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"2","name":"a"')
    want = pod("a")
    want["metadata"]["resourceVersion"] = "2"
    assert entry.obj == want
    assert pods.get("ns/a") is entry
    assert pods.revision == store.revision


async def test_a_resource_version_in_the_object_is_not_stored(pods: WatchCache) -> None:
    given = pod("a")
    given["metadata"]["resourceVersion"] = "77"
    entry = await pods.create("ns/a", given)
    assert entry.obj["metadata"]["resourceVersion"] == "2"
    assert given["metadata"]["resourceVersion"] == "77"


def test_splicing_into_empty_metadata() -> None:
    assert splice(b'{"kind":"K","apiVersion":"v1","metadata":{}}', 5) == (
        b'{"kind":"K","apiVersion":"v1","metadata":{"resourceVersion":"5"}}'
    )


@pytest.mark.parametrize(
    "value",
    [
        b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","resourceVersion":"3"},"spec":{}}',
        b'{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {}}',
    ],
)
async def test_json_that_others_stored(store: EmbeddedStore, pods: WatchCache, value: bytes) -> None:
    await store.put(PutRequest(b"/registry/pods/ns/a", value))
    entry = pods.get("ns/a")
    assert entry is not None
    assert entry.raw == b'{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"2","name":"a"},"spec":{}}'


async def test_create_update_delete_and_their_refusals(pods: WatchCache) -> None:
    first = await pods.create("ns/a", pod("a"))
    with pytest.raises(KeyExists) as exists:
        await pods.create("ns/a", pod("a"))
    assert exists.value.entry.revision == first.revision
    second = await pods.update("ns/a", pod("a", x="y"), expected=first.revision)
    with pytest.raises(RevisionConflict) as conflict:
        await pods.update("ns/a", pod("a"), expected=first.revision)
    assert conflict.value.entry.obj == second.obj
    with pytest.raises(RevisionConflict):
        await pods.delete("ns/a", expected=first.revision)
    gone = await pods.delete("ns/a", expected=second.revision)
    assert (gone.revision, gone.labels) == (pods.revision, {"x": "y"})
    assert gone.obj["metadata"]["resourceVersion"] == str(pods.revision)
    assert pods.get("ns/a") is None
    with pytest.raises(KeyMissing):
        await pods.update("ns/a", pod("a"), expected=second.revision)
    with pytest.raises(KeyMissing):
        await pods.delete("ns/a", expected=second.revision)


async def test_racing_writers_meet_the_current_state(pods: WatchCache) -> None:
    async def create() -> CacheEntry | None:
        try:
            return await pods.create("ns/a", pod("a"))
        except KeyExists as e:
            assert pods.get("ns/a") is not None
            assert e.entry.revision == 2
            return None

    results = await asyncio.gather(*(create() for _ in range(5)))
    assert sum(r is not None for r in results) == 1


async def test_lists(pods: WatchCache) -> None:
    for namespace in ("a", "a-b", "b"):
        for name in ("x", "y", "z"):
            await pods.create(f"{namespace}/{name}", pod(name, namespace, app=name))
    everything = await pods.list()
    assert [e.key for e in everything.entries][:4] == ["a-b/x", "a-b/y", "a-b/z", "a/x"]
    assert (len(everything.entries), everything.revision, everything.next_key) == (9, pods.revision, None)
    assert [e.key for e in (await pods.list(namespace="a")).entries] == ["a/x", "a/y", "a/z"]
    labelled = await pods.list(index=("label", "app=y"))
    assert [e.key for e in labelled.entries] == ["a-b/y", "a/y", "b/y"]
    assert [e.key for e in (await pods.list(index=("label", "app=y"), namespace="b")).entries] == ["b/y"]
    assert [e.key for e in (await pods.list(predicate=lambda e: e.name == "z")).entries] == ["a-b/z", "a/z", "b/z"]
    assert (await pods.list(namespace="none")).entries == []
    assert list((await pods.list(index=("label", "app=none"))).entries) == []


async def test_pages(pods: WatchCache) -> None:
    for n in range(10):
        await pods.create(f"ns/{n}", pod(str(n), parity="even" if n % 2 == 0 else "odd"))
    first = await pods.list(limit=4)
    assert (names(first.entries), first.remaining, first.next_key) == (["0", "1", "2", "3"], 6, "ns/3")
    await pods.create("ns/35", pod("35"))
    nine = pods.get("ns/9")
    assert nine is not None
    await pods.delete("ns/9", expected=nine.revision)
    second = await pods.list(limit=4, after_key=first.next_key, exact_revision=first.revision)
    assert (names(second.entries), second.remaining, second.revision) == (["4", "5", "6", "7"], 2, first.revision)
    third = await pods.list(limit=4, after_key=second.next_key, exact_revision=first.revision)
    assert (names(third.entries), third.next_key) == (["8", "9"], None)
    odd = await pods.list(limit=2, predicate=lambda e: e.labels.get("parity") == "odd")
    assert (names(odd.entries), odd.next_key) == (["1", "3"], "ns/3")
    last = await pods.list(limit=2, predicate=lambda e: e.labels.get("parity") == "odd", after_key="ns/4")
    assert (names(last.entries), last.next_key) == (["5", "7"], None)


async def test_reads_of_the_past_and_of_the_future(store: EmbeddedStore, pods: WatchCache) -> None:
    first = await pods.create("ns/a", pod("a"))
    await pods.update("ns/a", pod("a", new="yes"), expected=first.revision)
    then = await pods.list(exact_revision=first.revision)
    assert then.entries[0].obj == first.obj
    assert (await pods.list(exact_revision=first.revision, index=("label", "new=yes"))).entries == []
    await store.compact(store.revision)
    with pytest.raises(RevisionCompacted):
        await pods.list(exact_revision=first.revision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("berg.storage.watchcache.FRESH_TIMEOUT_S", 0.01)
        with pytest.raises(TooLargeResourceVersion) as too_large:
            await pods.wait_for(pods.revision + 1)
        assert too_large.value.current == pods.revision
    waiting = asyncio.create_task(pods.wait_for(pods.revision + 1))
    await asyncio.sleep(0)
    await store.put(PutRequest(b"/registry/other/x", b"{}"))  # any write moves the store on
    await waiting
    assert await pods.consistent() == store.revision


async def test_indexes_follow_changes(pods: WatchCache) -> None:
    pods.index("spec.nodeName", lambda e: [e.obj["spec"]["nodeName"]])
    a = await pods.create("ns/a", pod("a", app="one"))
    assert names((await pods.list(index=("spec.nodeName", "node-a"))).entries) == ["a"]
    assert names((await pods.list(index=("label", "app=one"))).entries) == ["a"]
    await pods.create("ns/b", pod("b", app="one"))
    assert names((await pods.list(index=("spec.nodeName", "node-b"))).entries) == ["b"]
    moved = pod("a", app="two")
    moved["spec"]["nodeName"] = "node-b"
    a = await pods.update("ns/a", moved, expected=a.revision)
    assert names((await pods.list(index=("spec.nodeName", "node-b"))).entries) == ["a", "b"]
    assert (await pods.list(index=("spec.nodeName", "node-a"))).entries == []
    assert names((await pods.list(index=("label", "app=one"))).entries) == ["b"]
    await pods.delete("ns/a", expected=a.revision)
    assert names((await pods.list(index=("spec.nodeName", "node-b"))).entries) == ["b"]
    assert (await pods.list(index=("label", "app=two"))).entries == []


async def test_each_key_reaches_its_own_cacher(store: EmbeddedStore, pods: WatchCache) -> None:
    services = opened(store, "/registry/services/specs/")
    custom = opened(store, "/registry/example.com/pods/")
    for cacher in (services, custom):
        await cacher.start()
    await services.create("ns/s", pod("s"))
    await custom.create("ns/c", pod("c"))
    await pods.create("ns/p", pod("p"))
    assert [len(c) for c in (pods, services, custom)] == [1, 1, 1]
    assert services.revision == custom.revision == store.revision
    await custom.close()
    await store.put(PutRequest(b"/registry/example.com/pods/ns/d", b"{}"))
    again = opened(store, "/registry/example.com/pods/")
    await again.start()
    assert len(again) == 2


# -- watches


async def test_watchers_of_every_scope(pods: WatchCache) -> None:
    a = await pods.create("ns/a", pod("a"))
    watchers = {
        "all": pods.watch(after=a.revision),
        "ns": pods.watch(after=a.revision, namespace="ns"),
        "other": pods.watch(after=a.revision, namespace="other"),
        "key": pods.watch(after=a.revision, key="ns/a"),
    }
    a2 = await pods.update("ns/a", pod("a", x="y"), expected=a.revision)
    b = await pods.create("ns/b", pod("b"))
    c = await pods.create("other/c", pod("c", "other"))
    gone = await pods.delete("ns/a", expected=a2.revision)
    changed, added, other, deleted = (
        ("MODIFIED", "a", a2.revision),
        ("ADDED", "b", b.revision),
        ("ADDED", "c", c.revision),
        ("DELETED", "a", gone.revision),
    )
    assert told(await anext(watchers["all"])) == [changed, added, other, deleted]
    assert told(await anext(watchers["ns"])) == [changed, added, deleted]
    assert told(await anext(watchers["other"])) == [other]
    events = await anext(watchers["key"])
    assert told(events) == [changed, deleted]
    assert events[0].previous is a
    last = events[1].entry
    assert last is not None and last.obj["metadata"]["resourceVersion"] == str(gone.revision)
    assert last.labels == {"x": "y"}


async def test_watching_a_value_of_an_index(pods: WatchCache) -> None:
    pods.index("spec.nodeName", lambda e: [e.obj["spec"]["nodeName"]])
    on_a, on_b = (pods.watch(after=1, index=("spec.nodeName", f"node-{n}")) for n in "ab")
    labelled = pods.watch(after=1, index=("label:app", "x"))
    a = await pods.create("ns/a", pod("a"))
    await pods.create("ns/c", pod("c", app="x"))
    moved = pod("a")
    moved["spec"]["nodeName"] = "node-b"
    await pods.update("ns/a", moved, expected=a.revision)
    assert [e.type for e in on_a.take()] == ["ADDED", "MODIFIED"]  # that it left is news here, too
    assert [e.type for e in on_b.take()] == ["MODIFIED"]
    assert [e.entry.name for e in labelled.take() if e.entry] == ["c"]
    again = pods.watch(after=1, index=("spec.nodeName", "node-a"))
    assert [e.type for e in again.take()] == ["ADDED", "MODIFIED"]
    for watcher in (on_a, on_b, labelled, again):
        watcher.close()
    assert not pods._fanout._indexed


async def test_what_cannot_be_read_harms_nobody_else(store: EmbeddedStore, pods: WatchCache) -> None:
    await pods.create("ns/a", pod("a", app="x"))
    assert names((await pods.list(index=("label", "app=x"))).entries) == ["a"]
    watcher = pods.watch(after=pods.revision)
    await store.put(PutRequest(b"/registry/pods/ns/broken", b"\x00\xff"))
    await store.put(PutRequest(b"/registry/pods/ns/\xff", b"{}"))
    b = await pods.create("ns/b", pod("b", app="x"))
    assert names((await pods.list(index=("label", "app=x"))).entries) == ["a", "b"]
    assert len(watcher.take()) == 3
    with pytest.raises(TransformError):
        await pods.list(predicate=lambda e: bool(e.obj))
    assert b.obj["metadata"]["name"] == "b"


async def test_watching_from_the_past(store: EmbeddedStore, pods: WatchCache) -> None:
    a = await pods.create("ns/a", pod("a"))
    entry = a
    for n in range(RECENT_EVENTS + 100):
        entry = await pods.update("ns/a", pod("a", n=str(n)), expected=entry.revision)
    recent = await anext(pods.watch(after=entry.revision - 10))
    assert [e.revision for e in recent] == list(range(entry.revision - 9, entry.revision + 1))
    older = await anext(pods.watch(after=a.revision))  # beyond what the cache keeps: from the store
    assert [e.revision for e in older] == list(range(a.revision + 1, entry.revision + 1))
    first = older[0]
    assert first.type == "MODIFIED" and first.entry is not None and first.previous is not None
    assert first.entry.labels == {"n": "0"} and first.previous.obj == a.obj
    await store.compact(entry.revision - 5)
    await store.compacted()
    with pytest.raises(RevisionCompacted):
        pods.watch(after=a.revision)


async def test_a_watcher_that_is_ahead_hears_only_what_is_new_to_it(pods: WatchCache) -> None:
    watcher = pods.watch(after=3)
    for n in range(4):
        await pods.create(f"ns/{n}", pod(str(n)))
    assert [e.revision for e in await anext(watcher)] == [4, 5]


async def test_all_watchers_share_one_event(pods: WatchCache) -> None:
    watchers = [pods.watch(after=1) for _ in range(3)]
    await pods.create("ns/a", pod("a"))
    batches = [await anext(w) for w in watchers]
    assert all(b is batches[0] for b in batches)
    event: CacheEvent = batches[0][0]
    event.frames["json"] = b"framed once"
    assert batches[2][0].frames == {"json": b"framed once"}


async def test_a_slow_watcher_is_ended_and_others_are_not(pods: WatchCache) -> None:
    slow, fast = pods.watch(after=1, buffer=10), pods.watch(after=1, buffer=10)
    seen = 0
    for n in range(20):
        await pods.create(f"ns/{n}", pod(str(n)))
        seen += len(fast.take())
    assert seen == 20 and not fast.closed
    assert [batch async for batch in slow] == []


async def test_closing_ends_watchers(pods: WatchCache) -> None:
    watcher = pods.watch(after=1)
    reading = asyncio.create_task(anext(watcher, None))
    await asyncio.sleep(0)
    await pods.close()
    assert await reading is None


async def test_objects_that_expire(store: EmbeddedStore, pods: WatchCache) -> None:
    a = await pods.create("ns/a", pod("a"), ttl_s=3600)
    b = await pods.create("ns/b", pod("b"), ttl_s=3600)
    leases = {store.index.current[f"/registry/pods/{e.key}".encode()].lease for e in (a, b)}
    assert len(leases) == 1  # they share one
    watcher = pods.watch(after=pods.revision)
    await store.lease_revoke(leases.pop())
    assert [e.type for e in await anext(watcher)] == ["DELETED", "DELETED"]
    c = await pods.create("ns/c", pod("c"), ttl_s=3600)  # the shared lease is gone: a new one is taken
    assert store.index.current[b"/registry/pods/ns/c"].lease
    assert c.name == "c"


async def test_parsed_objects_do_not_pile_up(pods: WatchCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berg.storage.entry.PARSED_BYTES", 1000)
    entries = [await pods.create(f"ns/{n}", pod(str(n))) for n in range(50)]
    objects = [e.obj for e in entries]
    assert sum(e._obj is not None for e in entries) < 15
    assert entries[0].obj == objects[0] == orjson.loads(entries[0].raw)
