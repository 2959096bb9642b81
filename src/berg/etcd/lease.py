"""etcdserverpb.Lease."""

from __future__ import annotations

from collections.abc import AsyncIterator

from berg.etcd.member import Member
from berg.etcd.rpc import Call, Message, Method
from berg.etcd.users import Users
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.interface import LeaseNotFound

_S = "/etcdserverpb.Lease/"


class LeaseService:
    def __init__(self, member: Member, users: Users) -> None:
        self._member = member
        self._store = member.store
        self._users = users

    def methods(self) -> list[Method]:
        return [
            Method(_S + "LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse, self.grant, http=("/lease/grant",)),
            Method(
                _S + "LeaseRevoke",
                pb.LeaseRevokeRequest,
                pb.LeaseRevokeResponse,
                self.revoke,
                http=("/lease/revoke", "/kv/lease/revoke"),
            ),
            Method(
                _S + "LeaseKeepAlive",
                pb.LeaseKeepAliveRequest,
                pb.LeaseKeepAliveResponse,
                stream=self.keep_alive,
                http=("/lease/keepalive",),
                client_streams=True,
            ),
            Method(
                _S + "LeaseTimeToLive",
                pb.LeaseTimeToLiveRequest,
                pb.LeaseTimeToLiveResponse,
                self.time_to_live,
                http=("/lease/timetolive", "/kv/lease/timetolive"),
            ),
            Method(
                _S + "LeaseLeases",
                pb.LeaseLeasesRequest,
                pb.LeaseLeasesResponse,
                self.leases,
                http=("/lease/leases", "/kv/lease/leases"),
            ),
        ]

    async def grant(self, call: Call, m: Message) -> Message:
        self._users.must_be_known(call)
        lease = await self._store.lease_grant(m.TTL, m.ID)
        return pb.LeaseGrantResponse(header=self._member.header(), ID=lease.id, TTL=lease.ttl_s)

    async def revoke(self, call: Call, m: Message) -> Message:
        self._users.must_be_known(call)
        self._users.may_write_leased(call, m.ID)
        revision = await self._store.lease_revoke(m.ID)
        return pb.LeaseRevokeResponse(header=self._member.header(revision))

    async def keep_alive(self, call: Call, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for m in requests:
            self._users.must_be_known(call)
            self._users.may_write_leased(call, m.ID)
            try:
                ttl_s = await self._store.lease_keepalive(m.ID)
            except LeaseNotFound:
                ttl_s = 0
            yield pb.LeaseKeepAliveResponse(header=self._member.header(), ID=m.ID, TTL=ttl_s)

    async def time_to_live(self, call: Call, m: Message) -> Message:
        self._users.must_be_known(call)
        lease = await self._store.lease_time_to_live(m.ID, keys=True)
        for key in lease.keys if self._users.enabled else ():
            self._users.may_read(call, key, None)
        return pb.LeaseTimeToLiveResponse(
            header=self._member.header(),
            ID=m.ID,
            TTL=lease.remaining_s,
            grantedTTL=lease.ttl_s,
            keys=lease.keys if m.keys else (),
        )

    async def leases(self, call: Call, m: Message) -> Message:
        self._users.must_be_known(call)
        ids = await self._store.leases()
        for lease_id in ids if self._users.enabled else ():
            held = self._store.held.find(lease_id)
            for key in held.keys if held is not None else ():
                self._users.may_read(call, key, None)
        return pb.LeaseLeasesResponse(
            header=self._member.header(), leases=[pb.LeaseStatus(ID=lease_id) for lease_id in ids]
        )
