"""Snapshots as etcd has them: the store's history as a bbolt database, and a store out of such a database.

    bucket `key`     revision (main u64, "_", sub u64; a deletion ends in "t") → KeyValue
    bucket `lease`   id → {ID, TTL}
    bucket `meta`    what was compacted, and the place in a raft log that there is none of
    bucket `auth…`   users and roles

A snapshot of a real etcd is read the same way, whatever its version: only the newest state is taken over, at its
revision, so everything before it counts as compacted.

Source: etcd server/storage/mvcc/revision.go, server/storage/schema.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berg.etcd import bbolt
from berg.etcd.member import CLUSTER_VERSION, TERM, Member
from berg.etcd.users import Permission, Role, User
from berg.storage.embedded.log import write_base
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.convert import kv_from, kv_to
from berg.storage.interface import KeyValue

_REVISION = struct.Struct(">QcQ")


class BadSnapshot(ValueError):
    pass


@dataclass(slots=True)
class Snapshot:
    """The newest state in a snapshot."""

    revision: int
    kvs: list[KeyValue]
    leases: dict[int, int]
    auth_enabled: bool
    auth_revision: int
    users: dict[str, User]
    roles: dict[str, Role]


# -- writing


async def snapshot_of(member: Member) -> bytearray:
    """The store as it is now. The history is gathered at once; laying out the pages lets others run meanwhile."""
    versions = _versions(member)
    leases = sorted(member.store.held.ttls().items())
    compacted = member.store.compact_revision
    return await asyncio.to_thread(_database, member, versions, leases, compacted)


async def hash_kv(member: Member, revision: int) -> int:
    """etcd's hash of the keys' history up to `revision`: what the etcd restored from a snapshot of this store answers,
    too, as long as neither is compacted further."""
    versions = [kv for kv in _versions(member) if kv.mod_revision <= revision]
    return await asyncio.to_thread(_hash_kv, versions, member.store.compact_revision)


def _hash_kv(versions: list[KeyValue], compacted: int) -> int:
    import google_crc32c

    newest = {kv.key: kv for kv in versions}
    live = any(kv.version for kv in newest.values())
    crc = google_crc32c.value(b"key")
    for kv, (key, value) in zip(versions, _key_items(versions), strict=True):
        # of what was compacted, only what is still there counts; and not at all when nothing is
        if kv.mod_revision <= compacted and live and newest[kv.key] is not kv:
            continue
        if kv.mod_revision == compacted and not kv.version:
            continue  # some releases keep these deletions, some do not
        crc = google_crc32c.extend(crc, key + value)
    return crc


def _versions(member: Member) -> list[KeyValue]:
    """Every version that is still known, in order of revision, and of one revision and key as they came about."""
    index = member.store.index
    out = [kv for kept in index.history.values() for kv in kept]
    out += index.current.values()
    out.sort(key=lambda kv: (kv.mod_revision, kv.key))
    return out


def _database(member: Member, versions: list[KeyValue], leases: list[tuple[int, int]], compacted: int) -> bytearray:
    from berg.etcd.users import Users

    users = Users(member.store)
    users.load()
    meta = {b"consistent_index": struct.pack(">Q", max(member.raft_index, 1)), b"term": struct.pack(">Q", TERM)}
    if compacted:
        meta[b"finishedCompactRev"] = meta[b"scheduledCompactRev"] = _revision(compacted, 0)
    buckets: dict[bytes, list[tuple[bytes, bytes]]] = {
        b"key": list(_key_items(versions)),
        b"lease": [(struct.pack(">Q", lease), _lease_message(lease, ttl_s)) for lease, ttl_s in leases],
        b"meta": sorted(meta.items()),
        b"cluster": [(b"clusterVersion", CLUSTER_VERSION.encode())],
        b"alarm": [],
        b"members": [],
        b"members_removed": [],
        b"auth": [
            (b"authEnabled", b"\x01" if users.enabled else b"\x00"),
            (b"authRevision", struct.pack(">Q", users.revision)),
        ],
        b"authRoles": [(name.encode(), _role_message(users.roles[name])) for name in sorted(users.roles)],
        b"authUsers": [(name.encode(), _user_message(users.users[name])) for name in sorted(users.users)],
    }
    return bbolt.write(buckets)


def _key_items(versions: list[KeyValue]) -> Iterator[tuple[bytes, bytes]]:
    main = sub = 0
    for kv in versions:
        sub = sub + 1 if kv.mod_revision == main else 0
        main = kv.mod_revision
        if kv.version:
            yield _revision(main, sub), kv_to(kv).SerializeToString()
        else:
            yield _revision(main, sub) + b"t", pb.KeyValue(key=kv.key).SerializeToString()


def _revision(main: int, sub: int) -> bytes:
    return _REVISION.pack(main, b"_", sub)


def _lease_message(lease: int, ttl_s: int) -> bytes:
    # leasepb.Lease begins with the same two fields (ID, TTL)
    return bytes(pb.LeaseCheckpoint(ID=lease, remaining_TTL=ttl_s).SerializeToString())


def _role_message(role: Role) -> bytes:
    permissions = [pb.Permission(permType=p.type, key=p.key, range_end=p.end or b"") for p in role.permissions]  # type: ignore[arg-type]
    return bytes(pb.Role(name=role.name.encode(), keyPermission=permissions).SerializeToString())


def _user_message(user: User) -> bytes:
    options = pb.UserAddOptions(no_password=user.no_password)
    m = pb.User(name=user.name.encode(), password=user.password.encode(), roles=user.roles, options=options)
    return bytes(m.SerializeToString())


# -- reading


def read(path: Path, *, check_hash: bool = True) -> Snapshot:
    """The newest state in the snapshot file. Raises BadSnapshot."""
    data = path.read_bytes()
    if len(data) % 512 == hashlib.sha256().digest_size:
        data, digest = data[:-32], data[-32:]
        if check_hash and hashlib.sha256(data).digest() != digest:
            raise BadSnapshot("the snapshot's hash is wrong: the file is damaged")
    elif check_hash:
        raise BadSnapshot(
            "the snapshot has no hash behind it; if it was copied out of a data directory, skip the check"
        )
    try:
        database = bbolt.Reader(data)
        if b"key" not in database.buckets():
            raise BadSnapshot("a bbolt database, but not etcd's: it has no bucket `key`")
        revision, kvs = _newest(database)
        auth = dict(database.items(b"auth"))
        return Snapshot(
            revision,
            kvs,
            {m.ID: m.remaining_TTL for m in _messages(database, b"lease", pb.LeaseCheckpoint)},
            auth.get(b"authEnabled") == b"\x01",
            struct.unpack(">Q", auth.get(b"authRevision", bytes(8)))[0],
            {m.name.decode(): _user(m) for m in _messages(database, b"authUsers", pb.User)},
            {m.name.decode(): _role(m) for m in _messages(database, b"authRoles", pb.Role)},
        )
    except bbolt.BadDatabase as e:
        raise BadSnapshot(str(e)) from e


def _newest(database: bbolt.Reader) -> tuple[int, list[KeyValue]]:
    live: dict[bytes, KeyValue] = {}
    revision = 1
    compacted = dict(database.items(b"meta")).get(b"finishedCompactRev")
    if compacted is not None and len(compacted) >= 8:
        revision = int.from_bytes(compacted[:8], "big")
    for key, value in database.items(b"key"):
        main = int.from_bytes(key[:8], "big")
        try:
            kv = kv_from(pb.KeyValue.FromString(value))
        except Exception as e:
            raise BadSnapshot(f"the value at revision {main} is damaged") from e
        if key.endswith(b"t") and len(key) == _REVISION.size + 1:
            live.pop(kv.key, None)
        else:
            live[kv.key] = kv
        revision = max(revision, main)
    return revision, [live[key] for key in sorted(live)]


def _messages(database: bbolt.Reader, bucket: bytes, message: Any) -> Iterator[Any]:
    return (message.FromString(value) for _, value in database.items(bucket))


def _user(m: Any) -> User:
    return User(m.name.decode(), m.password.decode(), m.options.no_password, list(m.roles))


def _role(m: Any) -> Role:
    permissions = [Permission(p.permType, p.key, p.range_end or None) for p in m.keyPermission]
    return Role(m.name.decode(), permissions)


def restore_to(snapshot: Path, target: Path, *, check_hash: bool = True) -> tuple[int, int]:
    """Makes the store file `target`; (how many keys, at what revision). Raises BadSnapshot, FileExistsError."""
    from berg.etcd.users import STATE, dump_state

    if target.exists():
        raise FileExistsError(target)
    found = read(snapshot, check_hash=check_hash)
    target.parent.mkdir(parents=True, exist_ok=True)
    meta = {}
    if found.users or found.roles:
        meta[STATE] = dump_state(found.auth_enabled, found.auth_revision, found.users, found.roles)
    write_base(target, found.kvs, found.revision, found.leases, meta)
    return len(found.kvs), found.revision
