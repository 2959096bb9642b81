"""What was found out about a value, kept for when the same comes again.

One template makes many pods, and their specs are the same to the byte: what takes a walk through the whole spec is
found out for the first of them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Generic, TypeVar

import orjson

T = TypeVar("T")

REPEATED = "io.k8s.api.core.v1.PodSpec"
"""the type of which there are many that are the same"""
MOST_BYTES = 16 << 10
"""longer values are not kept: memory is bounded, whatever clients send"""


def key_of(value: Any) -> bytes:
    """The value's JSON, keys in their order; nothing for what is not to be kept."""
    try:
        key = orjson.dumps(value)
    except orjson.JSONEncodeError:  # numbers beyond 64 bits, deep nesting
        return b""
    return key if len(key) <= MOST_BYTES else b""


class Memo(Generic[T]):
    """The oldest goes first. Threads may share one: each step is one call."""

    def __init__(self, size: int = 128) -> None:
        self._size = size
        self._found: OrderedDict[bytes, T] = OrderedDict()

    def get(self, key: bytes) -> T | None:
        return self._found.get(key)

    def put(self, key: bytes, found: T) -> None:
        if not key:
            return
        if len(self._found) >= self._size:
            self._found.popitem(last=False)
        self._found[key] = found
