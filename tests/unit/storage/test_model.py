"""The embedded engine beside a model so simple that it is surely right: a copy of everything for each revision."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from berg.storage.embedded import EmbeddedStore
from berg.storage.interface import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    EventType,
    KeyValue,
    Op,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchRequest,
)

KEYS = [b"%c%c" % (a, b) for a in b"abc" for b in b"123"]
State = dict[bytes, KeyValue]


class Model:
    def __init__(self) -> None:
        self.states: dict[int, State] = {1: {}}
        self.events: list[tuple[int, EventType, bytes, bytes]] = []
        self.revision = 1

    @property
    def now(self) -> State:
        return self.states[self.revision]

    def apply(self, puts: list[tuple[bytes, bytes]], deletes: list[bytes]) -> None:
        gone = [k for k in deletes if k in self.now]
        if not puts and not gone:
            return
        state = dict(self.now)
        self.revision += 1
        for key in gone:
            del state[key]
            self.events.append((self.revision, EventType.DELETE, key, b""))
        for key, value in puts:
            old = state.get(key)
            created, version = (old.create_revision, old.version + 1) if old else (self.revision, 1)
            state[key] = KeyValue(key, value, created, self.revision, version)
            self.events.append((self.revision, EventType.PUT, key, value))
        self.states[self.revision] = state


async def change(store: EmbeddedStore, model: Model, rng: random.Random) -> None:
    """One random change of both."""
    what = rng.random()
    value = b"%d" % rng.randrange(1000)
    if what < 0.5:
        key = rng.choice(KEYS)
        await store.put(PutRequest(key, value))
        model.apply([(key, value)], [])
    elif what < 0.7:
        start, end = sorted(rng.choices([*KEYS, b"\xff"], k=2))
        single = rng.random() < 0.5
        await store.delete(DeleteRequest(start, None if single else end))
        model.apply([], [k for k in KEYS if (k == start if single else start <= k < end)])
    else:
        keys = rng.sample(KEYS, 3)
        guard = model.now.get(keys[0])
        right = rng.random() < 0.7
        expected = (guard.mod_revision if guard else 0) + (0 if right else 1)
        ops: tuple[Op, ...] = (PutRequest(keys[1], value), DeleteRequest(keys[2]))
        compare = Compare(keys[0], CompareTarget.MOD, CompareResult.EQUAL, expected)
        answer = await store.txn(TxnRequest((compare,), ops[1:] + ops[:1]))
        assert answer.succeeded is right
        if right:
            model.apply([(keys[1], value)], [keys[2]])


async def check(store: EmbeddedStore, model: Model, rng: random.Random) -> None:
    assert store.revision == model.revision
    oldest = max(store.compact_revision, 1)
    for revision in range(oldest, model.revision + 1):
        start, end = sorted(rng.choices([b"A", *KEYS, b"\xff"], k=2))
        limit = rng.choice([0, 1, 3])
        answer = await store.range(RangeRequest(start, end, limit=limit, revision=revision))
        want = [kv for key, kv in sorted(model.states[revision].items()) if start <= key < end]
        assert list(answer.kvs) == (want[:limit] if limit else want)
        assert (answer.count, answer.more) == (len(want), bool(limit) and len(want) > limit)
        key = rng.choice(KEYS)
        one = (await store.range(RangeRequest(key, revision=revision))).kvs
        assert list(one) == [kv for kv in (model.states[revision].get(key),) if kv]
    start = rng.randint(oldest + 1, model.revision + 1)
    want_events = [e for e in model.events if e[0] >= start]
    if want_events:
        watch = store.watch(WatchRequest(b"\0", b"\0", start_revision=start, prev_kv=True))
        events = (await anext(watch)).events
        assert [(e.kv.mod_revision, e.type, e.kv.key, e.kv.value) for e in events] == want_events
        for e in events:
            if e.kv.mod_revision > oldest + 1:
                assert e.prev_kv == model.states[e.kv.mod_revision - 1].get(e.kv.key)
        watch.close()
    index = store.index
    assert list(index.keys) == sorted(index.current)
    assert list(index.dead) == sorted(k for k in index.history if k not in index.current)


@pytest.mark.parametrize("seed", range(int(os.environ.get("BERG_MODEL_SEEDS", "6"))))
@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_beside_the_model(seed: int, kind: str, tmp_path: Path) -> None:
    rng = random.Random(seed)
    path = tmp_path / "store.db" if kind == "file" else None
    store = EmbeddedStore(path)
    await store.start()
    model = Model()
    for step in range(160):
        await change(store, model, rng)
        if rng.random() < 0.05 and model.revision > store.compact_revision:
            await store.compact(rng.randint(store.compact_revision + 1, model.revision))
            if rng.random() < 0.7:
                await store.compacted()
        if step % 8 == 0:
            await check(store, model, rng)
        if path is not None and rng.random() < 0.04:
            await store.close()
            store = EmbeddedStore(path)
            await store.start()
            await check(store, model, rng)
    await store.close()
