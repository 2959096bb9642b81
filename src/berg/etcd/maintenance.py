"""etcdserverpb.Maintenance: status, alarms, hashes, defragmentation, snapshots."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from berg.etcd.member import CLUSTER_VERSION, TERM, VERSION, Member
from berg.etcd.rpc import Call, Message, Method, RpcError
from berg.etcd.users import Users
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.errors import FAILED_PRECONDITION, INVALID_ARGUMENT
from berg.storage.interface import RevisionCompacted

_S = "/etcdserverpb.Maintenance/"
CHUNK = 32 * 1024
NOSPACE = 1


class Maintenance:
    def __init__(self, member: Member, users: Users) -> None:
        self._member = member
        self._store = member.store
        self._users = users

    def methods(self) -> list[Method]:
        def method(name: str, path: str, request: type, answer: type, unary: object) -> Method:
            return Method(_S + name, request, answer, unary, http=(f"/maintenance/{path}",))  # type: ignore[arg-type]

        return [
            method("Alarm", "alarm", pb.AlarmRequest, pb.AlarmResponse, self.alarm),
            method("Status", "status", pb.StatusRequest, pb.StatusResponse, self.status),
            method("Defragment", "defragment", pb.DefragmentRequest, pb.DefragmentResponse, self.defragment),
            method("Hash", "hash", pb.HashRequest, pb.HashResponse, self.hash),
            method("HashKV", "hashkv", pb.HashKVRequest, pb.HashKVResponse, self.hash_kv),
            method("MoveLeader", "transfer-leadership", pb.MoveLeaderRequest, pb.MoveLeaderResponse, self.move_leader),
            method("Downgrade", "downgrade", pb.DowngradeRequest, pb.DowngradeResponse, self.downgrade),
            Method(
                _S + "Snapshot",
                pb.SnapshotRequest,
                pb.SnapshotResponse,
                stream=self.snapshot,
                http=("/maintenance/snapshot",),
            ),
        ]

    async def alarm(self, call: Call, m: Message) -> Message:
        if m.action:
            self._users.must_be_admin(call)
        else:
            self._users.must_be_known(call)
        alarms = [pb.AlarmMember(memberID=self._member.id, alarm=NOSPACE)]  # type: ignore[arg-type]
        ours = m.memberID in (0, self._member.id) and m.alarm in (0, NOSPACE)
        if m.action == 1 and m.alarm == NOSPACE and ours:
            await self._store.arm()
        elif m.action == 2:
            alarms = alarms if ours and self._store.alarmed else []
            if alarms:
                await self._store.disarm()
            return pb.AlarmResponse(header=self._member.header(), alarms=alarms)
        return pb.AlarmResponse(header=self._member.header(), alarms=alarms if ours and self._store.alarmed else [])

    async def status(self, call: Call, m: Message) -> Message:
        self._users.must_be_known(call)
        member, store = self._member, self._store
        errors = [f"memberID:{member.id} alarm:NOSPACE "] if store.alarmed else []
        return pb.StatusResponse(
            header=member.header(),
            version=VERSION,
            dbSize=store.size_bytes,
            dbSizeInUse=store.in_use_bytes,
            leader=member.id,
            raftIndex=member.raft_index,
            raftAppliedIndex=member.raft_index,
            raftTerm=TERM,
            errors=errors,
            storageVersion=CLUSTER_VERSION,
            dbSizeQuota=store.quota_bytes,
        )

    async def defragment(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        await self._store.defragment()
        return pb.DefragmentResponse()

    async def hash(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        from berg.etcd.snapshot import hash_kv

        header = self._member.header()
        return pb.HashResponse(header=header, hash=await hash_kv(self._member, header.revision))

    async def hash_kv(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        from berg.etcd.snapshot import hash_kv

        store = self._store
        store.index.check_revision(m.revision)
        if 0 < m.revision <= store.compact_revision:
            raise RevisionCompacted(store.compact_revision)
        header, compacted, revision = self._member.header(), store.compact_revision, m.revision or store.revision
        crc = await hash_kv(self._member, revision)
        return pb.HashKVResponse(header=header, hash=crc, compact_revision=compacted, hash_revision=revision)

    async def snapshot(self, call: Call, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        """A bbolt file as etcd has it, followed by its SHA-256."""
        from berg.etcd.snapshot import snapshot_of

        self._users.must_be_admin(call)
        data = await snapshot_of(self._member)
        digest = hashlib.sha256(data).digest()
        total = len(data) + len(digest)
        header = self._member.header()
        for at in range(0, len(data), CHUNK):
            blob = data[at : at + CHUNK]
            left = total - at - len(blob)
            yield pb.SnapshotResponse(header=header, remaining_bytes=left, blob=bytes(blob), version=CLUSTER_VERSION)
        yield pb.SnapshotResponse(header=header, remaining_bytes=0, blob=digest, version=CLUSTER_VERSION)

    async def move_leader(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        if m.targetID == self._member.id:
            return pb.MoveLeaderResponse(header=self._member.header())
        raise RpcError(FAILED_PRECONDITION, "etcdserver: bad leader transferee")

    async def downgrade(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        if m.action == 2:
            raise RpcError(FAILED_PRECONDITION, "etcdserver: no inflight downgrade job")
        parts = m.version.split(".")
        if len(parts) < 2 or not all(p.isdigit() for p in parts):
            raise RpcError(INVALID_ARGUMENT, "etcdserver: wrong downgrade target version format")
        raise RpcError(INVALID_ARGUMENT, "etcdserver: invalid downgrade target version")
