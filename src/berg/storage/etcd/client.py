"""The store's contract, answered by a real etcd cluster.

What etcd promises is what this promises. `revision` is the newest one seen in any answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from berg.machinery.clock import Clock, RealClock
from berg.storage.etcd import convert
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.cluster import Cluster, store_error
from berg.storage.etcd.compactor import Compactor
from berg.storage.etcd.watch import EtcdWatch
from berg.storage.interface import (
    DeleteRequest,
    DeleteResponse,
    Lease,
    LeaseNotFound,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RevisionCompacted,
    StoreError,
    TxnRequest,
    TxnResponse,
    WatchRequest,
)

_KV = "/etcdserverpb.KV/"
_LEASE = "/etcdserverpb.Lease/"
_MAINTENANCE = "/etcdserverpb.Maintenance/"
DEFRAGMENT_TIMEOUT_S = 300.0
PROBE_AFTER_S = 1.0


class EtcdStore:
    def __init__(
        self,
        endpoints: list[str],
        *,
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
        clock: Clock | None = None,
        compaction_interval_s: float = 300.0,
        probe_timeout_s: float = 2.0,
    ) -> None:
        self.cluster = Cluster(endpoints, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
        self._clock: Clock = clock or RealClock()
        self._compaction_interval_s = compaction_interval_s
        self._probe_timeout_s = probe_timeout_s
        self._probing: asyncio.Task[None] | None = None
        self._took_s = 0.0
        """by the last probe"""
        self._probe_began = self._probe_ended = 0.0
        self.closed = False
        self._revision = 0
        self._compact_revision = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._watches: set[EtcdWatch] = set()
        self.progress_is_sound = False
        """whether a progress notice is never ahead of the events it covers"""

    async def start(self) -> None:
        """Raises Unavailable when no member answers."""
        self.cluster.open()
        try:
            await self.range(RangeRequest(b"\0", count_only=True))
            status = await self._call(_MAINTENANCE + "Status", pb.StatusRequest(), pb.StatusResponse, safe=True)
            self.progress_is_sound = progress_is_sound(status.version)
        except BaseException:
            await self.cluster.close()
            raise
        if self._compaction_interval_s:
            compactor = Compactor(self, self._clock, self._compaction_interval_s)
            self._tasks.append(asyncio.create_task(compactor.run()))

    async def close(self) -> None:
        self.closed = True
        probing = [] if self._probing is None else [self._probing]
        for task in (*self._tasks, *probing):
            task.cancel()
        await asyncio.gather(*self._tasks, *probing, return_exceptions=True)
        await asyncio.gather(*(watch.aclose() for watch in list(self._watches)), return_exceptions=True)
        await self.cluster.close()

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def compact_revision(self) -> int:
        return self._compact_revision

    @property
    def fault(self) -> str | None:
        """Why the cluster cannot be used, as of the last call. When there was none for a second, asking this makes
        one: who asks for a server's health again and again is told soon, and nobody waits."""
        return self.fault_within(self._probe_timeout_s)

    def fault_within(self, timeout_s: float) -> str | None:
        """As `fault`, where a call that was made for it may take no longer than this (and than `probe_timeout_s`)."""
        now = asyncio.get_running_loop().time()
        answered_at = self.cluster.answered_at
        probing = self._probing is not None and not self._probing.done()
        if not probing and not self.closed and now - answered_at > PROBE_AFTER_S:
            self._probe_began, probing = now, True
            self._probing = asyncio.create_task(self._probe())
        took_s = 0.0
        if answered_at <= self._probe_ended:  # no other call was answered since
            took_s = self._took_s
        if probing and answered_at < self._probe_began:
            took_s = max(took_s, now - self._probe_began)
        if self.cluster.fault is None and took_s > timeout_s:
            return "context deadline exceeded"
        return self.cluster.fault

    async def _probe(self) -> None:
        time = asyncio.get_running_loop().time
        request = convert.range_to(RangeRequest(b"health"))
        try:
            await self.cluster.call(
                _KV + "Range", request, pb.RangeResponse, safe=True, timeout_s=self._probe_timeout_s
            )
        except StoreError:
            pass  # the cluster has noted it
        finally:
            self._probe_ended = time()
            self._took_s = self._probe_ended - self._probe_began

    async def _call(self, method: str, request: Any, answer: type[Any], *, safe: bool = False, **kw: Any) -> Any:
        try:
            m = await self.cluster.call(method, request, answer, safe=safe, **kw)
        except RevisionCompacted:
            raise RevisionCompacted(self._compact_revision) from None
        self._revision = max(self._revision, m.header.revision)
        return m

    # -- keys

    async def range(self, request: RangeRequest) -> RangeResponse:
        m = await self._call(_KV + "Range", convert.range_to(request), pb.RangeResponse, safe=True)
        return convert.range_answer_from(m)

    async def put(self, request: PutRequest) -> PutResponse:
        return convert.put_answer_from(await self._call(_KV + "Put", convert.put_to(request), pb.PutResponse))

    async def delete(self, request: DeleteRequest) -> DeleteResponse:
        m = await self._call(_KV + "DeleteRange", convert.delete_to(request), pb.DeleteRangeResponse)
        return convert.delete_answer_from(m)

    async def txn(self, request: TxnRequest) -> TxnResponse:
        return convert.txn_answer_from(await self._call(_KV + "Txn", convert.txn_to(request), pb.TxnResponse))

    def watch(self, request: WatchRequest) -> EtcdWatch:
        watch = EtcdWatch(self.cluster, request)
        self._watches.add(watch)
        watch.on_close = lambda: self._watches.discard(watch)
        return watch

    async def compact(self, revision: int) -> None:
        await self._call(_KV + "Compact", pb.CompactionRequest(revision=revision), pb.CompactionResponse)
        self._compact_revision = max(self._compact_revision, revision)

    # -- leases

    async def lease_grant(self, ttl_s: int, lease_id: int = 0) -> Lease:
        request = pb.LeaseGrantRequest(TTL=ttl_s, ID=lease_id)
        m = await self._call(_LEASE + "LeaseGrant", request, pb.LeaseGrantResponse)
        return Lease(m.ID, m.TTL, m.TTL)

    async def lease_revoke(self, lease_id: int) -> int:
        request = pb.LeaseRevokeRequest(ID=lease_id)
        m = await self._call(_LEASE + "LeaseRevoke", request, pb.LeaseRevokeResponse)
        return int(m.header.revision)

    async def lease_keepalive(self, lease_id: int) -> int:
        call = self.cluster.stream(_LEASE + "LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse)
        try:
            await call.write(pb.LeaseKeepAliveRequest(ID=lease_id))
            m = await call.read()
        except grpc.aio.AioRpcError as e:
            self.cluster.move_on()
            raise store_error(e) from None
        finally:
            call.cancel()
        if m is grpc.aio.EOF or m.TTL <= 0:
            raise LeaseNotFound("etcdserver: requested lease not found")
        return int(m.TTL)

    async def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> Lease:
        request = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        m = await self._call(_LEASE + "LeaseTimeToLive", request, pb.LeaseTimeToLiveResponse, safe=True)
        return Lease(m.ID, m.grantedTTL, m.TTL, tuple(m.keys))

    async def leases(self) -> Sequence[int]:
        m = await self._call(_LEASE + "LeaseLeases", pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse, safe=True)
        return [lease.ID for lease in m.leases]

    # -- maintenance

    async def hash(self, revision: int = 0) -> tuple[int, int]:
        request = pb.HashKVRequest(revision=revision)
        m = await self._call(_MAINTENANCE + "HashKV", request, pb.HashKVResponse, safe=True)
        return m.hash, revision or m.header.revision

    async def defragment(self) -> None:
        """Of every member, one after the other: each is out of service meanwhile."""
        for _ in self.cluster.endpoints:
            await self._call(
                _MAINTENANCE + "Defragment",
                pb.DefragmentRequest(),
                pb.DefragmentResponse,
                timeout_s=DEFRAGMENT_TIMEOUT_S,
            )
            self.cluster.move_on()


def progress_is_sound(version: str) -> bool:
    """Whether this etcd has the repair of its issue 15220; before it, a progress notice could overtake events.

    Source: k8s.io/apiserver pkg/storage/feature, which asks for the same releases.
    """
    try:
        parts = tuple(int(part) for part in version.split("-")[0].split(".")[:3])
    except ValueError:
        return False
    if parts[:2] == (3, 4):
        return parts >= (3, 4, 31)
    if parts[:2] == (3, 5):
        return parts >= (3, 5, 13)
    return parts >= (3, 6)
