"""etcdserverpb.Cluster: a cluster of one. What would change its membership answers as etcd does when it cannot."""

from __future__ import annotations

from urllib.parse import urlsplit

from berg.etcd.member import Member
from berg.etcd.rpc import Call, Message, Method, RpcError
from berg.etcd.users import Users
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.errors import FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND


class ClusterService:
    def __init__(self, member: Member, users: Users) -> None:
        self._member = member
        self._users = users

    def methods(self) -> list[Method]:
        def method(name: str, path: str, request: type, answer: type, unary: object) -> Method:
            full = f"/etcdserverpb.Cluster/{name}"
            return Method(full, request, answer, unary, http=(f"/cluster/member/{path}",))  # type: ignore[arg-type]

        return [
            method("MemberAdd", "add", pb.MemberAddRequest, pb.MemberAddResponse, self.add),
            method("MemberRemove", "remove", pb.MemberRemoveRequest, pb.MemberRemoveResponse, self.remove),
            method("MemberUpdate", "update", pb.MemberUpdateRequest, pb.MemberUpdateResponse, self.update),
            method("MemberList", "list", pb.MemberListRequest, pb.MemberListResponse, self.list),
            method("MemberPromote", "promote", pb.MemberPromoteRequest, pb.MemberPromoteResponse, self.promote),
        ]

    async def list(self, call: Call, m: Message) -> Message:
        self._users.must_be_known(call)
        return pb.MemberListResponse(header=self._header(), members=[self._member.message()])

    async def add(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        _check_urls(m.peerURLs)
        if set(m.peerURLs) & set(self._member.peer_urls):
            raise RpcError(FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")
        # Differs from upstream: this engine is one process; to have more members, move to an etcd cluster by a snapshot
        raise RpcError(FAILED_PRECONDITION, "etcdserver: re-configuration failed due to not enough started members")

    async def remove(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        self._find(m.ID)
        raise RpcError(FAILED_PRECONDITION, "etcdserver: re-configuration failed due to not enough started members")

    async def update(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        self._find(m.ID)
        _check_urls(m.peerURLs)
        await self._member.set_peer_urls(list(m.peerURLs))
        return pb.MemberUpdateResponse(header=self._header(), members=[self._member.message()])

    async def promote(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        self._find(m.ID)
        raise RpcError(FAILED_PRECONDITION, "etcdserver: can only promote a learner member")

    def _find(self, member_id: int) -> None:
        if member_id != self._member.id:
            raise RpcError(NOT_FOUND, "etcdserver: member not found")

    def _header(self) -> Message:
        header = self._member.header()
        header.revision = 0  # membership is no change of the keys, and etcd says so
        return header


def _check_urls(urls: list[str]) -> None:
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "unix", "unixs") or not parts.netloc or parts.path not in ("", "/"):
            raise RpcError(INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
    if not urls:
        raise RpcError(INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
