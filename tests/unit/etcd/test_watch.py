"""Watch streams: what must hold between their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from berg.etcd.member import Member
from berg.etcd.rpc import Call
from berg.etcd.users import Users
from berg.etcd.watch import WatchService
from berg.storage.embedded import EmbeddedStore
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.interface import PutRequest


class Client:
    """A stream's requests, and its answers as they come."""

    def __init__(self, service: WatchService) -> None:
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._answers = service.watch(Call(), self._incoming())

    async def _incoming(self) -> AsyncIterator[Any]:
        while True:
            yield await self._requests.get()

    def create(self, key: bytes, end: bytes = b"", **kw: Any) -> None:
        create = pb.WatchCreateRequest(key=key, range_end=end, **kw)
        self._requests.put_nowait(pb.WatchRequest(create_request=create))

    def cancel(self, watch_id: int) -> None:
        self._requests.put_nowait(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch_id)))

    def ask_for_progress(self) -> None:
        self._requests.put_nowait(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def answer(self) -> Any:
        async with asyncio.timeout(5):
            return await anext(self._answers)

    async def close(self) -> None:
        await self._answers.aclose()


@pytest.fixture
async def store() -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(None)
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def client(store: EmbeddedStore) -> AsyncIterator[Client]:
    client = Client(WatchService(Member(store), Users(store)))
    yield client
    await client.close()


async def test_ids_answers_and_cancelling(store: EmbeddedStore, client: Client) -> None:
    client.create(b"a")
    client.create(b"b", watch_id=7)
    client.create(b"b", watch_id=7)
    first, second, third = [await client.answer() for _ in range(3)]
    assert (first.created, first.watch_id) == (True, 0)
    assert (second.created, second.watch_id) == (True, 7)
    assert third.canceled and "duplicate watch ID" in third.cancel_reason
    await store.put(PutRequest(b"b", b"1"))
    event = await client.answer()
    assert (event.watch_id, event.events[0].kv.value) == (7, b"1")
    client.cancel(7)
    cancelled = await client.answer()
    assert cancelled.canceled and cancelled.watch_id == 7
    await store.put(PutRequest(b"b", b"2"))
    await store.put(PutRequest(b"a", b"3"))
    assert (await client.answer()).events[0].kv.value == b"3"


async def test_what_was_compacted(store: EmbeddedStore, client: Client) -> None:
    for _ in range(5):
        await store.put(PutRequest(b"a", b""))
    await store.compact(5)
    client.create(b"a", start_revision=2)
    assert (await client.answer()).created
    refused = await client.answer()
    assert refused.canceled and refused.compact_revision == 5
    client.create(b"z", b"a")
    assert "range is empty" in (await client.answer()).cancel_reason


async def test_progress_never_overtakes_events(store: EmbeddedStore, client: Client) -> None:
    client.create(b"a", b"b")
    await client.answer()
    for n in range(150):  # one batch of many messages: more than the stream's queue holds
        await store.put(PutRequest(b"a%d" % n, b"x" * 300_000))
    for _ in range(10):
        await asyncio.sleep(0)
    client.ask_for_progress()
    seen = 0
    while seen < 150:
        answer = await client.answer()
        assert answer.watch_id != -1 or answer.header.revision <= 1 + seen
        seen += len(answer.events)
    client.ask_for_progress()
    last = await client.answer()
    assert (last.watch_id, last.header.revision) == (-1, store.revision)


async def test_large_batches_come_in_messages(store: EmbeddedStore, client: Client) -> None:
    for n in range(30):
        await store.put(PutRequest(b"a%02d" % n, b"x" * 300_000))
    client.create(b"a", b"b", start_revision=1)
    await client.answer()
    sizes = []
    while sum(sizes) < 30:
        answer = await client.answer()
        sizes.append(len(answer.events))
        assert answer.ByteSize() < 2 << 20
    assert len(sizes) > 3
