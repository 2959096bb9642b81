"""An object's stored bytes."""

from __future__ import annotations

import tracemalloc

from berg.storage.entry import encode


def test_stored_bytes_own_no_more_memory_than_they_are_long() -> None:
    obj = {"metadata": {"name": "a"}, "data": {"k": "x" * 5000}}
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [encode(obj, "v1", "ConfigMap") for _ in range(100)]
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used < 1.2 * sum(map(len, kept))
