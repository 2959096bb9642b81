"""v3lockpb.Lock and v3electionpb.Election: queues of lease-holding keys under a prefix.

Whoever holds the oldest key under `name/` has the lock or leads; everyone else waits until all older keys are
gone. The key is `name/LEASE` in hexadecimal, so that a repeated call by the same holder joins its own place.

Source: etcd client/v3/concurrency, server/etcdserver/api/v3lock and v3election.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from berg.etcd.member import Member
from berg.etcd.rpc import Call, Message, Method, RpcError
from berg.etcd.users import Users
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.convert import kv_to
from berg.storage.etcd.errors import UNAVAILABLE, UNKNOWN, to_wire
from berg.storage.interface import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    EventType,
    KeyValue,
    PutRequest,
    RangeRequest,
    RangeResponse,
    SortOrder,
    SortTarget,
    StoreError,
    TxnRequest,
    WatchRequest,
    prefix_end,
)

DEFAULT_TTL_S = 60
_LOCK, _ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"


class Concurrency:
    def __init__(self, member: Member, users: Users) -> None:
        self._member = member
        self._store = member.store
        self._users = users

    def methods(self) -> list[Method]:
        return [
            Method(_LOCK + "Lock", pb.LockRequest, pb.LockResponse, self.lock, http=("/lock/lock",)),
            Method(_LOCK + "Unlock", pb.UnlockRequest, pb.UnlockResponse, self.unlock, http=("/lock/unlock",)),
            Method(
                _ELECTION + "Campaign",
                pb.CampaignRequest,
                pb.CampaignResponse,
                self.campaign,
                http=("/election/campaign",),
            ),
            Method(
                _ELECTION + "Proclaim",
                pb.ProclaimRequest,
                pb.ProclaimResponse,
                self.proclaim,
                http=("/election/proclaim",),
            ),
            Method(_ELECTION + "Leader", pb.LeaderRequest, pb.LeaderResponse, self.leader, http=("/election/leader",)),
            Method(
                _ELECTION + "Observe",
                pb.LeaderRequest,
                pb.LeaderResponse,
                stream=self.observe,
                http=("/election/observe",),
            ),
            Method(_ELECTION + "Resign", pb.ResignRequest, pb.ResignResponse, self.resign, http=("/election/resign",)),
        ]

    # -- locks

    async def lock(self, call: Call, m: Message) -> Message:
        self._users.may_write(call, m.name + b"/", prefix_end(m.name + b"/"))
        self._users.may_write_leased(call, m.lease)
        key, revision, _ = await self._enqueue(m.name + b"/", m.lease, b"")
        await self._wait_for_turn(m.name + b"/", key, revision)
        return pb.LockResponse(header=self._member.header(), key=key)

    async def unlock(self, call: Call, m: Message) -> Message:
        self._users.may_write(call, m.key, None)
        answer = await self._store.delete(DeleteRequest(m.key))
        return pb.UnlockResponse(header=self._member.header(answer.revision))

    # -- elections

    async def campaign(self, call: Call, m: Message) -> Message:
        prefix = m.name + b"/"
        self._users.may_write(call, prefix, prefix_end(prefix))
        self._users.may_write_leased(call, m.lease)
        key, revision, lease = await self._enqueue(prefix, m.lease, m.value)
        await self._wait_for_turn(prefix, key, revision)
        leader = pb.LeaderKey(name=m.name, key=key, rev=revision, lease=lease)
        return pb.CampaignResponse(header=self._member.header(), leader=leader)

    async def proclaim(self, call: Call, m: Message) -> Message:
        self._must_have(m)
        self._users.may_write(call, m.leader.key, None)
        put = PutRequest(m.leader.key, m.value, m.leader.lease)
        answer = await self._store.txn(TxnRequest((_same(m.leader),), (put,)))
        if not answer.succeeded:
            raise RpcError(UNKNOWN, "election: not leader")
        return pb.ProclaimResponse(header=self._member.header(answer.revision))

    async def leader(self, call: Call, m: Message) -> Message:
        prefix = m.name + b"/"
        self._users.may_read(call, prefix, prefix_end(prefix))
        found = await self._oldest(prefix)
        if found is None:
            raise RpcError(UNKNOWN, "election: no leader")
        return pb.LeaderResponse(header=self._member.header(), kv=kv_to(found))

    async def observe(self, call: Call, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        """Every leader there is, and what it proclaims."""
        async for m in requests:
            prefix = m.name + b"/"
            self._users.may_read(call, prefix, prefix_end(prefix))
            told: KeyValue | None = None
            watch = self._store.watch(WatchRequest(prefix, prefix_end(prefix), start_revision=self._store.revision + 1))
            try:
                while True:
                    found = await self._oldest(prefix)
                    if found is not None and found != told:
                        told = found
                        yield pb.LeaderResponse(header=self._member.header(), kv=kv_to(found))
                    await anext(watch)
            except StopAsyncIteration:
                raise RpcError(UNAVAILABLE, "etcdserver: server stopped") from None
            finally:
                watch.close()

    async def resign(self, call: Call, m: Message) -> Message:
        self._must_have(m)
        self._users.may_write(call, m.leader.key, None)
        answer = await self._store.txn(TxnRequest((_same(m.leader),), (DeleteRequest(m.leader.key),)))
        return pb.ResignResponse(header=self._member.header(answer.revision))

    def _must_have(self, m: Message) -> None:
        if not m.HasField("leader"):
            raise RpcError(UNKNOWN, '"leader" field must be provided')

    # -- the queue

    async def _enqueue(self, prefix: bytes, lease: int, value: bytes) -> tuple[bytes, int, int]:
        """(key, the revision that made it, lease). A key that is there already keeps its place."""
        if not lease:
            lease = (await self._store.lease_grant(DEFAULT_TTL_S)).id
        key = prefix + b"%x" % lease
        try:
            answer = await self._store.txn(
                TxnRequest(
                    (Compare(key, CompareTarget.CREATE, CompareResult.EQUAL, 0),),
                    (PutRequest(key, value, lease),),
                    (RangeRequest(key),),
                )
            )
        except StoreError as e:
            raise RpcError(UNKNOWN, to_wire(e)[1]) from None  # etcd's services are clients of it and lose the code
        if answer.succeeded:
            return key, answer.revision, lease
        found = answer.responses[0]
        assert isinstance(found, RangeResponse)
        kv = found.kvs[0]
        if value and kv.value != value:
            await self._store.put(PutRequest(key, value, lease))
        return key, kv.create_revision, lease

    async def _wait_for_turn(self, prefix: bytes, key: bytes, revision: int) -> None:
        """Who gives up leaves the queue: nobody behind waits for the lease of one who has gone."""
        try:
            await self._wait_for_older(prefix, key, revision)
        except BaseException:
            mine = Compare(key, CompareTarget.CREATE, CompareResult.EQUAL, revision)
            leaving = asyncio.ensure_future(self._store.txn(TxnRequest((mine,), (DeleteRequest(key),))))
            leaving.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def _wait_for_older(self, prefix: bytes, key: bytes, revision: int) -> None:
        while True:
            answer = await self._store.range(
                RangeRequest(
                    prefix,
                    prefix_end(prefix),
                    limit=1,
                    max_create_revision=revision - 1,
                    sort_target=SortTarget.CREATE,
                    sort_order=SortOrder.DESCEND,
                )
            )
            if not answer.kvs:
                return
            watch = self._store.watch(WatchRequest(answer.kvs[0].key, start_revision=answer.revision + 1))
            try:
                async for batch in watch:
                    if any(e.type is EventType.DELETE for e in batch.events):
                        break
                else:
                    raise RpcError(UNAVAILABLE, "etcdserver: server stopped")
            finally:
                watch.close()
            if self._store.index.get(key) is None:  # its lease ran out while it waited
                raise RpcError(UNKNOWN, "mutex: session is expired")

    async def _oldest(self, prefix: bytes) -> KeyValue | None:
        answer = await self._store.range(
            RangeRequest(
                prefix, prefix_end(prefix), limit=1, sort_target=SortTarget.CREATE, sort_order=SortOrder.ASCEND
            )
        )
        return answer.kvs[0] if answer.kvs else None


def _same(leader: Message) -> Compare:
    return Compare(leader.key, CompareTarget.CREATE, CompareResult.EQUAL, leader.rev)
