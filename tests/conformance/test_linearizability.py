"""Concurrent histories on every engine, judged by a checker that is judged itself first."""

from __future__ import annotations

import asyncio
import os
import random
import time
from math import inf
from pathlib import Path

import pytest

from berg.storage.embedded import EmbeddedStore
from berg.storage.embedded.log import Done, Log
from berg.storage.interface import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    NoSpace,
    PutRequest,
    RangeRequest,
    Store,
    TxnRequest,
    Unavailable,
)

from .linearizability import Operation, is_linearizable

CLIENTS, OPERATIONS = 8, int(os.environ.get("BERG_LINEARIZABILITY_OPERATIONS", "120"))


def op(kind: str, called: float, returned: float, **kw: object) -> Operation:
    return Operation(b"k", kind, called, returned, **kw)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("history", "verdict"),
    [
        ([op("write", 0, 1, value=b"1"), op("read", 2, 3, result=b"1")], True),
        ([op("write", 0, 1, value=b"1"), op("read", 2, 3, result=None)], False),  # a lost write
        ([op("write", 0, 5, value=b"1"), op("read", 1, 2, result=b"1"), op("read", 3, 4, result=None)], False),
        ([op("write", 0, 5, value=b"1"), op("read", 1, 2, result=None), op("read", 3, 4, result=b"1")], True),
        ([op("write", 0, inf, value=b"1"), op("read", 1, 2, result=None), op("read", 3, 4, result=b"1")], True),
        ([op("write", 0, inf, value=b"1"), op("read", 1, 2, result=b"2")], False),  # from nowhere
        (
            [
                op("write", 0, 1, value=b"0"),
                op("swap", 2, 5, expected=b"0", value=b"1", result=True),
                op("swap", 2, 5, expected=b"0", value=b"2", result=True),
            ],
            False,  # both cannot have won
        ),
    ],
)
def test_the_checker(history: list[Operation], verdict: bool) -> None:
    assert is_linearizable(history) is verdict


async def record(store: Store, seed: int) -> list[Operation]:
    """What clients that read, write, delete and swap three keys at once saw."""
    rng = random.Random(seed)
    history: list[Operation] = []
    keys = [b"lin/%d/%d" % (seed, k) for k in range(3)]
    last: dict[bytes, bytes | None] = dict.fromkeys(keys)

    async def client(number: int) -> None:
        for n in range(OPERATIONS // CLIENTS):
            key, kind = rng.choice(keys), rng.choice(["read", "read", "write", "swap", "swap", "delete"])
            value, expected = b"%d.%d" % (number, n), last[key]
            called = time.perf_counter()
            result: object = None
            try:
                if kind == "read":
                    kvs = (await store.range(RangeRequest(key))).kvs
                    result = last[key] = kvs[0].value if kvs else None
                elif kind == "write":
                    await store.put(PutRequest(key, value))
                elif kind == "delete":
                    await store.delete(DeleteRequest(key))
                else:
                    compare = (
                        Compare(key, CompareTarget.VERSION, CompareResult.EQUAL, 0)
                        if expected is None
                        else Compare(key, CompareTarget.VALUE, CompareResult.EQUAL, expected)
                    )
                    result = (await store.txn(TxnRequest((compare,), (PutRequest(key, value),)))).succeeded
            except NoSpace:
                continue  # refused: it did not happen
            except Unavailable:
                if kind != "read":  # it may have happened
                    history.append(Operation(key, kind, called, inf, value, expected))
                continue
            if kind != "read":
                last[key] = value
            history.append(Operation(key, kind, called, time.perf_counter(), value, expected, result))
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() * 0.002)

    await asyncio.gather(*(client(i) for i in range(CLIENTS)))
    return history


async def test_every_engine_is_linearizable(store: Store) -> None:
    for seed in range(3):
        history = await record(store, seed)
        assert len(history) > OPERATIONS * 0.8
        assert is_linearizable(history)


class FlakyLog(Log):
    """Refuses every third commit, as a full disk does."""

    def append(self, seq: int, last: int, data: bytes, done: Done) -> None:
        self.turn = getattr(self, "turn", 0) + 1
        if self.turn % 3 == 0:
            self._jobs.put(lambda: done(NoSpace("full")))
        else:
            super().append(seq, last, data, done)


async def test_failing_commits_leave_no_trace(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store.db")
    store.log = FlakyLog(tmp_path / "store.db")
    await store.start()
    for seed in range(5):
        assert is_linearizable(await record(store, seed))
    await store.close()
