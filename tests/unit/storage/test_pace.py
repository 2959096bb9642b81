from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from berg.storage.embedded import EmbeddedStore
from berg.storage.embedded.pace import MAY_WAIT_S, REST_COMMITS, SAMPLES, STALL_S, Pace
from berg.storage.interface import PutRequest


def asked(pace: Pace, times: int) -> int:
    return sum(pace.quick() for _ in range(times))


def test_a_quick_disk_is_waited_for() -> None:
    pace = Pace()
    for _ in range(10 * SAMPLES):
        assert pace.quick()
        pace.took(MAY_WAIT_S / 2)


def test_one_slow_commit_among_quick_ones_changes_nothing() -> None:
    pace = Pace()
    for n in range(10 * SAMPLES):
        pace.took(MAY_WAIT_S * (5 if n % 3 == 0 else 0.5))
    assert pace.quick()


def test_a_slow_disk_is_left_to_the_thread_and_tried_again() -> None:
    pace = Pace()
    for _ in range(SAMPLES):
        pace.took(MAY_WAIT_S * 2)
    assert asked(pace, REST_COMMITS) == 0
    assert pace.quick()


def test_a_stall_is_enough() -> None:
    pace = Pace()
    pace.took(STALL_S * 2)
    assert not pace.quick()


@pytest.mark.parametrize("quick", [True, False])
async def test_who_makes_the_commits(tmp_path: Path, quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EmbeddedStore(tmp_path / "state.db")
    await store.start()
    log = store.log
    assert log is not None
    if not quick:
        log.pace.took(STALL_S * 2)
    monkeypatch.setattr(Pace, "took", lambda *_: None)  # however slow this disk is
    writers: set[int] = set()
    write = log._append

    def seen(seq: int, last: int, crc: int, data: bytes) -> object:
        writers.add(threading.get_ident())
        return write(seq, last, crc, data)

    monkeypatch.setattr(log, "_append", seen)
    await asyncio.gather(*(store.put(PutRequest(b"k/%d" % n, b"v")) for n in range(10)))
    await store.put(PutRequest(b"last", b"v"))
    assert writers and (writers == {threading.get_ident()}) is quick
    await store.close()
    again = EmbeddedStore(tmp_path / "state.db")
    await again.start()
    assert len(again.index.current) == 11
    await again.close()
