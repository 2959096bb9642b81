"""Forgetting history: in memory a slice at a time, on disk behind it.

A compaction is one record in the log; from then on older revisions are refused. What follows is upkeep that may
stop anywhere: events and versions are trimmed from the index in slices (the loop goes on in between), the keys
they were about are brought up to date in the log's base, and at the end the rows that are all older are dropped.

`replay` is the other end of it: it builds the index from the base and the rows. Rows up to the compaction
revision only say how the state came about; a base that a crash left half merged is newer than they are in some
keys, so there the newer revision wins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berg.storage.embedded.log import Saved, drop_rows, finish_merge, merge
from berg.storage.embedded.records import Compact, Grant, Meta, Revoke, tombstone
from berg.storage.interface import Event, EventType, KeyValue, RevisionCompacted, RevisionFuture, StoreError

if TYPE_CHECKING:
    from berg.storage.embedded.engine import EmbeddedStore

SLICE = 1000
"""events forgotten between two turns of the loop"""
STEP_BYTES = 1 << 20
"""of the base written between two commits"""


class Compaction:
    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._unmerged: set[bytes] = set()
        """keys whose base row is older than the compaction revision's state"""
        self._merged_to = 1
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def settle(self) -> None:
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        index = self._store.index
        while self._merged_to < index.compact_revision:
            revision = index.compact_revision
            while touched := index.trim(SLICE):
                self._unmerged |= touched
                await asyncio.sleep(0)
            # events of the compaction revision itself are kept for watches, but its state belongs to the base
            for event in index.events_from(revision):
                if event.kv.mod_revision > revision:
                    break
                self._unmerged.add(event.kv.key)
            try:
                await self._merge(revision)
            except StoreError:
                return  # the log still has everything; the next compaction merges it
            self._merged_to = revision

    async def _merge(self, revision: int) -> None:
        store = self._store
        if store.log is None:
            self._unmerged.clear()
            return
        keys = list(self._unmerged)
        step: list[KeyValue] = []
        size = 0
        for key in keys:
            kv = store.index.get_at(key, revision) or tombstone(key, revision)
            step.append(kv)
            size += len(kv.value) + 200
            if size >= STEP_BYTES:
                await store._run_job(merge(step))
                step, size = [], 0
        if step:
            await store._run_job(merge(step))
        merged = finish_merge(revision, store.published_seq, store.held.ttls(), dict(store.meta))
        needed = await store._run_job(merged)
        self._unmerged.difference_update(keys)
        while await store._run_job(drop_rows(needed)):
            pass

    def replay(self, saved: Saved) -> None:
        """Builds the index, the leases and the meta values of a store that has just been opened."""
        store = self._store
        index = store.index
        records = list(saved.records())
        compacted = max((r.revision for r in records if isinstance(r, Compact)), default=0)
        base = saved.base
        index.compact_revision = max(compacted, saved.base_revision if saved.base_revision > 1 else 0)
        self._merged_to = saved.base_revision
        leases = dict(saved.leases)
        meta = saved.meta
        later: list[KeyValue] = []
        for record in records:
            if isinstance(record, KeyValue):
                if record.mod_revision > compacted:
                    later.append(record)
                    continue
                old = base.get(record.key)
                if old is None or old.mod_revision <= record.mod_revision:
                    self._unmerged.add(record.key)
                    if record.version:
                        base[record.key] = record
                    elif old is not None:
                        del base[record.key]
            elif isinstance(record, Grant):
                leases[record.lease] = record.ttl_s
            elif isinstance(record, Revoke):
                leases.pop(record.lease, None)
            elif isinstance(record, Meta):
                if record.value:
                    meta[record.name] = record.value
                else:
                    meta.pop(record.name, None)
        index.load(base)
        index.events = [
            Event(EventType.PUT, kv) for kv in base.values() if kv.mod_revision == index.compact_revision
        ]  # a watch may start at the compaction revision
        for kv in later:
            if kv.mod_revision > saved.base_revision:
                index.apply(kv)
        index.revision = max(saved.base_revision, compacted, max((row[1] for row in saved.rows), default=1))
        for lease_id, ttl_s in leases.items():
            store.held.grant(lease_id, ttl_s)
        store.meta.update(meta)
        for kv in index.current.values():
            if kv.lease:
                store.held.attach(kv, None)
        if self._merged_to < index.compact_revision:
            self.wake()


@dataclass(slots=True)
class AutoCompaction:
    """Keeps history bounded.

    `mode` "periodic": keep `retention_s` seconds of it. "revision": keep `retention_revisions`.
    `history_bytes`: compact earlier when what is kept costs more than this (0: no such limit).

    Source: etcd server/etcdserver/api/v3compactor.
    """

    mode: str = "periodic"
    retention_s: float = 300.0
    retention_revisions: int = 0
    history_bytes: int = 0
    check_s: float = 10.0

    async def run(self, store: EmbeddedStore) -> None:
        seen: deque[tuple[float, int]] = deque()
        interval_s = min(self.check_s, self.retention_s / 10 if self.mode == "periodic" else self.check_s)
        while True:
            now = store.clock.monotonic()
            target = 0
            if self.mode == "revision":
                target = store.revision - self.retention_revisions
            else:
                seen.append((now, store.revision))
                while seen and seen[0][0] <= now - self.retention_s:
                    target = seen.popleft()[1]
            if self.history_bytes and store.index.event_bytes > self.history_bytes:
                events = store.index.events
                target = max(target, events[len(events) // 2].kv.mod_revision)
            if target > store.compact_revision:
                try:
                    await store.compact(target)
                except (RevisionCompacted, RevisionFuture):
                    pass
                except StoreError:
                    pass  # the disk is full or gone: the next round tries again
            await store.clock.sleep(interval_s)
