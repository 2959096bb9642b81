"""One watch of the store for all cachers of it.

A cluster has some eighty resources, and most of them are quiet. Each has a cacher; the hub watches everything
under the root once (`/registry/`) and hands each event to the cacher whose prefix its key has. All cachers share
the hub's revision, so a quiet one is as new as a busy one, at no cost.

With a store in this process the hub is a listener: cachers change in the same step in which the write becomes
visible, so no acknowledged write is ever missing from them. With a remote store the hub reads a watch, starts it
again where it stopped, and when history is gone has every cacher load anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from berg.machinery.metrics import Cell
from berg.storage.figures import LEASES
from berg.storage.interface import (
    Event,
    RangeRequest,
    RevisionCompacted,
    Store,
    StoreError,
    Synchronous,
    Watch,
    WatchRequest,
    prefix_end,
)

LEASE_REUSE_S = 60
LEASE_REUSE_SHARE = 0.05
LEASE_OBJECTS = 1000
RETRY_S = 0.2
PROGRESS_S = 0.1


class Sink(Protocol):
    """A cacher, as the hub sees it."""

    prefix: bytes

    def publish(self, events: Sequence[Event]) -> None: ...

    async def reload(self) -> None:
        """History was lost: load the state anew and tell the difference."""
        ...


class Hub:
    def __init__(self, store: Store, root: bytes) -> None:
        self.store = store
        self.root = root
        self.revision = 0
        """everything up to here has reached the cachers"""
        self.synchronous = isinstance(store, Synchronous)
        self._sinks: dict[bytes, Sink] = {}
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._started = False
        self._leases: dict[int, _SharedLease] = {}
        self.lease_objects = Cell(LEASES)
        self._request_progress: asyncio.Event = asyncio.Event()

    async def register(self, sink: Sink) -> None:
        async with self._starting:
            if not self._started:
                await self._start()
        self._sinks[sink.prefix] = sink

    def unregister(self, sink: Sink) -> None:
        if self._sinks.get(sink.prefix) is sink:
            del self._sinks[sink.prefix]

    async def _start(self) -> None:
        if isinstance(self.store, Synchronous):
            self.revision = self.store.revision
            self.store.subscribe(self._publish)
        else:
            answer = await self.store.range(RangeRequest(self.root, prefix_end(self.root), count_only=True))
            self.revision = answer.revision
            self._task = asyncio.create_task(self._follow())
        self._started = True

    # -- events

    def _publish(self, revision: int, events: Sequence[Event]) -> None:
        find = self._find
        if len(events) == 1:
            sink = find(events[0].kv.key)
            self.revision = revision
            if sink is not None:
                sink.publish(events)
        else:
            groups: dict[Sink, list[Event]] = {}
            for event in events:
                sink = find(event.kv.key)
                if sink is not None:
                    groups.setdefault(sink, []).append(event)
            self.revision = revision
            for sink, theirs in groups.items():
                sink.publish(theirs)
        if self._waiters:
            self._wake()

    def _find(self, key: bytes) -> Sink | None:
        """Prefixes have one segment behind the root (`pods/`) or more (`services/specs/`)."""
        at = len(self.root)
        if not key.startswith(self.root):
            return None
        sinks = self._sinks
        while (at := key.find(b"/", at) + 1) > 0:
            sink = sinks.get(key[:at])
            if sink is not None:
                return sink
        return None

    async def _follow(self) -> None:
        """The watch of a remote store, until that is closed.

        Where progress notices cannot be trusted (see EtcdStore.progress_is_sound), everything is watched instead of
        what is under the root: then there is an event for every revision, and no notice is needed.
        """
        sound = getattr(self.store, "progress_is_sound", True)
        key, end = (self.root, prefix_end(self.root)) if sound else (b"\0", b"\0")
        while not getattr(self.store, "closed", False):
            request = WatchRequest(key, end, self.revision + 1, progress_notify=sound)
            watch = self.store.watch(request)
            prompt = asyncio.create_task(self._prompt(watch)) if sound else None
            try:
                async for batch in watch:
                    if batch.events:
                        self._publish(batch.revision, batch.events)
                    elif sound and batch.revision > self.revision:
                        self.revision = batch.revision
                        self._wake()
            except RevisionCompacted:
                await self._reload()
            except StoreError:
                pass
            finally:
                if prompt is not None:
                    prompt.cancel()
                await watch.aclose()
            await asyncio.sleep(RETRY_S)

    async def _prompt(self, watch: Watch) -> None:
        """Asks the store where the watch stands, as long as somebody waits for a revision."""
        while True:
            await self._request_progress.wait()
            while self._waiters:
                await watch.request_progress()
                await asyncio.sleep(PROGRESS_S)
            self._request_progress.clear()

    async def _reload(self) -> None:
        while not getattr(self.store, "closed", False):
            try:
                answer = await self.store.range(RangeRequest(self.root, prefix_end(self.root), count_only=True))
                for sink in list(self._sinks.values()):
                    await sink.reload()
                self.revision = max(self.revision, answer.revision)
                self._wake()
                return
            except StoreError:
                await asyncio.sleep(RETRY_S)

    # -- waiting for a revision

    async def wait_for(self, revision: int, timeout_s: float) -> bool:
        """Whether the hub has reached `revision` in time."""
        if self.revision >= revision:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((revision, future))
        self._request_progress.set()
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            self._waiters = [w for w in self._waiters if w[1] is not future]
        return True

    def _wake(self) -> None:
        for revision, future in self._waiters:
            if revision <= self.revision and not future.done():
                future.set_result(None)

    async def newest(self) -> int:
        """The store's revision now."""
        if self.synchronous:
            return self.store.revision
        return (await self.store.range(RangeRequest(self.root, count_only=True))).revision

    # -- leases: objects that expire share one, for a while

    async def lease(self, ttl_s: int) -> int:
        """A lease that lasts at least `ttl_s`; at most a twentieth longer, so that one serves many objects.

        Source: k8s.io/apiserver pkg/storage/etcd3/lease_manager.go.
        """
        now = asyncio.get_running_loop().time()
        shared = self._leases.get(ttl_s)
        if shared is None or shared.until < now or shared.objects >= LEASE_OBJECTS:
            reuse_s = min(LEASE_REUSE_S, LEASE_REUSE_SHARE * ttl_s)
            if shared is not None:
                self.lease_objects.observe(shared.objects)
            granted = await self.store.lease_grant(ttl_s + int(reuse_s))
            shared = self._leases[ttl_s] = _SharedLease(granted.id, now + reuse_s)
        shared.objects += 1
        return shared.id

    def forget_lease(self, ttl_s: int) -> None:
        self._leases.pop(ttl_s, None)


class _SharedLease:
    __slots__ = ("id", "objects", "until")

    def __init__(self, lease_id: int, until: float) -> None:
        self.id = lease_id
        self.until = until
        self.objects = 0


def hub_of(store: Store, prefix: bytes) -> Hub:
    """The hub that serves `prefix`: one per store and root. It lives as long as the store, which carries it."""
    root = prefix[: prefix.index(b"/", 1) + 1]
    hubs: dict[bytes, Hub] = vars(store).setdefault("_hubs", {})
    if root not in hubs:
        hubs[root] = Hub(store, root)
    return hubs[root]
