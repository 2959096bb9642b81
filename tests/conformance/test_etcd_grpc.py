"""What only a bare gRPC client sees, of `berg etcd` and of a real etcd alike: watches in fragments, the quota's alarm;
and history that is compacted without being asked."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from berg import storage
from berg.etcd.server import Config, EtcdServer
from berg.machinery.clock import FakeClock
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.client import EtcdStore
from berg.storage.interface import PutRequest, RangeRequest, RevisionCompacted, Store

from .conftest import Etcd, free_port, ready

QUOTA_BYTES = 6_000_000
LIMIT_BYTES = 2 << 20
"""what etcd makes fragments of: a request's limit, and half a megabyte for what is around it"""
NO_SPACE = (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")


@pytest.fixture(params=["berg", "etcd"])
async def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Of a server with a small quota."""
    if request.param == "berg":
        config = Config(data_dir=str(tmp_path), listen_client_urls=["http://127.0.0.1:0"])
        config.quota_backend_bytes = QUOTA_BYTES
        server = EtcdServer(config)
        await server.start()
        yield f"127.0.0.1:{server.ports[0]}"
        await server.stop()
        return
    if shutil.which("etcd") is None:
        pytest.skip("needs etcd (apt install etcd-server)")
    quota = ("--quota-backend-bytes", str(QUOTA_BYTES))
    real = Etcd(tmp_path, "m0", free_port(), free_port(), "", *quota)
    real.start()
    store = EtcdStore([real.endpoint], compaction_interval_s=0)
    await ready(store)
    await store.close()
    yield real.endpoint.removeprefix("http://")
    real.kill()


@pytest.fixture
async def channel(endpoint: str) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", -1)]
    async with asyncio.timeout(60), grpc.aio.insecure_channel(endpoint, options=options) as channel:
        yield channel


async def call(channel: grpc.aio.Channel, method: str, request: Any, answer: Callable[[], Any]) -> Any:
    invoke: Any = channel.unary_unary(
        f"/etcdserverpb.{method}",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=answer.FromString,  # type: ignore[attr-defined]
    )
    return await invoke(request)


async def refusal(channel: grpc.aio.Channel, method: str, request: Any) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(channel, method, request, pb.PutResponse)
    return refused.value.code(), refused.value.details()


# -- fragments


async def watched(channel: grpc.aio.Channel, revision: int, *, fragment: bool) -> list[Any]:
    """The messages that bring the revision."""
    stream: Any = channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=pb.WatchResponse.FromString,
    )()
    create = pb.WatchCreateRequest(key=b"k/", range_end=b"k0", start_revision=revision, prev_kv=True, fragment=fragment)
    await stream.write(pb.WatchRequest(create_request=create))
    assert (await stream.read()).created
    messages = [await stream.read()]
    while messages[-1].fragment:
        messages.append(await stream.read())
    stream.cancel()
    return messages


async def test_a_large_revision_comes_in_fragments_to_who_takes_them(channel: grpc.aio.Channel) -> None:
    value = os.urandom(400_000)
    for n in range(6):
        await call(channel, "KV/Put", pb.PutRequest(key=b"k/%d" % n, value=value), pb.PutResponse)
    gone = pb.DeleteRangeRequest(key=b"k/", range_end=b"k0")
    revision = (await call(channel, "KV/DeleteRange", gone, pb.DeleteRangeResponse)).header.revision
    (whole,) = await watched(channel, revision, fragment=False)
    assert whole.ByteSize() > LIMIT_BYTES and len(whole.events) == 6
    pieces = await watched(channel, revision, fragment=True)
    assert len(pieces) > 1
    assert [piece.fragment for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert all(piece.ByteSize() < LIMIT_BYTES for piece in pieces)
    assert [event for piece in pieces for event in piece.events] == list(whole.events)


# -- quota


async def test_over_the_quota_puts_are_refused_until_it_is_said_to_be_over(channel: grpc.aio.Channel) -> None:
    put = pb.PutRequest(key=b"k/more", value=os.urandom(300_000))
    refused = None
    for n in range(100):
        try:
            await call(channel, "KV/Put", pb.PutRequest(key=b"k/%d" % n, value=put.value), pb.PutResponse)
        except grpc.aio.AioRpcError as e:
            refused = e.code(), e.details()
            break
    assert refused == NO_SPACE
    small = pb.RequestOp(request_put=pb.PutRequest(key=b"k/small", value=b"1"))
    for method, request in (
        ("KV/Put", pb.PutRequest(key=b"k/small", value=b"1")),
        ("KV/Txn", pb.TxnRequest(success=[small])),
        ("KV/Txn", pb.TxnRequest(failure=[small])),
        ("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=60)),
    ):
        assert await refusal(channel, method, request) == NO_SPACE, (method, request)
    ask = pb.AlarmRequest(action=pb.AlarmRequest.GET)
    alarms = (await call(channel, "Maintenance/Alarm", ask, pb.AlarmResponse)).alarms
    assert [alarm.alarm for alarm in alarms] == [pb.NOSPACE]

    everything = pb.RangeRequest(key=b"k/", range_end=b"k0", count_only=True)
    assert (await call(channel, "KV/Range", everything, pb.RangeResponse)).count == n
    delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"k/", range_end=b"k0"))
    gone = await call(channel, "KV/Txn", pb.TxnRequest(success=[delete]), pb.TxnResponse)
    assert gone.responses[0].response_delete_range.deleted == n
    compact = pb.CompactionRequest(revision=gone.header.revision, physical=True)
    await call(channel, "KV/Compact", compact, pb.CompactionResponse)
    await call(channel, "Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse)
    assert await refusal(channel, "KV/Put", put) == NO_SPACE
    disarm = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=pb.NOSPACE, memberID=alarms[0].memberID)
    await call(channel, "Maintenance/Alarm", disarm, pb.AlarmResponse)
    await call(channel, "KV/Put", put, pb.PutResponse)


# -- compaction that nobody asks for


async def refused_from(store: Store, revision: int, clock: FakeClock | None = None) -> None:
    """A clock goes on meanwhile: a compaction that waited for the disk sets its next alarm late."""
    async with asyncio.timeout(30):
        while True:
            try:
                await store.range(RangeRequest(b"k", revision=revision))
            except RevisionCompacted:
                return
            if clock is not None:
                await clock.advance(1)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("mode", "retention", "after_s"), [("periodic", "1h", 3700), ("revision", "100", 301)])
async def test_a_server_compacts_as_it_is_told(tmp_path: Path, mode: str, retention: str, after_s: int) -> None:
    clock = FakeClock()
    config = Config(data_dir=str(tmp_path), listen_client_urls=["http://127.0.0.1:0"], clock=clock)
    config.auto_compaction_mode, config.auto_compaction_retention = mode, retention
    server = EtcdServer(config)
    await server.start()
    store = EtcdStore([f"http://127.0.0.1:{server.ports[0]}"], compaction_interval_s=0)
    await store.start()
    revisions = [(await store.put(PutRequest(b"k", b"%d" % n))).revision for n in range(20)]
    await clock.advance(after_s / 2)
    await asyncio.gather(*(store.put(PutRequest(b"l", b"")) for _ in range(90)))
    await store.range(RangeRequest(b"k", revision=revisions[0]))  # not yet
    await clock.advance(after_s / 2 + 1)
    await refused_from(store, revisions[8], clock)
    kept = await store.range(RangeRequest(b"k", revision=server.store.revision - 90))
    assert kept.kvs[0].value == b"19"
    await store.close()
    await server.stop()


async def test_api_servers_compact_the_cluster_they_share(endpoint: str) -> None:
    clock = FakeClock()
    stores = [storage.open(f"http://{endpoint}", clock=clock, compaction_interval_s=300) for _ in range(2)]
    for store in stores:
        await store.start()
    first = (await stores[0].put(PutRequest(b"k", b"1"))).revision
    last = (await stores[0].put(PutRequest(b"k", b"2"))).revision
    compacting = asyncio.create_task(refused_from(stores[1], first))
    intervals = 0
    while not compacting.done():
        await clock.advance(300)
        intervals += 1
        await asyncio.sleep(0.05)
    await compacting
    assert intervals > 1  # the first one to come does not know a revision of an interval ago
    kv = (await stores[1].range(RangeRequest(b"k"))).kvs[0]
    assert (kv.value, kv.mod_revision) == (b"2", last)
    for store in stores:
        await store.close()
