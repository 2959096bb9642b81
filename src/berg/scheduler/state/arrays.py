"""The arrays that the columnar state is made of.

`Rows` says which nodes an operation is about: an index array of rows, or a slice of all of them. Everything that
is computed per node is an array aligned with `Rows`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Ids: TypeAlias = NDArray[np.int32]
Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
RowArray: TypeAlias = NDArray[np.intp]
Rows: TypeAlias = "slice | RowArray"

ALL: slice = slice(None)


def grown(array: NDArray[Any], capacity: int, fill: int = 0) -> NDArray[Any]:
    """`array` with its last axis extended to `capacity`."""
    more = np.full((*array.shape[:-1], capacity - array.shape[-1]), fill, dtype=array.dtype)
    return np.concatenate([array, more], axis=-1)


class Interner:
    """Small integers for strings, in order of appearance, never taken back."""

    def __init__(self, *names: str) -> None:
        self.names: list[str] = []
        self._ids: dict[str, int] = {}
        for name in names:
            self.id(name)

    def id(self, name: str) -> int:
        found = self._ids.get(name)
        if found is None:
            found = self._ids[name] = len(self.names)
            self.names.append(name)
        return found

    def find(self, name: str) -> int:
        """-1 when it was never seen."""
        return self._ids.get(name, -1)

    def __len__(self) -> int:
        return len(self.names)
