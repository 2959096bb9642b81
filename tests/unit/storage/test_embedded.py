"""The embedded engine beyond the common contract: what is on disk, and what happens when the disk is not kind."""

# ruff: noqa: ASYNC110, ASYNC221
from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from berg.machinery.clock import FakeClock
from berg.storage.embedded import AutoCompaction, EmbeddedStore
from berg.storage.embedded.log import Done, Log, ack_path, write_base
from berg.storage.embedded.walcheck import wal_path
from berg.storage.interface import (
    Compare,
    CompareResult,
    CompareTarget,
    Corrupt,
    DeleteRequest,
    KeyValue,
    NoSpace,
    PutRequest,
    RangeRequest,
    RevisionCompacted,
    TxnRequest,
    Unavailable,
    WatchRequest,
    prefix_end,
)


async def opened(path: Path | None, **kw: Any) -> EmbeddedStore:
    store = EmbeddedStore(path, **kw)
    await store.start()
    return store


async def put(store: EmbeddedStore, key: bytes, value: bytes = b"v", lease: int = 0) -> int:
    return (await store.put(PutRequest(key, value, lease))).revision


def state(store: EmbeddedStore) -> dict[bytes, KeyValue]:
    return dict(store.index.current)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_everything_is_there_after_a_restart(path: Path) -> None:
    store = await opened(path)
    lease = await store.lease_grant(100)
    first = await put(store, b"a", b"1", lease.id)
    await put(store, b"b", b"1")
    await store.delete(DeleteRequest(b"b"))
    await put(store, b"a", b"2", lease.id)
    await store.set_meta("auth", b"on")
    before, revision, digest = state(store), store.revision, await store.hash()
    await store.close()

    store = await opened(path)
    assert (state(store), store.revision, await store.hash()) == (before, revision, digest)
    assert store.meta == {"auth": b"on"}
    assert (await store.lease_time_to_live(lease.id, keys=True)).keys == (b"a",)
    watch = store.watch(WatchRequest(b"\0", b"\0", start_revision=first, prev_kv=True))
    batch = await anext(watch)
    assert [(e.kv.key, e.kv.mod_revision) for e in batch.events] == [
        (b"a", first),
        (b"b", first + 1),
        (b"b", first + 2),
        (b"a", first + 3),
    ]
    assert batch.events[3].prev_kv is not None
    await watch.aclose()
    await store.close()


async def test_compaction_survives_a_restart_and_shrinks_the_log(path: Path) -> None:
    store = await opened(path)
    lease = await store.lease_grant(100)
    for n in range(300):
        await put(store, b"k/%d" % (n % 10), b"x" * 1000, lease.id if n % 10 == 1 else 0)
    await store.delete(DeleteRequest(b"k/0"))
    at = store.revision
    await put(store, b"k/3", b"later")
    await store.compact(at)
    await store.compacted()
    assert not store.index.events_from(1)[0].kv.mod_revision < at
    before = state(store)
    assert await store._run_job(lambda db: db.execute("SELECT count(*) FROM base").fetchone()[0]) == 9
    assert await store._run_job(lambda db: db.execute("SELECT count(*) FROM log").fetchone()[0]) == 2
    await store.close()

    store = await opened(path)
    assert state(store) == before
    assert (store.revision, store.compact_revision) == (at + 1, at)
    assert (await store.lease_time_to_live(lease.id, keys=True)).keys == (b"k/1",)
    with pytest.raises(RevisionCompacted):
        await store.range(RangeRequest(b"k/3", revision=at - 1))
    assert (await store.range(RangeRequest(b"k/3", revision=at))).kvs[0].value == b"x" * 1000
    await store.defragment()
    await put(store, b"k/3", b"on")
    await store.close()
    assert (await reopened_value(path, b"k/3")) == b"on"


async def reopened_value(path: Path, key: bytes) -> bytes:
    store = await opened(path)
    value = store.index.current[key].value
    await store.close()
    return value


async def test_a_merge_that_was_cut_short_changes_nothing(path: Path) -> None:
    store = await opened(path)
    for n in range(40):
        await put(store, b"k/%d" % (n % 4), b"%d" % n)
    await store.delete(DeleteRequest(b"k/2"))
    await put(store, b"k/0", b"last")
    before, revision = state(store), store.revision
    half: list[KeyValue] = []

    async def die(revision: int) -> None:
        from berg.storage.embedded.log import merge
        from berg.storage.embedded.records import tombstone

        half.append(store.index.current[b"k/0"])
        await store._run_job(merge([*half, tombstone(b"k/2", revision)]))
        raise Unavailable("cut short")

    store._compaction._merge = die  # type: ignore[method-assign]
    await store.compact(store.revision)
    await store.compacted()
    await store.close()
    store = await opened(path)
    await store.compacted()
    assert half and (state(store), store.revision) == (before, revision)
    await store.close()
    store = await opened(path)
    assert (state(store), store.revision) == (before, revision)
    await store.close()


async def test_rows_that_were_not_dropped_in_time_do_no_harm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await opened(path)
    lease = await store.lease_grant(100)
    gone = await store.lease_grant(100)
    for n in range(40):
        await put(store, b"k/%d" % (n % 4), b"%d" % n, lease.id if n % 4 == 1 else 0)
    await store.lease_revoke(gone.id)
    await store.delete(DeleteRequest(b"k/2"))
    before, revision = state(store), store.revision
    monkeypatch.setattr("berg.storage.embedded.log.DROP_ROWS", 7)
    run_job = store._run_job
    dropped = []

    async def die_while_dropping(job: Any) -> Any:
        if "drop_rows" in job.__qualname__:
            if dropped:
                raise Unavailable("cut short")
            dropped.append(job)
        return await run_job(job)

    monkeypatch.setattr(store, "_run_job", die_while_dropping)
    await store.compact(store.revision)
    await store.compacted()
    await store.close()
    for _ in range(2):
        store = await opened(path)
        assert (state(store), store.revision, store.compact_revision) == (before, revision, revision)
        assert await store.leases() == [lease.id]
        await store.close()
    store = await opened(path)
    await put(store, b"more")
    await store.compact(store.revision)
    await store.compacted()
    assert await store._run_job(lambda db: db.execute("SELECT count(*) FROM log").fetchone()[0]) == 0
    await store.close()


async def test_writers_of_one_turn_share_a_commit(path: Path) -> None:
    store = await opened(path)
    before = store.published_seq
    await asyncio.gather(*(put(store, b"k/%d" % n) for n in range(100)))
    assert store.published_seq - before <= 2
    await store.close()


class FailingLog(Log):
    """Fails as it is told, when it is let go."""

    error: BaseException | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.let_go = threading.Event()

    def may_write_here(self) -> bool:
        return False

    def append(self, seq: int, last: int, data: bytes, done: Done) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            assert isinstance(error, (NoSpace, Unavailable))
            self._put(lambda: done(error) if self.let_go.wait(30) else None)
        else:
            super().append(seq, last, data, done)


async def test_a_failed_commit_takes_what_was_built_on_it_and_nothing_else(path: Path) -> None:
    store = EmbeddedStore(path)
    store.log = log = FailingLog(path)
    await store.start()
    await put(store, b"a", b"1")
    revision = store.revision
    log.error = NoSpace("full")
    writing = [asyncio.create_task(put(store, b"a", b"2"))]
    while log.error is not None:
        await asyncio.sleep(0)
    writing.append(asyncio.create_task(put(store, b"b", b"on top")))  # the first is being committed: the next batch
    await asyncio.sleep(0)
    log.let_go.set()
    first, second = await asyncio.gather(*writing, return_exceptions=True)
    assert isinstance(first, NoSpace) and isinstance(second, NoSpace)
    assert store.revision == revision and store.index.current[b"a"].value == b"1"
    assert not store.pending.overlay
    assert await put(store, b"a", b"3") == revision + 1
    await store.close()
    assert await reopened_value(path, b"a") == b"3"


async def test_an_answer_that_rests_on_a_pending_write_waits_for_it(path: Path) -> None:
    store = await opened(path)
    writing = asyncio.create_task(put(store, b"a", b"1"))
    await asyncio.sleep(0)
    create = TxnRequest((Compare(b"a", CompareTarget.MOD, CompareResult.EQUAL, 0),), (PutRequest(b"a", b"2"),))
    answer = await store.txn(create)
    assert not answer.succeeded
    assert writing.done() and store.index.current[b"a"].value == b"1"
    await store.close()


async def test_an_io_error_is_survived(path: Path) -> None:
    store = await opened(path)
    await put(store, b"a", b"1")
    log = store.log
    assert log is not None and log._db is not None
    log._db.close()  # from now on every statement fails
    with pytest.raises(Unavailable):
        await put(store, b"a", b"2")
    assert await put(store, b"a", b"3") == store.revision
    await store.close()
    assert await reopened_value(path, b"a") == b"3"


@pytest.mark.root
async def test_a_full_disk_refuses_writes_until_there_is_room(tmp_path: Path) -> None:
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 1_000_000)
        store = await opened(disk / "store.db")
        acknowledged: dict[bytes, bytes] = {}
        with pytest.raises(NoSpace):
            for n in range(1000):
                key, value = b"k/%d" % n, os.urandom(5000)
                await put(store, key, value)
                acknowledged[key] = value
        assert {k: kv.value for k, kv in state(store).items()} == acknowledged
        ballast.unlink()
        await put(store, b"again", b"yes")
        await store.close()
        store = await opened(disk / "store.db")
        assert {k: kv.value for k, kv in state(store).items()} == {**acknowledged, b"again": b"yes"}
        await store.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# -- damage


async def crashed(path: Path, tmp_path: Path, commits: int = 30) -> Path:
    """A copy of a store's files as a crash would leave them, the log not checkpointed."""
    store = await opened(path)
    for n in range(commits):
        await put(store, b"k/%d" % n, os.urandom(500))
    copy = tmp_path / "crashed.db"
    for source, target in ((path, copy), (wal_path(path), wal_path(copy)), (ack_path(path), ack_path(copy))):
        target.write_bytes(source.read_bytes())
    await store.close()
    return copy


async def test_a_crashed_store_opens_whole(path: Path, tmp_path: Path) -> None:
    copy = await crashed(path, tmp_path)
    store = await opened(copy)
    assert len(state(store)) == 30
    await store.close()


async def test_a_torn_last_page_that_nobody_was_told_of_is_dropped(path: Path, tmp_path: Path) -> None:
    copy = await crashed(path, tmp_path)
    wal = wal_path(copy)
    data = bytearray(wal.read_bytes())
    with wal.open("ab") as f:  # half a frame more: a commit that was being written
        f.write(bytes(data[-8216:-4000]))
    store = await opened(copy)
    assert len(state(store)) == 30
    await store.close()


@pytest.mark.parametrize("cut", [1, 3])
async def test_a_log_that_was_cut_off_is_refused(path: Path, tmp_path: Path, cut: int) -> None:
    copy = await crashed(path, tmp_path)
    wal = wal_path(copy)
    os.truncate(wal, wal.stat().st_size - cut * (8192 + 24))
    with pytest.raises(Corrupt, match="were acknowledged, but the log ends at"):
        await opened(copy)


async def test_damage_in_the_middle_of_the_log_is_refused(path: Path, tmp_path: Path) -> None:
    copy = await crashed(path, tmp_path)
    ack_path(copy).unlink()  # not even the mark is needed to see this
    wal = wal_path(copy)
    data = bytearray(wal.read_bytes())
    data[len(data) // 2] ^= 0xFF
    wal.write_bytes(data)
    with pytest.raises(Corrupt, match="commits behind it"):
        await opened(copy)


async def test_a_damaged_value_is_refused_and_named(path: Path) -> None:
    store = await opened(path)
    await put(store, b"k/first", b"1" * 100)
    await store.compact(store.revision)
    await store.compacted()
    await store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE base SET value = ?", (b"2" * 100,))
    db.close()
    with pytest.raises(Corrupt, match="k/first is damaged"):
        await opened(path)


async def test_a_missing_row_of_the_log_is_refused(path: Path) -> None:
    store = await opened(path)
    for n in range(5):
        await put(store, b"k/%d" % n)
    await store.close()
    db = sqlite3.connect(path)
    db.execute("DELETE FROM log WHERE seq = 3")
    db.commit()
    db.close()
    with pytest.raises(Corrupt, match="log is damaged at row 4"):
        await opened(path)


@pytest.mark.parametrize("content", [b"not a database at all" * 500, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_file_that_is_no_store_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(Corrupt):
        await opened(path)
    assert path.read_bytes() == content


async def test_a_store_of_another_format_is_refused(path: Path) -> None:
    await (await opened(path)).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(Corrupt, match="format 99"):
        await opened(path)


async def test_one_process_at_a_time(path: Path) -> None:
    store = await opened(path)
    with pytest.raises(Unavailable, match="in use by another process"):
        await opened(path)
    await put(store, b"a")
    await store.close()


async def test_a_key_that_one_revision_changed_twice_is_found_again(path: Path) -> None:
    store = await opened(path)
    everything = DeleteRequest(b"\0", b"\0")
    await store.txn(TxnRequest(success=(PutRequest(b"gone", b"1"), everything)))
    await store.txn(TxnRequest(success=(everything, PutRequest(b"there", b"1"))))
    last = (await store.txn(TxnRequest(success=(everything, PutRequest(b"there", b"2"))))).revision
    for compact in (False, True, False):
        if compact:
            await store.compact(last)
            await store.compacted()
        assert state(store) == {b"there": KeyValue(b"there", b"2", last, last, 1)}
        await store.close()
        store = await opened(path)
    assert state(store) == {b"there": KeyValue(b"there", b"2", last, last, 1)}
    await store.close()


# -- quota, backup, restore


async def test_over_the_quota_only_what_frees_space_is_let_in(path: Path) -> None:
    store = await opened(path, quota_bytes=400_000)
    with pytest.raises(NoSpace):
        for n in range(1000):
            await put(store, b"k/%d" % n, os.urandom(5000))
    assert store.alarmed
    small = TxnRequest(success=(PutRequest(b"x", b""),))
    for txn in (small, TxnRequest(success=(small,))):  # etcd overlooks the nested one, and grows
        with pytest.raises(NoSpace):
            await store.txn(txn)
    await store.close()
    store = await opened(path, quota_bytes=400_000)
    assert store.alarmed
    await store.delete(DeleteRequest(b"k/", prefix_end(b"k/")))
    await store.compact(store.revision)
    await store.compacted()
    await store.defragment()
    assert store.size_bytes < 100_000
    with pytest.raises(NoSpace):
        await put(store, b"a")  # until somebody says that it is over
    await store.disarm()
    await put(store, b"a")
    await store.close()


@pytest.mark.parametrize("way", ["txn", "swap"])
async def test_whatever_writes_comes_up_against_the_quota(path: Path, way: str) -> None:
    store = await opened(path, quota_bytes=400_000)
    with pytest.raises(NoSpace):
        for n in range(1000):
            key, value = b"k/%d" % n, os.urandom(5000)
            if way == "txn":
                await store.txn(TxnRequest(success=(PutRequest(key, value),)))
            else:
                await store.swap(key, 0, value)
    assert store.alarmed and store.size_bytes < 600_000
    await store.delete(DeleteRequest(b"k/", prefix_end(b"k/")))
    await store.disarm()
    await store.delete(DeleteRequest(b"k/"))
    assert not store.alarmed  # not yet small, but nothing was added
    await store.close()


async def test_a_backup_is_a_store(path: Path, tmp_path: Path) -> None:
    store = await opened(path)
    await asyncio.gather(*(put(store, b"k/%d" % n) for n in range(50)))
    before = state(store)
    backup, _ = await asyncio.gather(store.backup(tmp_path / "backup.db"), put(store, b"meanwhile"))
    del backup
    await store.close()
    copy = await opened(tmp_path / "backup.db")
    assert {k: v for k, v in state(copy).items() if k != b"meanwhile"} == before
    await put(copy, b"on")
    await copy.close()


async def test_a_store_made_of_a_snapshot(path: Path) -> None:
    kvs = [KeyValue(b"a", b"1", 5, 9, 3), KeyValue(b"b", b"2", 6, 6, 1, 77)]
    write_base(path, kvs, 12, {77: 60})
    store = await opened(path)
    assert (list(state(store).values()), store.revision, store.compact_revision) == (kvs, 12, 12)
    assert (await store.lease_time_to_live(77, keys=True)).keys == (b"b",)
    assert await put(store, b"c") == 13
    await store.close()
    with pytest.raises(FileExistsError):
        write_base(path, kvs, 12, {})


# -- time


async def test_leases_run_out(path: Path) -> None:
    clock = FakeClock()
    store = await opened(path, clock=clock)
    short, long = await store.lease_grant(5), await store.lease_grant(60)
    await put(store, b"short", b"", short.id)
    await put(store, b"long", b"", long.id)
    await clock.advance(4)
    await store.lease_keepalive(short.id)
    await clock.advance(4)
    assert set(state(store)) == {b"short", b"long"}
    await clock.advance(2)
    while b"short" in store.index.current:
        await asyncio.sleep(0.001)
    assert await store.leases() == [long.id]
    await store.close()
    store = await opened(path, clock=clock)
    assert (await store.lease_time_to_live(long.id)).remaining_s == 60
    await store.close()


async def test_progress_is_told_to_those_who_asked() -> None:
    clock = FakeClock()
    store = await opened(None, clock=clock)
    watch = store.watch(WatchRequest(b"a", progress_notify=True))
    reading = asyncio.ensure_future(anext(watch))
    await put(store, b"b")
    await clock.advance(601)
    batch = await reading
    assert (batch.revision, batch.events) == (store.revision, ())
    await store.close()


async def test_periodic_compaction_keeps_what_it_is_told() -> None:
    clock = FakeClock()
    store = await opened(None, clock=clock, auto_compaction=AutoCompaction("periodic", retention_s=300))
    for _ in range(60):
        await put(store, b"k")
        await clock.advance(10)
    assert 25 <= store.revision - store.compact_revision <= 35
    await store.close()


async def test_compaction_by_revision_and_by_size_bound_history() -> None:
    for auto in (
        AutoCompaction("revision", retention_revisions=100, check_s=1),
        AutoCompaction("periodic", retention_s=1e9, history_bytes=100_000, check_s=1),
    ):
        clock = FakeClock()
        store = await opened(None, clock=clock, auto_compaction=auto)
        for _ in range(20):
            for _ in range(50):
                await put(store, b"k", b"x" * 1000)
            await clock.advance(1)
        await store.compacted()
        assert len(store.index.events) <= 200
        assert sum(map(len, store.index.history.values())) <= 200
        await store.close()
