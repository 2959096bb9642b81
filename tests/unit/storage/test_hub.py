"""The hub over a store that is not in this process: a watch that breaks, and history that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from berg.storage.cacher import open_cacher
from berg.storage.embedded import EmbeddedStore
from berg.storage.interface import DeleteRequest, PutRequest, RevisionCompacted, Unavailable, WatchBatch, WatchRequest
from berg.storage.watchcache import WatchCache


class Remote:
    """An engine as if it were far away: no listeners, and a watch that can be broken."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self.closed = False
        self.watches: list[Any] = []
        self.broken: Exception | None = None
        for name in ("range", "put", "delete", "txn", "lease_grant"):
            setattr(self, name, getattr(store, name))

    @property
    def revision(self) -> int:
        return self._store.revision

    async def watch(self, request: WatchRequest) -> AsyncIterator[WatchBatch]:
        watch = self._store.watch(request)
        self.watches.append(watch)
        if self.broken is not None:
            broken, self.broken = self.broken, None
            raise broken
        async for batch in watch:
            yield batch
        if self.broken is not None:
            broken, self.broken = self.broken, None
            raise broken

    def break_with(self, error: Exception) -> None:
        self.broken = error
        self.watches[-1].close()


@pytest.fixture
async def remote(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Remote]:
    monkeypatch.setattr("berg.storage.hub.RETRY_S", 0.0)
    store = EmbeddedStore(None)
    await store.start()
    remote = Remote(store)
    yield remote
    remote.closed = True
    await store.close()
    await asyncio.sleep(0.01)


@pytest.fixture
async def cacher(remote: Remote) -> WatchCache:
    cacher = open_cacher(remote, "/registry/x/", namespaced=False, api_version="v1", kind="X")  # type: ignore[arg-type]
    await cacher.start()
    await asyncio.sleep(0)
    return cacher


def thing(name: str) -> dict[str, Any]:
    return {"kind": "X", "apiVersion": "v1", "metadata": {"name": name}}


VALUE = b'{"kind":"X","apiVersion":"v1","metadata":{"name":"x"}}'


async def test_a_watch_that_breaks_goes_on_where_it_stopped(remote: Remote, cacher: WatchCache) -> None:
    watcher = cacher.watch(after=cacher.revision)
    await cacher.create("a", thing("a"))
    remote.break_with(Unavailable("gone away"))
    await cacher.create("b", thing("b"))
    entry = await cacher.create("c", thing("c"))
    seen = list(watcher.take())
    assert [(e.type, e.entry.name) for e in seen if e.entry] == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c")]
    await cacher.delete("c", expected=entry.revision)
    assert cacher.get("c") is None


async def test_when_history_is_gone_everything_is_read_anew(remote: Remote, cacher: WatchCache) -> None:
    await cacher.create("stays", thing("stays"))
    gone = await cacher.create("goes", thing("goes"))
    assert [e.name for e in (await cacher.list(index=("label", "x=y"))).entries] == []
    watcher = cacher.watch(after=cacher.revision)
    store = remote._store
    remote.break_with(RevisionCompacted(gone.revision + 2))
    await store.delete(DeleteRequest(b"/registry/x/goes"))
    await store.put(PutRequest(b"/registry/x/comes", VALUE))
    await cacher.consistent()
    assert [e.name for e in (await cacher.list()).entries] == ["comes", "stays"]
    assert [batch async for batch in watcher] == []  # who watched must list again
    with pytest.raises(RevisionCompacted):
        cacher.watch(after=gone.revision)
    await cacher.create("later", thing("later"))
    assert cacher.get("later") is not None
