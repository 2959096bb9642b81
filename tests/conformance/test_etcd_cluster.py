"""A real cluster of three members: one is killed and brought back under load."""

# ruff: noqa: ASYNC110
from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from berg.machinery.clock import RealClock
from berg.storage.etcd.client import EtcdStore
from berg.storage.etcd.compactor import Compactor
from berg.storage.interface import (
    PutRequest,
    RangeRequest,
    RevisionCompacted,
    Unavailable,
    WatchRequest,
    prefix_end,
)

from .conftest import Etcd, free_port, ready

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="needs etcd (apt install etcd-server)")


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[list[Etcd]]:
    ports = [(free_port(), free_port()) for _ in range(3)]
    cluster = ",".join(f"m{i}=http://127.0.0.1:{peer}" for i, (_, peer) in enumerate(ports))
    members = [Etcd(tmp_path, f"m{i}", client, peer, cluster) for i, (client, peer) in enumerate(ports)]
    for member in members:
        member.start()
    yield members
    for member in members:
        member.kill()


def client(members: list[Etcd]) -> EtcdStore:
    return EtcdStore([m.endpoint for m in members], compaction_interval_s=0)


async def test_a_member_dies_under_load(members: list[Etcd]) -> None:
    store = client(members)
    await ready(store)
    first = store.revision + 1
    acknowledged: dict[bytes, int] = {}
    seen: list[tuple[bytes, int]] = []
    done = asyncio.Event()

    async def write(writer: int) -> None:
        n = 0
        while not done.is_set():
            key = b"k/%d/%d" % (writer, n)
            try:
                acknowledged[key] = (await store.put(PutRequest(key, b"v"))).revision
            except Unavailable:
                pass  # it may be there or not; nobody was told that it is
            n += 1

    async def follow() -> None:
        async for batch in store.watch(WatchRequest(b"k/", prefix_end(b"k/"), start_revision=first)):
            seen.extend((e.kv.key, e.kv.mod_revision) for e in batch.events)

    async def more(count: int) -> None:
        target = len(acknowledged) + count
        async with asyncio.timeout(30):
            while len(acknowledged) < target:
                await asyncio.sleep(0.01)

    follower = asyncio.create_task(follow())
    writers = [asyncio.create_task(write(w)) for w in range(4)]
    await more(100)
    members[0].kill()  # the one in use
    await more(100)
    members[0].start()
    await more(100)
    members[1].kill()
    await more(100)
    done.set()
    await asyncio.gather(*writers)
    stored = await store.range(RangeRequest(b"k/", prefix_end(b"k/")))
    there = {kv.key: kv.mod_revision for kv in stored.kvs}
    assert {k: there.get(k) for k in acknowledged} == acknowledged
    async with asyncio.timeout(30):
        while len(seen) < len(there):
            await asyncio.sleep(0.01)
    assert sorted(seen, key=lambda e: e[1]) == seen  # in order
    assert dict(seen) == there and len(seen) == len(there)  # each exactly once
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
    await store.close()


async def test_one_of_several_compacts(members: list[Etcd]) -> None:
    first, second = client(members), client(members)
    await ready(first)
    await ready(second)
    one, other = Compactor(first, RealClock(), 300), Compactor(second, RealClock(), 300)
    revision = (await first.put(PutRequest(b"k", b"1"))).revision
    results = []
    for _ in range(3):
        await first.put(PutRequest(b"k", b"2"))
        results.append([await one.step(), await other.step()])
    assert [sum(both) for both in results] == [0, 1, 1]
    with pytest.raises(RevisionCompacted):
        await second.range(RangeRequest(b"k", revision=revision))
    await first.close()
    await second.close()


async def test_health_tells_of_a_cluster_that_is_gone_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berg.storage.etcd.client.PROBE_AFTER_S", 0.0)
    real = Etcd(tmp_path, "m0", free_port(), free_port())
    real.start()
    store = EtcdStore([real.endpoint], compaction_interval_s=0, probe_timeout_s=0.3)
    await ready(store)

    async def told(wanted: bool) -> None:
        async with asyncio.timeout(20):
            while (store.fault is not None) != wanted:
                await asyncio.sleep(0.02)

    await told(False)
    real.kill()
    await told(True)
    assert store.fault
    real.start()
    await told(False)
    await store.close()
    real.kill()
