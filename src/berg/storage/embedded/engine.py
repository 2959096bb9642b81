"""The embedded engine: the store in this process.

    put/delete/txn ─► Pending (evaluated now) ─► batch ─► Log (one commit) ─► Index, watches, listeners ─► answer

One batch is being committed while the next one fills; what arrives during a commit goes into the next. Only when
a batch is on disk do its changes become visible, and only then are its writers answered. A transaction that
changed nothing but looked at pending writes waits for them too: its answer would otherwise tell of writes that
may still fail.

When a commit fails (disk full, I/O error), its writers and those of the next batch, which was built on it, get
the error, the pending state is dropped, and the next write tries again.

Everything but the log's thread runs on the event loop. With no path there is no log: writes are visible at once.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from berg.machinery import collector
from berg.machinery.clock import Clock, RealClock
from berg.machinery.tasks import end
from berg.storage.embedded.compaction import AutoCompaction, Compaction
from berg.storage.embedded.index import Index
from berg.storage.embedded.leases import Leases
from berg.storage.embedded.leasing import Leasing
from berg.storage.embedded.log import Log, backup_to, vacuum
from berg.storage.embedded.pending import Pending, Result
from berg.storage.embedded.records import Compact, Meta, Record, encode
from berg.storage.embedded.watch import Watch, Watches
from berg.storage.interface import (
    DeleteRequest,
    DeleteResponse,
    Event,
    KeyValue,
    Lease,
    Listener,
    NoSpace,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RevisionCompacted,
    RevisionFuture,
    StoreError,
    Swapped,
    TxnRequest,
    TxnResponse,
    Unavailable,
    WatchRequest,
)

log = logging.getLogger(__name__)

DEFAULT_QUOTA_BYTES = 2 << 30
PROGRESS_INTERVAL_S = 600.0
NOSPACE_META = "alarm/nospace"


class _Batch:
    """Writes that go to disk together."""

    __slots__ = ("changes", "effects", "parts", "waiters")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.changes: list[KeyValue] = []
        self.effects: list[Callable[[], None]] = []
        """run when the batch is on disk, before its changes become visible"""
        self.waiters: list[tuple[asyncio.Future[Any], Any]] = []


class EmbeddedStore:
    """`path` None: in memory. `quota_bytes` 0: no quota."""

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Clock | None = None,
        quota_bytes: int = DEFAULT_QUOTA_BYTES,
        auto_compaction: AutoCompaction | None = None,
    ) -> None:
        self.path = path
        self.clock: Clock = clock or RealClock()
        self.quota_bytes = quota_bytes
        self.progress_interval_s = PROGRESS_INTERVAL_S
        self.index = Index()
        self.meta: dict[str, bytes] = {}
        """durable, beside the keys and without revisions (`set_meta`)"""
        self.watches = Watches(self.index)
        self.held = Leases(self.clock)
        self.pending = Pending(self.index, self.held.has)
        self.log = Log(path) if path is not None else None
        self._compaction = Compaction(self)
        self._leasing = Leasing(self)
        self._auto = auto_compaction
        self._seq = 0
        self.published_seq = 0
        """the log's last row whose effects are visible"""
        self._filling = _Batch()
        self._committing: _Batch | None = None
        self._scheduled = False
        self._listeners: list[Listener] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._open = False
        self._drained: asyncio.Future[None] | None = None

    # -- life

    def preload(self, kvs: Sequence[KeyValue], revision: int) -> None:
        """Before `start`, of a store in memory: begins with these keys at this revision, without their history."""
        self.index.load({kv.key: kv for kv in kvs})
        self.index.revision = self.index.compact_revision = revision

    async def start(self) -> None:
        """Raises Corrupt, Unavailable (in use by another process)."""
        self._loop = asyncio.get_running_loop()
        if self.log is not None:
            await self._restore(self.log)
        self.pending.clear()
        self._open = True
        self._tasks.append(asyncio.create_task(self._leasing.run()))
        self._tasks.append(asyncio.create_task(self._report_progress()))
        if self._auto is not None:
            self._tasks.append(asyncio.create_task(self._auto.run(self)))

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        await end(*self._tasks)
        await self._compaction.settle()
        while self._committing is not None or self._filling.waiters:
            self._drained = self._loop.create_future()
            await self._drained
        for watch in self.watches.all():
            watch.close()
        if self.log is not None:
            await self._loop.run_in_executor(None, self.log.close)

    async def _restore(self, disk: Log) -> None:
        with collector.held():
            self._compaction.replay(await self._loop.run_in_executor(None, disk.open))
        self._seq = self.published_seq = disk.last_seq

    @property
    def revision(self) -> int:
        return self.index.revision

    @property
    def compact_revision(self) -> int:
        return self.index.compact_revision

    @property
    def size_bytes(self) -> int:
        """On disk, as the quota counts it."""
        return self.log.size_bytes if self.log is not None else 0

    @property
    def in_use_bytes(self) -> int:
        return self.log.in_use_bytes if self.log is not None else 0

    # -- reading

    async def range(self, request: RangeRequest) -> RangeResponse:
        self._check_open()
        return self.index.range(request)

    def watch(self, request: WatchRequest) -> Watch:
        self._check_open()
        return self.watches.open(request)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def events_from(self, revision: int) -> Sequence[Event]:
        if revision < self.index.compact_revision:
            raise RevisionCompacted(self.index.compact_revision)
        return self.index.events_from(revision)

    async def hash(self, revision: int = 0) -> tuple[int, int]:
        self.index.check_revision(revision)
        at = revision or self.index.revision
        crc = 0
        for kv in self.index.iter_at(b"\0", b"\0", at):
            crc = zlib.crc32(encode(kv), crc)
        return crc, at

    # -- writing

    async def put(self, request: PutRequest) -> PutResponse:
        self._check_writable()
        result = self.pending.put(request)
        written = self._enter(result)
        return result.response if written is None else await written

    async def delete(self, request: DeleteRequest) -> DeleteResponse:
        self._check_open()
        result = self.pending.delete(request)
        written = self._enter(result)
        return result.response if written is None else await written

    async def txn(self, request: TxnRequest) -> TxnResponse:
        if self.alarmed and _puts(request):
            self._check_writable()
        self._check_open()
        result = self.pending.txn(request)
        written = self._enter(result)
        return result.response if written is None else await written

    async def swap(self, key: bytes, expected: int, value: bytes | None, lease: int = 0) -> Swapped:
        if value is not None and self.alarmed:
            self._check_writable()
        self._check_open()
        result = self.pending.swap(key, expected, value, lease)
        written = self._enter(result)
        return result.response if written is None else await written

    async def write(
        self, records: Sequence[Record], effect: Callable[[], None], changes: Sequence[KeyValue] = ()
    ) -> None:
        """Makes records that are not keys durable, then runs `effect`; with them `changes` of keys, which are in the
        pending state already."""
        self._check_open()
        batch = self._filling
        batch.parts += map(encode, records)
        batch.effects.append(effect)
        written = self._enter(Result(None, list(changes)))
        if written is not None:
            await written

    async def set_meta(self, name: str, value: bytes) -> None:
        """An empty value removes it."""
        await self.write([Meta(name, value)], lambda: _apply_meta(self.meta, name, value))

    def _check_open(self) -> None:
        if not self._open:
            raise Unavailable("store: closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self.quota_bytes and self.size_bytes > self.quota_bytes and not self.alarmed:
            self._raise_alarm()
        if self.alarmed:
            raise NoSpace("etcdserver: mvcc: database space exceeded")

    def _enter(self, result: Result) -> asyncio.Future[Any] | None:
        """Puts the changes into the batch. None: the answer may be given at once; else what brings it when all it
        rests on is on disk."""
        batch = self._filling
        if result.changes:
            batch.changes += result.changes
            batch.parts += map(encode, result.changes)
        elif not batch.parts and self._committing is None:
            return None
        if self.log is None:
            self._filling = _Batch()
            self._publish(batch)
            return None
        future: asyncio.Future[Any] = self._loop.create_future()
        batch.waiters.append((future, result.response))
        if self._committing is None and not self._scheduled:
            # not at once: what else is ready in this turn of the loop goes into the same commit
            self._scheduled = True
            self._loop.call_soon(self._commit)
        return future

    def _commit(self) -> None:
        self._scheduled = False
        batch = self._filling
        if self._committing is not None:
            return
        if not batch.parts:
            if batch.waiters:  # they only waited for the batch before them
                self._filling = _Batch()
                self._answer(batch)
            if self._drained is not None and not self._drained.done():
                self._drained.set_result(None)
            return
        assert self.log is not None
        self._filling = _Batch()
        self._committing = batch
        self._seq += 1
        last = batch.changes[-1].mod_revision if batch.changes else self.pending.revision
        data = b"".join(batch.parts)
        if self.log.may_write_here():
            self._committed(self.log.write_here(self._seq, last, data))
        else:
            self.log.append(self._seq, last, data, self._on_disk)

    def _on_disk(self, error: StoreError | None) -> None:
        """On the log's thread."""
        self._loop.call_soon_threadsafe(self._committed, error)

    def _committed(self, error: StoreError | None) -> None:
        batch = self._committing
        assert batch is not None
        self._committing = None
        if error is None:
            assert self.log is not None
            self.log.acknowledge(self._seq)
            self.published_seq = self._seq
            self._publish(batch)
            self._answer(batch)
            over = self.quota_bytes and self.size_bytes > self.quota_bytes and not self.alarmed
            if over and any(kv.version for kv in batch.changes):  # what only deletes may be on its way to make room
                self._raise_alarm()
        else:
            self._seq -= 1
            failed, self._filling = self._filling, _Batch()
            self.pending.clear()
            for future, _ in (*batch.waiters, *failed.waiters):
                if not future.done():
                    future.set_exception(type(error)(*error.args))
        self._commit()

    def _publish(self, batch: _Batch) -> None:
        for effect in batch.effects:
            effect()
        if not batch.changes:
            return
        index = self.index
        leases = self.held if len(self.held) else None
        events = []
        for kv in batch.changes:
            event = index.apply(kv)
            if leases is not None:
                leases.attach(kv, event.prev_kv)
            events.append(event)
        index.revision = batch.changes[-1].mod_revision
        self.pending.settle(batch.changes)
        for listener in self._listeners:
            try:
                listener(index.revision, events)
            except Exception:
                log.exception("a listener failed at revision %d", index.revision)  # the writers still get their answer
        self.watches.publish(events)

    def _answer(self, batch: _Batch) -> None:
        for future, response in batch.waiters:
            if not future.done():
                future.set_result(response)

    # -- compaction, alarms, upkeep

    async def compact(self, revision: int) -> None:
        self._check_open()
        if revision <= self.index.compact_revision:
            raise RevisionCompacted(self.index.compact_revision)
        if revision > self.index.revision:
            raise RevisionFuture("mvcc: required revision is a future revision")

        def effect() -> None:
            self.index.compact_revision = max(revision, self.index.compact_revision)

        await self.write([Compact(revision)], effect)
        self._compaction.wake()

    async def compacted(self) -> None:
        """Until what the last compaction made unreachable is gone from memory and disk."""
        await self._compaction.settle()

    @property
    def alarmed(self) -> bool:
        return NOSPACE_META in self.meta

    def _raise_alarm(self) -> None:
        self.meta[NOSPACE_META] = b"1"
        self._filling.parts.append(encode(Meta(NOSPACE_META, b"1")))
        written = self._enter(Result(None))
        if written is not None:
            # if even that does not fit, the next write over the quota raises it again
            written.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def arm(self) -> None:
        """Raises the NOSPACE alarm by hand."""
        await self.set_meta(NOSPACE_META, b"1")

    async def disarm(self) -> None:
        """Takes the NOSPACE alarm back; it comes again if the store is still over its quota."""
        await self.set_meta(NOSPACE_META, b"")

    async def defragment(self) -> None:
        await self._compaction.settle()
        await self._run_job(vacuum)

    async def backup(self, path: Path) -> None:
        """Writes a consistent copy, itself a store file, while writes go on."""
        await self._run_job(backup_to(path))

    async def _run_job(self, job: Callable[[Any], Any]) -> Any:
        if self.log is None:
            return None
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any, error: StoreError | None) -> None:
            self._loop.call_soon_threadsafe(_finish, future, result, error)

        self.log.submit(job, done)
        return await future

    async def _report_progress(self) -> None:
        while True:
            await self.clock.sleep(self.progress_interval_s)
            for watch in self.watches.all():
                if watch.request.progress_notify:
                    watch.progress(self.index.revision)

    # -- leases

    async def lease_grant(self, ttl_s: int, lease_id: int = 0) -> Lease:
        self._check_writable()
        return await self._leasing.grant(ttl_s, lease_id)

    async def lease_revoke(self, lease_id: int) -> int:
        self._check_open()
        await self._leasing.revoke(self._leasing.find(lease_id))
        return self.index.revision

    async def lease_keepalive(self, lease_id: int) -> int:
        self._check_open()
        held = self._leasing.find(lease_id)
        self.held.renew(held)
        return held.ttl_s

    async def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> Lease:
        self._check_open()
        return self._leasing.time_to_live(lease_id, keys)

    async def leases(self) -> Sequence[int]:
        self._check_open()
        return self.held.ids()


def _puts(request: TxnRequest) -> bool:
    return any(
        isinstance(op, PutRequest) or (isinstance(op, TxnRequest) and _puts(op))
        for op in (*request.success, *request.failure)
    )


def _apply_meta(meta: dict[str, bytes], name: str, value: bytes) -> None:
    if value:
        meta[name] = value
    else:
        meta.pop(name, None)


def _finish(future: asyncio.Future[Any], result: Any, error: StoreError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
