"""The store's contract (`storage/interface.py`) as tests: every engine runs every one of them.

What the answers must be is etcd's: revisions start at 1 and rise by one per changing transaction.
"""

from __future__ import annotations

import asyncio

import pytest

from berg.storage.interface import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResponse,
    DuplicateKey,
    EventType,
    InvalidRequest,
    KeyNotFound,
    KeyValue,
    LeaseExists,
    LeaseNotFound,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestTooLarge,
    RevisionCompacted,
    RevisionFuture,
    SortOrder,
    SortTarget,
    Store,
    TooManyOps,
    TxnRequest,
    TxnResponse,
    Watch,
    WatchBatch,
    WatchRequest,
    prefix_end,
)

PREFIX = RangeRequest(b"k/", prefix_end(b"k/"))


async def put(store: Store, key: bytes, value: bytes = b"v", **kw: int) -> int:
    return (await store.put(PutRequest(key, value, **kw))).revision


async def get(store: Store, key: bytes, revision: int = 0) -> KeyValue | None:
    kvs = (await store.range(RangeRequest(key, revision=revision))).kvs
    return kvs[0] if kvs else None


async def keys(store: Store, request: RangeRequest) -> list[bytes]:
    return [kv.key for kv in (await store.range(request)).kvs]


async def next_events(watch: object, count: int) -> list[tuple[EventType, bytes, bytes, int]]:
    """The next `count` events; fails when more come with them."""
    out: list[tuple[EventType, bytes, bytes, int]] = []
    async with asyncio.timeout(10):
        while len(out) < count:
            batch: WatchBatch = await anext(watch)  # type: ignore[call-overload]
            out += [(e.type, e.kv.key, e.kv.value, e.kv.mod_revision) for e in batch.events]
    assert len(out) == count
    return out


# -- keys and revisions


async def test_revisions_rise_by_one_per_change(store: Store) -> None:
    start = store.revision
    assert await put(store, b"k/a", b"1") == start + 1
    assert await put(store, b"k/a", b"2") == start + 2
    kv = await get(store, b"k/a")
    assert kv == KeyValue(b"k/a", b"2", start + 1, start + 2, 2)
    deleted = await store.delete(DeleteRequest(b"k/a", prev_kv=True))
    assert (deleted.revision, deleted.deleted, deleted.prev_kvs) == (start + 3, 1, (kv,))
    assert await get(store, b"k/a") is None
    assert await put(store, b"k/a", b"3") == start + 4
    assert await get(store, b"k/a") == KeyValue(b"k/a", b"3", start + 4, start + 4, 1)
    assert store.revision == start + 4


async def test_deleting_nothing_is_no_revision(store: Store) -> None:
    before = store.revision
    assert (await store.delete(DeleteRequest(b"k/none"))).revision == before
    assert store.revision == before


async def test_put_previous_and_ignored_parts(store: Store) -> None:
    assert (await store.put(PutRequest(b"k/a", b"1", prev_kv=True))).prev_kv is None
    previous = (await store.put(PutRequest(b"k/a", b"2", prev_kv=True))).prev_kv
    assert previous is not None and previous.value == b"1"
    await store.put(PutRequest(b"k/a", b"", ignore_value=True))
    kv = await get(store, b"k/a")
    assert kv is not None and (kv.value, kv.version) == (b"2", 3)
    with pytest.raises(KeyNotFound):
        await store.put(PutRequest(b"k/none", b"", ignore_value=True))
    with pytest.raises(KeyNotFound):
        await store.put(PutRequest(b"k/none", b"x", ignore_lease=True))
    with pytest.raises(InvalidRequest):
        await store.put(PutRequest(b"k/a", b"x", ignore_value=True))
    with pytest.raises(InvalidRequest):
        await store.put(PutRequest(b"", b"x"))


async def test_a_request_may_be_a_megabyte_and_a_half(store: Store) -> None:
    await put(store, b"k/large", b"x" * (1 << 20))
    with pytest.raises(RequestTooLarge):
        await put(store, b"k/larger", b"x" * (1536 * 1024 + 1))
    assert await get(store, b"k/larger") is None


# -- ranges


@pytest.fixture
async def five(store: Store) -> list[int]:
    """k/a … k/e with values 5 … 1; their revisions."""
    revisions = [await put(store, b"k/%c" % c, b"%d" % (5 - i)) for i, c in enumerate(b"abcde")]
    await put(store, b"l/other")
    return revisions


async def test_ranges(store: Store, five: list[int]) -> None:
    assert await keys(store, PREFIX) == [b"k/a", b"k/b", b"k/c", b"k/d", b"k/e"]
    assert await keys(store, RangeRequest(b"k/b", b"k/d")) == [b"k/b", b"k/c"]
    assert await keys(store, RangeRequest(b"k/e", b"\0")) == [b"k/e", b"l/other"]
    assert await keys(store, RangeRequest(b"\0", b"\0")) == [b"k/a", b"k/b", b"k/c", b"k/d", b"k/e", b"l/other"]
    assert await keys(store, RangeRequest(b"k/d", b"k/b")) == []
    assert await keys(store, RangeRequest(b"k/b")) == [b"k/b"]


async def test_limit_count_and_keys_only(store: Store, five: list[int]) -> None:
    some = await store.range(RangeRequest(b"k/", prefix_end(b"k/"), limit=2))
    assert ([kv.key for kv in some.kvs], some.count, some.more) == ([b"k/a", b"k/b"], 5, True)
    whole = await store.range(RangeRequest(b"k/", prefix_end(b"k/"), limit=5))
    assert (len(whole.kvs), whole.count, whole.more) == (5, 5, False)
    count = await store.range(RangeRequest(b"k/", prefix_end(b"k/"), count_only=True))
    assert (list(count.kvs), count.count) == ([], 5)
    bare = await store.range(RangeRequest(b"k/a", keys_only=True))
    assert (bare.kvs[0].key, bare.kvs[0].value, bare.kvs[0].version) == (b"k/a", b"", 1)


async def test_order(store: Store, five: list[int]) -> None:
    end = prefix_end(b"k/")

    async def sorted_by(target: SortTarget, order: SortOrder, limit: int = 0) -> bytes:
        found = await keys(store, RangeRequest(b"k/", end, limit=limit, sort_target=target, sort_order=order))
        return b"".join(k[2:] for k in found)

    await put(store, b"k/a", b"9")
    assert await sorted_by(SortTarget.KEY, SortOrder.DESCEND) == b"edcba"
    assert await sorted_by(SortTarget.VALUE, SortOrder.ASCEND) == b"edcba"
    assert await sorted_by(SortTarget.MOD, SortOrder.ASCEND) == b"bcdea"
    assert await sorted_by(SortTarget.CREATE, SortOrder.DESCEND, 2) == b"ed"
    assert await sorted_by(SortTarget.VERSION, SortOrder.DESCEND, 1) == b"a"


async def test_revision_bounds_filter(store: Store, five: list[int]) -> None:
    end = prefix_end(b"k/")
    await put(store, b"k/a", b"9")
    newer = RangeRequest(b"k/", end, min_mod_revision=five[3])
    assert await keys(store, newer) == [b"k/a", b"k/d", b"k/e"]
    assert await keys(store, RangeRequest(b"k/", end, max_mod_revision=five[2])) == [b"k/b", b"k/c"]
    assert await keys(store, RangeRequest(b"k/", end, max_create_revision=five[1])) == [b"k/a", b"k/b"]
    assert await keys(store, RangeRequest(b"k/", end, min_create_revision=five[4])) == [b"k/e"]


async def test_the_past_can_be_read(store: Store, five: list[int]) -> None:
    await store.delete(DeleteRequest(b"k/b"))
    await put(store, b"k/a", b"new")
    then = await store.range(RangeRequest(b"k/", prefix_end(b"k/"), revision=five[2]))
    assert [(kv.key, kv.value) for kv in then.kvs] == [(b"k/a", b"5"), (b"k/b", b"4"), (b"k/c", b"3")]
    assert then.revision == store.revision
    first = await store.range(RangeRequest(b"k/", prefix_end(b"k/"), revision=five[2], limit=1))
    assert (len(first.kvs), first.count, first.more) == (1, 3, True)
    kv = await get(store, b"k/b", five[1])
    assert kv is not None and kv.value == b"4"
    assert await get(store, b"k/b", store.revision) is None
    with pytest.raises(RevisionFuture):
        await get(store, b"k/a", store.revision + 1)


# -- transactions


def mod_is(key: bytes, revision: int) -> Compare:
    return Compare(key, CompareTarget.MOD, CompareResult.EQUAL, revision)


async def test_compare_and_swap(store: Store) -> None:
    create = TxnRequest((mod_is(b"k/a", 0),), (PutRequest(b"k/a", b"1"),), (RangeRequest(b"k/a"),))
    first = await store.txn(create)
    assert first.succeeded and first.revision == store.revision
    again = await store.txn(create)
    assert not again.succeeded and again.revision == first.revision
    found = again.responses[0]
    assert isinstance(found, RangeResponse) and found.kvs[0].value == b"1"


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (CompareTarget.VERSION, 2),
        (CompareTarget.VALUE, b"2"),
        (CompareTarget.LEASE, 0),
    ],
)
async def test_every_compare(store: Store, target: CompareTarget, value: int | bytes) -> None:
    await put(store, b"k/a", b"1")
    await put(store, b"k/a", b"2")
    less: int | bytes = value - 1 if isinstance(value, int) else b"1"
    more: int | bytes = value + 1 if isinstance(value, int) else b"3"

    async def holds(result: CompareResult, than: int | bytes) -> bool:
        return (await store.txn(TxnRequest((Compare(b"k/a", target, result, than),)))).succeeded

    assert await holds(CompareResult.EQUAL, value) and not await holds(CompareResult.EQUAL, more)
    assert await holds(CompareResult.NOT_EQUAL, more) and not await holds(CompareResult.NOT_EQUAL, value)
    assert await holds(CompareResult.GREATER, less) and not await holds(CompareResult.GREATER, value)
    assert await holds(CompareResult.LESS, more) and not await holds(CompareResult.LESS, value)


async def test_compares_of_missing_keys_and_ranges(store: Store) -> None:
    def txn(compare: Compare) -> TxnRequest:
        return TxnRequest((compare,))

    missing = b"k/none"
    equal, create, value = CompareResult.EQUAL, CompareTarget.CREATE, CompareTarget.VALUE
    assert (await store.txn(txn(Compare(missing, create, equal, 0)))).succeeded
    assert not (await store.txn(txn(Compare(missing, value, equal, b"")))).succeeded
    await put(store, b"k/a", b"x")
    await put(store, b"k/b", b"x")
    end = prefix_end(b"k/")
    assert (await store.txn(txn(Compare(b"k/", value, equal, b"x", end)))).succeeded
    await put(store, b"k/b", b"y")
    assert not (await store.txn(txn(Compare(b"k/", value, equal, b"x", end)))).succeeded


async def test_a_transaction_is_one_revision_and_sees_itself(store: Store) -> None:
    await put(store, b"k/old")
    before = store.revision
    answer = await store.txn(
        TxnRequest(
            success=(
                PutRequest(b"k/a", b"1"),
                PutRequest(b"k/b", b"1"),
                DeleteRequest(b"k/old"),
                RangeRequest(b"k/", prefix_end(b"k/")),
            )
        )
    )
    assert answer.revision == before + 1 == store.revision
    seen = answer.responses[3]
    assert isinstance(seen, RangeResponse)
    assert [(kv.key, kv.mod_revision) for kv in seen.kvs] == [(b"k/a", before + 1), (b"k/b", before + 1)]


async def test_nested_transactions(store: Store) -> None:
    await put(store, b"k/a", b"1")
    inner = TxnRequest((mod_is(b"k/none", 0),), (PutRequest(b"k/inner", b"yes"),), (PutRequest(b"k/inner", b"no"),))
    answer = await store.txn(TxnRequest(success=(PutRequest(b"k/outer", b"1"), inner)))
    nested = answer.responses[1]
    assert isinstance(nested, TxnResponse) and nested.succeeded
    kv = await get(store, b"k/inner")
    assert kv is not None and (kv.value, kv.mod_revision) == (b"yes", answer.revision)


async def test_what_a_transaction_may_not_do(store: Store) -> None:
    a = PutRequest(b"k/a", b"1")
    for ops in (
        (a, a),
        (a, DeleteRequest(b"k/", prefix_end(b"k/"))),
        (a, TxnRequest(success=(a,))),
    ):
        with pytest.raises(DuplicateKey):
            await store.txn(TxnRequest(success=ops))
    await store.txn(TxnRequest(success=(TxnRequest((mod_is(b"k/x", 1),), (a,), (a,)),)))  # either branch, not both
    with pytest.raises(TooManyOps):
        await store.txn(TxnRequest(success=tuple(PutRequest(b"k/%d" % i, b"") for i in range(129))))
    before = store.revision
    with pytest.raises(LeaseNotFound):
        await store.txn(TxnRequest(success=(PutRequest(b"k/z", b"1"), PutRequest(b"k/y", b"1", lease=12345))))
    assert await get(store, b"k/z") is None
    assert store.revision == before


async def test_a_transaction_may_put_a_key_and_delete_everything_from_one_on(store: Store) -> None:
    """What etcd does not refuse, though it refuses the same with an end."""
    a, everything = PutRequest(b"k/a", b"1"), DeleteRequest(b"\0", b"\0", prev_kv=True)
    put_first = await store.txn(TxnRequest(success=(a, everything)))
    kv = KeyValue(b"k/a", b"1", put_first.revision, put_first.revision, 1)
    deleted = put_first.responses[1]
    assert isinstance(deleted, DeleteResponse) and list(deleted.prev_kvs) == [kv]
    assert await get(store, b"k/a") is None
    nested = TxnRequest(success=(a,))
    put_last = await store.txn(TxnRequest(success=(DeleteRequest(b"k/a", b"\0"), nested)))
    assert put_last.revision == put_first.revision + 1
    again = await store.txn(TxnRequest(success=(everything, a)))
    assert await get(store, b"k/a") == KeyValue(b"k/a", b"1", again.revision, again.revision, 1)
    before = await get(store, b"k/a", put_last.revision)
    assert before is not None and before.create_revision == put_last.revision
    watch = store.watch(WatchRequest(b"k/a", start_revision=put_first.revision))
    assert [(e[0], e[3] - put_first.revision) for e in await next_events(watch, 5)] == [
        (EventType.PUT, 0),
        (EventType.DELETE, 0),
        (EventType.PUT, 1),
        (EventType.DELETE, 2),
        (EventType.PUT, 2),
    ]
    await watch.aclose()


async def test_concurrent_increments_lose_nothing(store: Store) -> None:
    await put(store, b"k/n", b"0")

    async def increment() -> None:
        while True:
            kv = await get(store, b"k/n")
            assert kv is not None
            request = TxnRequest((mod_is(b"k/n", kv.mod_revision),), (PutRequest(b"k/n", b"%d" % (int(kv.value) + 1)),))
            if (await store.txn(request)).succeeded:
                return

    await asyncio.gather(*(increment() for _ in range(20)))
    kv = await get(store, b"k/n")
    assert kv is not None and (kv.value, kv.version) == (b"20", 21)


async def test_a_write_is_there_when_it_is_acknowledged(store: Store) -> None:
    async def write(n: int) -> None:
        revision = await put(store, b"k/%d" % n)
        assert store.revision >= revision
        kv = await get(store, b"k/%d" % n)
        assert kv is not None and kv.mod_revision == revision

    await asyncio.gather(*(write(n) for n in range(100)))


# -- watches


async def test_watch_from_now(store: Store) -> None:
    await put(store, b"k/a", b"0")
    watch = store.watch(WatchRequest(b"k/", prefix_end(b"k/")))
    ready = asyncio.ensure_future(next_events(watch, 1))
    await asyncio.sleep(0.05 if "etcd" in type(store).__module__ else 0)
    revision = await put(store, b"k/a", b"1")
    assert await ready == [(EventType.PUT, b"k/a", b"1", revision)]
    await watch.aclose()


async def test_watch_from_the_past_sees_each_event_once_and_in_order(store: Store) -> None:
    first = await put(store, b"k/a", b"1")
    await put(store, b"l/a", b"-")
    await store.delete(DeleteRequest(b"k/a"))
    watch = store.watch(WatchRequest(b"k/", prefix_end(b"k/"), start_revision=first))
    assert await next_events(watch, 2) == [
        (EventType.PUT, b"k/a", b"1", first),
        (EventType.DELETE, b"k/a", b"", first + 2),
    ]
    await asyncio.gather(*(put(store, b"k/%d" % n) for n in range(50)))
    revisions = []
    while len(revisions) < 50:
        revisions += [e[3] for e in await next_events_any(watch)]
    assert revisions == list(range(first + 3, first + 53))
    await watch.aclose()


async def next_events_any(watch: object) -> list[tuple[EventType, bytes, bytes, int]]:
    async with asyncio.timeout(10):
        batch: WatchBatch = await anext(watch)  # type: ignore[call-overload]
    return [(e.type, e.kv.key, e.kv.value, e.kv.mod_revision) for e in batch.events]


async def test_watch_one_key_with_previous_values(store: Store) -> None:
    first = await put(store, b"k/a", b"1")
    await put(store, b"k/ab", b"-")
    watch = store.watch(WatchRequest(b"k/a", start_revision=first, prev_kv=True))
    await put(store, b"k/a", b"2")
    await store.delete(DeleteRequest(b"k/a"))
    seen = []
    while len(seen) < 3:
        async with asyncio.timeout(10):
            seen += [(e.kv.value, e.prev_kv and e.prev_kv.value) for e in (await anext(watch)).events]
    assert seen == [(b"1", None), (b"2", b"1"), (b"", b"2")]
    await watch.aclose()


async def test_watch_filters(store: Store) -> None:
    first = await put(store, b"k/a", b"1")
    await store.delete(DeleteRequest(b"k/a"))
    no_put = store.watch(WatchRequest(b"k/a", start_revision=first, no_put=True))
    assert [e[0] for e in await next_events(no_put, 1)] == [EventType.DELETE]
    no_delete = store.watch(WatchRequest(b"k/a", start_revision=first, no_delete=True))
    assert [e[0] for e in await next_events(no_delete, 1)] == [EventType.PUT]
    for watch in (no_put, no_delete):
        await watch.aclose()


async def test_a_watch_may_start_in_the_future(store: Store) -> None:
    watch = store.watch(WatchRequest(b"k/", prefix_end(b"k/"), start_revision=store.revision + 3))
    for n in range(4):
        await put(store, b"k/%d" % n)
    assert [e[1] for e in await next_events(watch, 2)] == [b"k/2", b"k/3"]
    await watch.aclose()


async def test_closing_a_watch_ends_its_reader(store: Store) -> None:
    watch = store.watch(WatchRequest(b"k/a"))

    async def read() -> int:
        return len([batch async for batch in watch if batch.events])

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    await watch.aclose()
    async with asyncio.timeout(10):
        assert await reader == 0


async def test_a_reader_that_sleeps_misses_nothing(store: Store) -> None:
    first = store.revision + 1
    watch = store.watch(WatchRequest(b"k/", prefix_end(b"k/"), start_revision=first))
    for base in range(0, 6000, 500):
        await asyncio.gather(*(put(store, b"k/%d" % (base + n)) for n in range(500)))
    seen: list[int] = []
    while len(seen) < 6000:
        seen += [e[3] for e in await next_events_any(watch)]
    assert seen == list(range(first, first + 6000))
    await watch.aclose()


async def told(watch: Watch, revision: int) -> None:
    """Asks until the watch stands at `revision`: nothing is told as long as there are events on their way."""

    async def ask() -> None:
        while True:
            await watch.request_progress()
            await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask())
    try:
        async with asyncio.timeout(10):
            while (batch := await anext(watch)).revision < revision:
                assert not batch.events
        assert (batch.revision, list(batch.events)) == (revision, [])
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_watch_says_where_it_stands_when_asked(store: Store) -> None:
    first = await put(store, b"k/a", b"1")
    watch = store.watch(WatchRequest(b"k/", prefix_end(b"k/"), start_revision=first))
    assert [e[3] for e in await next_events(watch, 1)] == [first]
    elsewhere = [await put(store, b"l/%d" % n) for n in range(3)]
    await told(watch, elsewhere[-1])
    last = await put(store, b"k/a", b"2")
    while not (events := await next_events_any(watch)):
        pass  # a notice that was under way
    assert events == [(EventType.PUT, b"k/a", b"2", last)]
    await told(watch, last)
    await watch.aclose()


async def test_a_watch_that_wants_it_is_told_now_and_then_where_it_stands(store: Store) -> None:
    first = await put(store, b"k/a", b"1")
    request = WatchRequest(b"k/", prefix_end(b"k/"), start_revision=first, progress_notify=True)
    watch, silent = store.watch(request), store.watch(request._replace(progress_notify=False))
    for each in (watch, silent):
        assert [e[3] for e in await next_events(each, 1)] == [first]
    unread = asyncio.ensure_future(anext(silent))
    revision = await put(store, b"l/a")
    async with asyncio.timeout(10):
        while (batch := await anext(watch)).revision < revision:
            assert not batch.events
    assert (batch.revision, list(batch.events)) == (revision, [])
    assert not unread.done()
    await asyncio.gather(watch.aclose(), silent.aclose())
    await asyncio.gather(unread, return_exceptions=True)


# -- compaction


async def test_compaction_forgets_the_past_and_keeps_the_present(store: Store) -> None:
    first = await put(store, b"k/a", b"1")
    await put(store, b"k/b", b"1")
    await store.delete(DeleteRequest(b"k/b"))
    at = await put(store, b"k/a", b"2")
    last = await put(store, b"k/a", b"3")
    await store.compact(at)
    assert store.compact_revision == at
    with pytest.raises(RevisionCompacted) as info:
        await get(store, b"k/a", first)
    del info
    then = await get(store, b"k/a", at)
    assert then is not None and then.value == b"2"
    now = await get(store, b"k/a")
    assert now is not None and (now.value, now.create_revision, now.version) == (b"3", first, 3)
    watch = store.watch(WatchRequest(b"k/a", start_revision=at + 1))
    assert await next_events(watch, 1) == [(EventType.PUT, b"k/a", b"3", last)]
    await watch.aclose()
    old = store.watch(WatchRequest(b"k/a", start_revision=first))
    with pytest.raises(RevisionCompacted) as compacted:
        await anext(old)
    assert compacted.value.compact_revision == at
    with pytest.raises(RevisionCompacted):
        await store.compact(at)
    with pytest.raises(RevisionFuture):
        await store.compact(store.revision + 1)


async def test_hash_tells_states_apart(store: Store) -> None:
    revision = await put(store, b"k/a", b"1")
    first = await store.hash()
    assert first[1] == revision
    await put(store, b"k/a", b"2")
    assert (await store.hash())[0] != first[0]
    assert await store.hash(revision) == first


# -- leases


async def test_lease_carries_its_keys(store: Store) -> None:
    lease = await store.lease_grant(100)
    await put(store, b"k/a", b"1", lease=lease.id)
    await put(store, b"k/b", b"1", lease=lease.id)
    await put(store, b"k/b", b"2")  # without the lease now
    told = await store.lease_time_to_live(lease.id, keys=True)
    assert (told.ttl_s, list(told.keys)) == (100, [b"k/a"])
    assert 0 < told.remaining_s <= 100
    assert lease.id in await store.leases()
    assert await store.lease_keepalive(lease.id) == 100
    before = store.revision
    await store.lease_revoke(lease.id)
    assert store.revision == before + 1
    assert await keys(store, PREFIX) == [b"k/b"]
    assert lease.id not in await store.leases()
    assert (await store.lease_time_to_live(lease.id)).remaining_s == -1
    with pytest.raises(LeaseNotFound):
        await store.lease_keepalive(lease.id)
    with pytest.raises(LeaseNotFound):
        await store.lease_revoke(lease.id)
    with pytest.raises(LeaseNotFound):
        await put(store, b"k/a", b"1", lease=lease.id)


async def test_lease_ids_may_be_chosen_once(store: Store) -> None:
    assert (await store.lease_grant(100, 4711)).id == 4711
    with pytest.raises(LeaseExists):
        await store.lease_grant(100, 4711)
    assert (await store.lease_grant(1)).ttl_s == 2  # etcd's least


async def test_putting_without_a_lease_drops_it_and_ignoring_keeps_it(store: Store) -> None:
    lease = await store.lease_grant(100)
    await put(store, b"k/a", b"1", lease=lease.id)
    await store.put(PutRequest(b"k/a", b"2", ignore_lease=True))
    kv = await get(store, b"k/a")
    assert kv is not None and kv.lease == lease.id
    await put(store, b"k/a", b"3")
    kv = await get(store, b"k/a")
    assert kv is not None and kv.lease == 0
    await store.lease_revoke(lease.id)
    assert await get(store, b"k/a") is not None
