"""Killing the store at random moments: no acknowledged write is lost, revisions keep their order, and a watch
that resumes where it stopped sees every event exactly once.

`BERG_CRASH_RUNS` sets how often (a release runs 500).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from berg.storage.embedded import EmbeddedStore
from berg.storage.interface import WatchRequest

RUNS = int(os.environ.get("BERG_CRASH_RUNS", "4"))
WRITER = Path(__file__).with_name("crash_writer.py")


def run_until_killed(path: Path, compactable: int, seed: int, after_s: float) -> list[tuple[bytes, bytes, int]]:
    """The writes that were acknowledged before the kill."""
    child = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), str(compactable), str(seed)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"started\n"
        deadline = time.monotonic() + after_s
        os.set_blocking(child.stdout.fileno(), False)
        told = b""
        while time.monotonic() < deadline:
            told += child.stdout.read() or b""
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        child.wait()
        told += child.stdout.read() or b""
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    lines = [line.split() for line in told.split(b"\n")[:-1]]
    return [(key, value, int(revision)) for key, value, revision in lines]


async def read_on(path: Path, after: int) -> list[tuple[bytes, bytes, int]]:
    """What a watch that had seen everything up to `after` sees now."""
    store = EmbeddedStore(path)
    await store.start()
    try:
        seen: list[tuple[bytes, bytes, int]] = []
        if store.revision > after:
            watch = store.watch(WatchRequest(b"k/", b"k0", start_revision=after + 1))
            batch = await anext(watch)
            seen = [(e.kv.key, e.kv.value.rstrip(), e.kv.mod_revision) for e in batch.events]
            await watch.aclose()
        if seen:
            assert store.revision == seen[-1][2]
            last = {key: (value, revision) for key, value, revision in seen}
            for key, (value, revision) in last.items():
                kv = store.index.get(key)
                assert kv is not None and (kv.value.rstrip(), kv.mod_revision) == (value, revision)
    finally:
        await store.close()
    return seen


def test_killed_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(int(os.environ.get("BERG_CRASH_SEED", "1")))
    path = tmp_path / "store.db"
    stood = 1
    for run in range(RUNS):
        acknowledged = run_until_killed(path, stood, run, rng.uniform(0.0, 0.3))
        seen = asyncio.run(read_on(path, stood))
        assert [revision for _, _, revision in seen] == list(range(stood + 1, stood + 1 + len(seen)))
        missing = set(acknowledged) - set(seen)
        assert not missing, f"run {run}: acknowledged, but lost: {sorted(missing)[:5]}"
        stood += len(seen)
    assert stood > 1
