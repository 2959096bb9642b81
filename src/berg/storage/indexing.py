"""Indexes of a watch cache: which objects have a value, for one way of computing values. Labels are always indexed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from berg.storage.cacher import CacheEntry
from berg.storage.entry import Entry
from berg.storage.transform import TransformError

IndexValues = Callable[[CacheEntry], Sequence[str]]


def label_values(entry: CacheEntry) -> list[str]:
    return [f"{k}={v}" for k, v in entry.labels.items()]


class Index:
    """Which keys have which values, for one way of computing values."""

    __slots__ = ("_compute", "_keys", "_values")

    def __init__(self, compute: IndexValues) -> None:
        self._compute = compute
        self._keys: dict[str, set[str]] = {}
        self._values: dict[str, Sequence[str]] = {}

    def set(self, entry: Entry) -> None:
        key = entry.key
        try:
            new = self._compute(entry)
        except TransformError:
            new = ()  # it cannot be read; whoever lists it is told so
        old = self._values.get(key, ())
        if new == old:
            return
        self._drop(key, old)
        if new:
            self._values[key] = new
            for value in new:
                self._keys.setdefault(value, set()).add(key)
        else:
            self._values.pop(key, None)

    def remove(self, key: str) -> None:
        self._drop(key, self._values.pop(key, ()))

    def _drop(self, key: str, values: Sequence[str]) -> None:
        for value in values:
            keys = self._keys[value]
            keys.discard(key)
            if not keys:
                del self._keys[value]

    def find(self, value: str) -> Iterable[str]:
        return self._keys.get(value, ())


def normal(index: tuple[str, str]) -> tuple[str, str]:
    """`("label:app", "web")` is `("label", "app=web")`."""
    name, value = index
    return ("label", f"{name[6:]}={value}") if name.startswith("label:") else (name, value)
