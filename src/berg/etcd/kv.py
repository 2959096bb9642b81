"""etcdserverpb.KV: ranges, puts, deletions, transactions, compaction."""

from __future__ import annotations

from berg.etcd.member import Member
from berg.etcd.rpc import Call, Message, Method
from berg.etcd.users import Users
from berg.storage.etcd import convert
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.interface import InvalidRequest

_EMPTY_KEY = "etcdserver: key is not provided"


class KV:
    def __init__(self, member: Member, users: Users) -> None:
        self._member = member
        self._store = member.store
        self._users = users

    def methods(self) -> list[Method]:
        def method(name: str, path: str, request: type, answer: type, unary: object) -> Method:
            return Method(f"/etcdserverpb.KV/{name}", request, answer, unary, http=(path,))  # type: ignore[arg-type]

        return [
            method("Range", "/kv/range", pb.RangeRequest, pb.RangeResponse, self.range),
            method("Put", "/kv/put", pb.PutRequest, pb.PutResponse, self.put),
            method("DeleteRange", "/kv/deleterange", pb.DeleteRangeRequest, pb.DeleteRangeResponse, self.delete),
            method("Txn", "/kv/txn", pb.TxnRequest, pb.TxnResponse, self.txn),
            method("Compact", "/kv/compaction", pb.CompactionRequest, pb.CompactionResponse, self.compact),
        ]

    async def range(self, call: Call, m: Message) -> Message:
        if not m.key:
            raise InvalidRequest(_EMPTY_KEY)
        request = convert.range_from(m)
        self._users.may_read(call, request.key, request.range_end)
        return convert.range_answer_to(await self._store.range(request), self._member.header)

    async def put(self, call: Call, m: Message) -> Message:
        request = convert.put_from(m)
        self._users.may_put(call, request)
        return convert.put_answer_to(await self._store.put(request), self._member.header)

    async def delete(self, call: Call, m: Message) -> Message:
        request = convert.delete_from(m)
        self._users.may_write(call, request.key, request.range_end)
        if request.prev_kv:
            self._users.may_read(call, request.key, request.range_end)
        return convert.delete_answer_to(await self._store.delete(request), self._member.header)

    async def txn(self, call: Call, m: Message) -> Message:
        request = convert.txn_from(m)
        self._users.may_txn(call, request)
        return convert.txn_answer_to(await self._store.txn(request), self._member.header)

    async def compact(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        await self._store.compact(m.revision)
        if m.physical:
            await self._store.compacted()
        return pb.CompactionResponse(header=self._member.header())
