"""`DATA-DIR/member`: the v2 keys once more, in the files of a real etcd, so that `etcdctl backup` finds them.

`etcdctl backup` (API 2) asks no server: it reads a snapshot and the log behind it out of the data directory, while the
server runs. What it makes of them, a real etcd starts on (`--force-new-cluster`).

    snap/TERM-INDEX.snap        the tree as it was when the server started, or the log grew long
    wal/SEQUENCE-INDEX.wal      every change since: append-only, one entry each, at the index of the change

Berg never reads these files: what is true is in the store. So nothing is synced here, and at a start they are made
anew. The v3 keys are not in them; those are backed up by `etcdctl snapshot save`.

Source: etcd server/storage/wal, api/snap, v2store (formats); etcdctl ctlv2 backup_command.go (3.4).
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google_crc32c

from berg.etcd.member import TERM
from berg.etcd.v2.tree import Change, Node
from berg.machinery.codec.wire import record, varint

_METADATA, _ENTRY, _STATE, _CRC, _SNAPSHOT = 1, 2, 3, 4, 5
_KEYS, _USERS = "/1", "/2"
_NEVER = "0001-01-01T00:00:00Z"
HISTORY = 1000
LONG = 10_000
"""entries in a log before it begins again at a new snapshot"""


class DataDir:
    def __init__(self, folder: Path, member_id: int, cluster_id: int) -> None:
        self._folder = folder / "member"
        self._ids = (member_id, cluster_id)
        self._log: Any = None
        self._crc = 0
        self._sequence = 0
        self.entries = 0
        """since the snapshot"""

    def begin(self, index: int, nodes: Mapping[str, Node], users: Mapping[str, Any]) -> None:
        """Everything from here on: a snapshot of the tree at `index`, and an empty log. Raises OSError."""
        snap, wal = self._folder / "snap", self._folder / "wal"
        if self._log is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        else:
            self._log.close()
            self._sequence += 1
        for folder in (snap, wal):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        old = [*snap.iterdir(), *wal.iterdir()]
        image = snap / f"{TERM:016x}-{index:016x}.snap"
        _place(image, _snapshot_file(_store(index, nodes, users), index))
        log = wal / f"{self._sequence:016x}-{index:016x}.wal"
        _place(log, self._head(index))
        self._log = log.open("ab", buffering=0)
        self.entries = 0
        for path in old:
            if path != image:
                path.unlink()

    def append(self, change: Change) -> None:
        """Raises OSError."""
        index = change.event.index
        entry = _numbers((2, TERM), (3, index)) + record(4, record(2, _request(change)))
        self._log.write(self._frame(_ENTRY, entry) + self._frame(_STATE, _hard_state(self._ids[0], index)))
        self.entries += 1

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def _head(self, index: int) -> bytes:
        self._crc = 0
        member_id, cluster_id = self._ids
        return (
            self._frame(_CRC, b"")
            + self._frame(_METADATA, _numbers((1, member_id), (2, cluster_id)))
            + self._frame(_SNAPSHOT, _numbers((1, index), (2, TERM)))
            + self._frame(_STATE, _hard_state(member_id, index))
        )

    def _frame(self, kind: int, data: bytes) -> bytes:
        """A record of the log: its length, itself, and zeros up to a multiple of eight. Each carries the checksum of
        all data up to it."""
        self._crc = google_crc32c.extend(self._crc, data)
        body = _numbers((1, kind), (2, self._crc)) + (record(3, data) if data else b"")
        padding = -len(body) % 8
        length = len(body) | ((0x80 | padding) << 56 if padding else 0)
        return struct.pack("<Q", length) + body + bytes(padding)


def _place(path: Path, data: bytes) -> None:
    """Whole or not at all: somebody may be reading."""
    new = path.with_name(path.name + ".tmp")
    new.touch(mode=0o600)
    new.write_bytes(data)
    new.replace(path)


def _numbers(*fields: tuple[int, int]) -> bytes:
    return b"".join(varint(number << 3) + varint(value) for number, value in fields)


def _hard_state(vote: int, commit: int) -> bytes:
    return _numbers((1, TERM), (2, vote), (3, commit))


def _request(change: Change) -> bytes:
    """The v2 request that makes this change of a tree that stands where ours stood."""
    event = change.event
    path = _KEYS + event.path
    if event.action in ("delete", "expire", "compareAndDelete"):
        return record(2, b"DELETE") + record(3, path.encode()) + _numbers((5, 1), (12, 1))
    node = change.puts[-1]
    out = record(2, b"PUT") + record(3, path.encode())
    if node.value is not None and not event.refresh:
        out += record(4, node.value.encode())
    out += _numbers((5, node.is_dir and event.action in ("set", "create")))
    if event.action == "compareAndSwap" and event.previous is not None:
        out += _numbers((7, event.previous["modifiedIndex"]))
    if event.action in ("create", "update"):
        out += _numbers((8, event.action == "update"))
    if node.expires is not None:
        out += _numbers((9, round(node.expires * 1e6) * 1000))
    return out + (_numbers((17, 1)) if event.refresh else b"")


# -- the snapshot


def _snapshot_file(store: bytes, index: int) -> bytes:
    metadata = record(1, b"") + _numbers((2, index), (3, TERM))
    data = record(1, store) + record(2, metadata)
    return _numbers((1, google_crc32c.value(data))) + record(2, data)


def _store(index: int, nodes: Mapping[str, Node], users: Mapping[str, Any]) -> bytes:
    """The tree as etcd writes it; users and roles are nodes of a tree beside the keys."""
    root: dict[str, Any] = _directory("/", index)
    for name in ("0", "1"):
        root["Children"][name] = _directory(f"/{name}", 0)
    written = {"/": root["Children"]["1"]}
    for path, node in sorted(nodes.items()):
        if path != "/":
            parent, _, name = path.rpartition("/")
            written[path] = written[parent or "/"]["Children"][name] = _node(node)
    if users["users"] or users["roles"]:
        root["Children"]["2"] = _users(index, users)
    queue = {"Events": [None] * HISTORY, "Size": 0, "Front": 0, "Back": 0, "Capacity": HISTORY}
    history = {"Queue": queue, "StartIndex": index + 1, "LastIndex": index}
    store = {
        "Root": root,
        "WatcherHub": {"EventHistory": history},
        "CurrentIndex": index,
        "Stats": {},
        "CurrentVersion": 2,
    }
    return json.dumps(store, separators=(",", ":")).encode()


def _node(node: Node) -> dict[str, Any]:
    expires = _NEVER
    if node.expires is not None:
        expires = datetime.fromtimestamp(node.expires, UTC).isoformat().replace("+00:00", "Z")
    return {
        "Path": _KEYS + node.path,
        "CreatedIndex": node.created,
        "ModifiedIndex": node.modified,
        "ExpireTime": expires,
        "Value": node.value or "",
        "Children": {} if node.is_dir else None,
    }


def _directory(path: str, index: int) -> dict[str, Any]:
    where = {"Path": path, "CreatedIndex": index, "ModifiedIndex": index}
    return {**where, "ExpireTime": _NEVER, "Value": "", "Children": {}}


def _users(index: int, users: Mapping[str, Any]) -> dict[str, Any]:
    def file(path: str, value: Any) -> dict[str, Any]:
        return {**_directory(path, index), "Value": json.dumps(value), "Children": None}

    root = _directory(_USERS, index)
    root["Children"]["enabled"] = file(f"{_USERS}/enabled", users["enabled"])
    for kind in ("users", "roles"):
        folder = root["Children"][kind] = _directory(f"{_USERS}/{kind}", index)
        for name, value in users[kind].items():
            folder["Children"][name] = file(f"{_USERS}/{kind}/{name}", value)
    return root
