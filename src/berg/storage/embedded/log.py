"""The durable log: one SQLite file in WAL mode, written by its thread, or by the loop while the disk is quick.

    log      one row per commit: the records of every write that went into it, with their checksum
    base     the live keys as they were at `base_revision`, one row each, with a checksum
    lease, meta

A commit is one INSERT, synced before `append` calls back. Compaction moves what is live into `base` in small
steps between commits and then drops the rows that are all older; until that last step nothing is missing from
the log, so dying in the middle costs nothing.

Beside the file stands `FILE.ack`: the number of the last row that was acknowledged, written (not synced) after
each commit. It never runs ahead of the disk, so a log that ends before it has lost acknowledged writes, and is
refused. SQLite by itself would open a cut-off WAL without a word.

The thread owns the connection as long as it has something to do; when it has not, `write_here` may be called, on
the thread that calls `submit` and `append`.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berg.storage.embedded.pace import Pace
from berg.storage.embedded.records import BadRecord, Record, decode
from berg.storage.embedded.walcheck import check_wal, wal_path
from berg.storage.interface import Corrupt, KeyValue, NoSpace, StoreError, Unavailable

APPLICATION_ID = 0x42455247
FORMAT = 1

_CHECKPOINT_PAGES, _PAGE_BYTES = 4000, 8192
WAL_BYTES = (_CHECKPOINT_PAGES + 100) * (_PAGE_BYTES + 24)
BUSY_WAL_BYTES, GROW_BYTES = 512 << 10, 8 << 20

DROP_ROWS = 200
SWITCH_INTERVAL_S = 0.0005

_ACK = struct.Struct("<QI")
_SCHEMA = """
CREATE TABLE log (seq INTEGER PRIMARY KEY, last INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE base (key BLOB PRIMARY KEY, created INTEGER NOT NULL, modified INTEGER NOT NULL,
                   version INTEGER NOT NULL, lease INTEGER NOT NULL, crc INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl INTEGER NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""
_UPSERT = "INSERT OR REPLACE INTO base (key, created, modified, version, lease, crc, value) VALUES (?,?,?,?,?,?,?)"

Done = Callable[[StoreError | None], None]


@dataclass(slots=True)
class Saved:
    """What the file holds: the base, and the rows to replay on it."""

    base_revision: int
    base: dict[bytes, KeyValue]
    leases: dict[int, int]
    meta: dict[str, bytes]
    rows: list[tuple[int, int, bytes]] = field(default_factory=list)
    """(seq, last revision, records)"""

    def records(self) -> Iterator[Record]:
        for seq, _, data in self.rows:
            try:
                yield from decode(data)
            except BadRecord as e:
                raise Corrupt(f"log row {seq} is damaged: {e}") from e


def failure(e: sqlite3.Error | OSError) -> StoreError:
    """What a failed write is to the writer."""
    code = getattr(e, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL or getattr(e, "errno", None) == 28:
        return NoSpace(f"store: no space left on the device: {e}")
    return Unavailable(f"store: {e}")


class Log:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self.in_use_bytes = 0
        self._db: sqlite3.Connection | None = None
        self._acked = 0
        self._ack_fd = -1
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-commit", daemon=True)
        self._queued = self._finished = 0
        """jobs of the thread; each number is written by one side only"""
        self._broken = False
        self._wal_pages = 0
        """about how many there are in the write-ahead log since the last checkpoint"""
        self.pace = Pace()

    # -- opening and closing

    def open(self) -> Saved:
        """Opens or makes the file, checks it whole, and starts the thread. Raises Corrupt, Unavailable."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # nobody else may read what is stored; SQLite gives its other files the same rights
            if not self.path.exists():
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                _sync(self.path.parent)
            check_wal(self.path)
            self._db = self._connect()
            saved = self._load(self._db)
            self._open_ack(saved)
            self._measure()
        except sqlite3.DatabaseError as e:
            self._disconnect()
            if e.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Unavailable(f"{self.path} is in use by another process") from e
            if e.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise Corrupt(f"{self.path} is damaged ({e}); restore it from a backup or a snapshot") from e
            raise failure(e) from e
        except OSError as e:
            self._disconnect()
            raise failure(e) from e
        except BaseException:
            self._disconnect()
            raise
        # A thread that wants the interpreter lock from a busy loop waits this long for it (5 ms by default), several
        # times a commit. Measured with a loop that never rests: 440 writes/s with the default, 2,040 with this.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        self._thread.start()
        return saved

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0.5)
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.execute(f"PRAGMA page_size={_PAGE_BYTES}")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            db.execute("PRAGMA cache_size=-8192")
            ident = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if not ident and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                db.executescript(
                    f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA application_id={APPLICATION_ID};"
                    f"PRAGMA user_version={FORMAT};COMMIT;"
                )
            elif ident != APPLICATION_ID:
                raise Corrupt(f"{self.path} is not a Berg store")
            elif version != FORMAT:
                raise Corrupt(f"{self.path} has format {version}; this version of Berg reads format {FORMAT}")
            else:
                db.execute("BEGIN IMMEDIATE")  # takes the lock that keeps a second process out
                db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _load(self, db: sqlite3.Connection) -> Saved:
        meta = dict(db.execute("SELECT name, value FROM meta"))
        saved = Saved(
            base_revision=int(meta.pop("base_revision", b"1")),
            base={},
            leases=dict(db.execute("SELECT id, ttl FROM lease")),
            meta=meta,
        )
        crc32 = zlib.crc32
        base = saved.base
        for key, created, modified, version, lease, crc, value in db.execute(
            "SELECT key, created, modified, version, lease, crc, value FROM base"  # in the order of the file
        ):
            if crc32(value, modified & 0xFFFFFFFF) != crc:
                raise Corrupt(
                    f"{self.path}: the value of {key.decode(errors='replace')} is damaged; "
                    "restore the store from a backup or a snapshot"
                )
            base[key] = KeyValue(key, value, created, modified, version, lease)
        expected: int | None = None
        for seq, last, crc, data in db.execute("SELECT seq, last, crc, data FROM log ORDER BY seq"):
            if crc32(data) != crc or (expected is not None and seq != expected):
                raise Corrupt(
                    f"{self.path}: the log is damaged at row {seq}; restore the store from a backup or a snapshot"
                )
            saved.rows.append((seq, last, data))
            expected = seq + 1
        self._acked = saved.rows[-1][0] if saved.rows else int(meta.pop("base_seq", b"0"))
        meta.pop("base_seq", None)
        return saved

    def _open_ack(self, saved: Saved) -> None:
        path = ack_path(self.path)
        self._ack_fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        mark = os.pread(self._ack_fd, _ACK.size, 0)
        if len(mark) == _ACK.size:
            seq, crc = _ACK.unpack(mark)
            # a torn mark says nothing: it is not synced, and only a lower bound
            if crc == zlib.crc32(mark[:8]) and seq > self._acked:
                raise Corrupt(
                    f"{self.path}: commits up to {seq} were acknowledged, but the log ends at {self._acked}: "
                    f"the log has been cut off. Restore the store from a backup or a snapshot, or, to go on without "
                    f"the lost writes, remove {path}"
                )
        self.acknowledge(self._acked)

    @property
    def last_seq(self) -> int:
        return self._acked

    def close(self) -> None:
        """Finishes the jobs that were submitted, then closes the file."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._ack_fd >= 0:
            os.close(self._ack_fd)
            self._ack_fd = -1

    # -- the thread

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            self._finished += 1

    def _put(self, job: Callable[[], None]) -> None:
        self._queued += 1
        self._jobs.put(job)

    def may_write_here(self) -> bool:
        """Asked once for each commit: `write_here`, or else `append`."""
        return self._queued == self._finished and self.pace.quick()

    def write_here(self, seq: int, last: int, data: bytes) -> StoreError | None:
        """Writes one commit; it is on disk, or has failed, when this returns."""
        started = time.perf_counter()
        failed = self._append(seq, last, zlib.crc32(data), data)
        self.pace.took(time.perf_counter() - started)
        self._keep_up(seq)
        return failed

    def append(self, seq: int, last: int, data: bytes, done: Done) -> None:
        """Writes one commit; `done` is called on the log's thread when it is on disk or has failed.

        The thread asks for the interpreter lock as seldom as it can: a busy loop lets it wait each time. So the
        checksum is made here, and the mark of what is acknowledged is the loop's business (`acknowledge`).
        """
        crc = zlib.crc32(data)
        self._put(lambda: done(self._append(seq, last, crc, data)))
        self._keep_up(seq)

    def acknowledge(self, seq: int) -> None:
        """The commit is on disk, and its writers are about to be told."""
        head = seq.to_bytes(8, "little")
        try:
            os.pwrite(self._ack_fd, head + zlib.crc32(head).to_bytes(4, "little"), 0)
        except OSError:
            pass  # the mark is a lower bound, and stays one

    def _append(self, seq: int, last: int, crc: int, data: bytes) -> StoreError | None:
        try:
            db = self._usable()
            db.execute("INSERT INTO log (seq, last, crc, data) VALUES (?,?,?,?)", (seq, last, crc, data))
        except (sqlite3.Error, OSError) as e:
            self._after_failure(e)
            return failure(e)
        self._acked = seq
        self.size_bytes += len(data)
        self._wal_pages += 2 + len(data) // _PAGE_BYTES
        return None

    def _keep_up(self, seq: int) -> None:
        if seq % 64 == 0:
            self._put(self._upkeep)

    def _upkeep(self) -> None:
        try:
            db = self._usable()
            self._measure()
            self._grow_wal()
            if self._wal_pages > _CHECKPOINT_PAGES * 3 // 4:  # before SQLite does it in the middle of a commit
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._wal_pages = 0
        except sqlite3.Error as e:
            self._after_failure(e)
        except OSError:
            pass  # no room to grow ahead of time

    def _grow_wal(self) -> None:
        """Gives a busy store's write-ahead log its whole size ahead of time: syncing a write into space that is
        there takes half as long as one that makes the file longer. SQLite ignores what lies behind its last frame."""
        wal = wal_path(self.path)
        size = wal.stat().st_size
        if BUSY_WAL_BYTES <= size < WAL_BYTES:
            fd = os.open(wal, os.O_WRONLY)
            try:
                os.pwrite(fd, bytes(min(GROW_BYTES, WAL_BYTES - size)), size)
            finally:
                os.close(fd)

    def _usable(self) -> sqlite3.Connection:
        """The connection, made anew after an I/O error: what the failed commit may have left behind is undone."""
        if self._broken or self._db is None:
            if self._db is not None:
                self._db.close()
                self._db = None
            db = self._connect()
            db.execute("DELETE FROM log WHERE seq > ?", (self._acked,))
            self._db = db
            self._broken = False
        return self._db

    def _after_failure(self, e: sqlite3.Error | OSError) -> None:
        if getattr(e, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
            self._broken = True
        elif self._db is not None and self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _measure(self) -> None:
        assert self._db is not None
        size = self._db.execute("PRAGMA page_size").fetchone()[0]
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        self.size_bytes = pages * size
        self.in_use_bytes = (pages - free) * size

    def submit(self, job: Callable[[sqlite3.Connection], Any], done: Callable[[Any, StoreError | None], None]) -> None:
        """Runs `job` on the thread, between commits; `done` is called there with its result or its failure."""

        def run() -> None:
            try:
                result = job(self._usable())
                self._measure()
            except (sqlite3.Error, OSError) as e:
                self._after_failure(e)
                done(None, failure(e))
            else:
                done(result, None)

        self._put(run)


def ack_path(path: Path) -> Path:
    return path.with_name(path.name + ".ack")


# -- jobs for `submit`


def merge(changed: Sequence[KeyValue]) -> Callable[[sqlite3.Connection], None]:
    """Brings some keys of the base up to date (a tombstone removes one)."""

    def job(db: sqlite3.Connection) -> None:
        with _transaction(db):
            db.executemany(_UPSERT, (_row(kv) for kv in changed if kv.version))
            db.executemany("DELETE FROM base WHERE key = ?", ((kv.key,) for kv in changed if not kv.version))

    return job


def finish_merge(
    revision: int, seq: int, leases: dict[int, int], meta: dict[str, bytes]
) -> Callable[[sqlite3.Connection], int]:
    """Declares the base complete at `revision`; returns the first row that is still needed (see `drop_rows`).

    Rows stay in one run: the first one needed is the first with a newer revision, or the first after `seq`, which
    is the row that `leases` and `meta` are as of. Replaying the rest, or any longer run that ends the same, ends at
    the same state, because only the last record about a lease or a name counts.
    """

    def job(db: sqlite3.Connection) -> int:
        with _transaction(db):
            needed = db.execute("SELECT min(seq) FROM log WHERE last > ? OR seq > ?", (revision, seq)).fetchone()[0]
            newest = db.execute("SELECT max(seq) FROM log").fetchone()[0]
            db.execute("DELETE FROM lease")
            db.executemany("INSERT INTO lease (id, ttl) VALUES (?,?)", leases.items())
            db.execute("DELETE FROM meta WHERE name NOT IN ('base_revision', 'base_seq')")
            db.executemany("INSERT INTO meta (name, value) VALUES (?,?)", meta.items())
            _set_meta(db, "base_revision", revision)
            if newest is not None:
                _set_meta(db, "base_seq", newest)  # where the numbers go on if no row is left
        return int(needed if needed is not None else (newest or 0) + 1)

    return job


def drop_rows(before: int) -> Callable[[sqlite3.Connection], bool]:
    """Drops some of the oldest rows up to `before`; whether there may be more. Few at a time: commits wait."""

    def job(db: sqlite3.Connection) -> bool:
        rows = "SELECT seq FROM log WHERE seq < ? ORDER BY seq LIMIT ?"
        return db.execute(f"DELETE FROM log WHERE seq IN ({rows})", (before, DROP_ROWS)).rowcount == DROP_ROWS

    return job


def vacuum(db: sqlite3.Connection) -> None:
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def backup_to(path: Path) -> Callable[[sqlite3.Connection], None]:
    """A copy of the store as it is between two commits; it is a store file by itself."""

    def job(db: sqlite3.Connection) -> None:
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        db.execute("VACUUM INTO ?", (str(part),))
        _sync(part)
        part.replace(path)
        _sync(path.parent)

    return job


def write_base(
    path: Path,
    kvs: Iterable[KeyValue],
    revision: int,
    leases: dict[int, int],
    meta: Mapping[str, bytes] | None = None,
) -> None:
    """Makes a new store file that holds `kvs` at `revision` (a restored snapshot). Raises FileExistsError."""
    if path.exists():
        raise FileExistsError(path)
    log = Log(path)
    db = log._connect()
    try:
        with _transaction(db):
            db.executemany(_UPSERT, (_row(kv) for kv in kvs))
            db.executemany("INSERT INTO lease (id, ttl) VALUES (?,?)", leases.items())
            db.executemany("INSERT INTO meta (name, value) VALUES (?,?)", (meta or {}).items())
            _set_meta(db, "base_revision", revision)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _row(kv: KeyValue) -> tuple[object, ...]:
    crc = zlib.crc32(kv.value, kv.mod_revision & 0xFFFFFFFF)
    return (kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.lease, crc, kv.value)


def _set_meta(db: sqlite3.Connection, name: str, value: int) -> None:
    db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?,?)", (name, str(value).encode()))


class _transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT" if kind is None else "ROLLBACK")
