"""The watch cache over every engine: what it promises does not depend on where the store is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from berg.storage.cacher import KeyExists, KeyMissing, RevisionConflict, open_cacher
from berg.storage.interface import PutRequest, Store
from berg.storage.watchcache import WatchCache


def config_map(name: str, data: str = "") -> dict[str, object]:
    metadata = {"name": name, "namespace": "ns", "labels": {"app": name}}
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"x": data}}


@pytest.fixture
async def cacher(store: Store) -> AsyncIterator[WatchCache]:
    await store.put(PutRequest(b"/registry/configmaps/ns/before", b'{"kind":"ConfigMap","metadata":{"name":"before"}}'))
    cacher = open_cacher(store, "/registry/configmaps/", namespaced=True, api_version="v1", kind="ConfigMap")
    await cacher.start()
    yield cacher
    await cacher.close()


async def test_it_starts_with_what_is_there(cacher: WatchCache) -> None:
    assert [e.key for e in (await cacher.list()).entries] == ["ns/before"]


async def test_reads_follow_writes(cacher: WatchCache) -> None:
    entry = await cacher.create("ns/a", config_map("a"))
    assert cacher.get("ns/a") is entry and cacher.revision >= entry.revision
    with pytest.raises(KeyExists):
        await cacher.create("ns/a", config_map("a"))
    newer = await cacher.update("ns/a", config_map("a", "1"), expected=entry.revision)
    got = cacher.get("ns/a")
    assert got is not None and got.obj["data"] == {"x": "1"}
    with pytest.raises(RevisionConflict):
        await cacher.update("ns/a", config_map("a", "2"), expected=entry.revision)
    past = await cacher.list(exact_revision=entry.revision)
    assert [e.revision for e in past.entries if e.name == "a"] == [entry.revision]
    gone = await cacher.delete("ns/a", expected=newer.revision)
    assert gone.revision > newer.revision and cacher.get("ns/a") is None
    with pytest.raises(KeyMissing):
        await cacher.delete("ns/a", expected=newer.revision)


async def test_writes_of_others_arrive(store: Store, cacher: WatchCache) -> None:
    watcher = cacher.watch(after=cacher.revision)
    value = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"b"}}'
    revision = (await store.put(PutRequest(b"/registry/configmaps/ns/b", value))).revision
    await store.put(PutRequest(b"/elsewhere/b", b""))
    assert await cacher.consistent() >= revision + 1  # also when the newest change is none of its business
    assert cacher.get("ns/b") is not None
    async with asyncio.timeout(10):
        events = await anext(watcher)
    assert [(e.type, e.revision) for e in events] == [("ADDED", revision)]
    await watcher.aclose()


async def test_concurrent_writers(cacher: WatchCache) -> None:
    watcher = cacher.watch(after=cacher.revision, buffer=10_000)
    entries = await asyncio.gather(*(cacher.create(f"ns/{n}", config_map(str(n))) for n in range(200)))
    assert all(cacher.get(e.key) is not None for e in entries)
    seen: list[int] = []
    async with asyncio.timeout(10):
        while len(seen) < 200:
            seen += [e.revision for e in await anext(watcher)]
    assert seen == sorted(e.revision for e in entries)
    await watcher.aclose()
