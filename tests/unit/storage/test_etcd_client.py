"""The etcd engine's decisions that need no server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from berg.storage.etcd.client import EtcdStore, progress_is_sound
from berg.storage.etcd.errors import TABLE, from_wire, to_wire
from berg.storage.interface import InvalidRequest, RequestTooLarge, RevisionCompacted, Unavailable


@pytest.mark.parametrize(
    ("version", "sound"),
    [
        ("3.4.23", False),
        ("3.4.31", True),
        ("3.5.12", False),
        ("3.5.13", True),
        ("3.6.0-rc.1", True),
        ("3.7.0", True),
        ("4.0.0", True),
        ("nonsense", False),
    ],
)
def test_which_releases_progress_notices_can_be_trusted_of(version: str, sound: bool) -> None:
    assert progress_is_sound(version) is sound


def test_errors_survive_the_wire() -> None:
    for kind, _, text in TABLE:
        error = RevisionCompacted(7) if kind is RevisionCompacted else kind(text)
        code, told = to_wire(error)
        assert type(from_wire(code, told)) is kind
    assert isinstance(from_wire(*to_wire(InvalidRequest("etcdserver: key is not provided"))), InvalidRequest)
    assert isinstance(from_wire(14, "connection refused"), Unavailable)
    assert isinstance(from_wire(8, "Received message larger than max (9 vs. 8)"), RequestTooLarge)


async def test_a_cluster_that_takes_its_time_is_well_for_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berg.storage.etcd.client.PROBE_AFTER_S", 0.0)
    loop = asyncio.get_running_loop()
    now = 100.0
    monkeypatch.setattr(loop, "time", lambda: now)
    store = EtcdStore(["http://127.0.0.1:1"], probe_timeout_s=10)
    answer = asyncio.Event()

    async def call(*_: Any, **__: Any) -> None:
        await answer.wait()
        store.cluster.answered_at = now

    monkeypatch.setattr(store.cluster, "call", call)

    async def faults() -> list[str | None]:
        found = [store.fault_within(1), store.fault_within(5), store.fault]
        for _ in range(3):
            await asyncio.sleep(0)
        return found

    late = "context deadline exceeded"
    assert await faults() == [None, None, None]  # asked just now
    now = 102.0
    assert await faults() == [late, None, None]
    answer.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    now = 103.0
    assert await faults() == [late, None, None]  # the last answer took two seconds
    now = 104.0
    assert await faults() == [None, None, None]
    await store.close()
