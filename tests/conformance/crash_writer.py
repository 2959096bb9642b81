"""What the crash test kills: writers on one store file, each acknowledged write told on standard output.

Arguments: the store file, a revision up to which compaction is allowed, a seed. Lines: `key value revision`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from pathlib import Path

from berg.storage.embedded import EmbeddedStore
from berg.storage.interface import PutRequest, StoreError

WRITERS = 16


async def main(path: str, compactable: int, seed: int) -> None:
    rng = random.Random(seed)
    store = EmbeddedStore(Path(path))
    await store.start()
    os.write(1, b"started\n")

    async def write(writer: int) -> None:
        for n in range(1_000_000):
            key = b"k/%d/%d" % (writer, rng.randrange(20))
            value = b"%d.%d.%d" % (seed, writer, n)
            answer = await store.put(PutRequest(key, value + b" " * rng.randrange(3000)))
            os.write(1, b"%b %b %d\n" % (key, value, answer.revision))

    async def tidy() -> None:
        while True:
            await asyncio.sleep(0.01)
            with contextlib.suppress(StoreError):
                await store.compact(min(compactable, store.compact_revision + 500))
            if rng.random() < 0.1:
                await store.defragment()

    await asyncio.gather(tidy(), *(write(w) for w in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
