"""Columns of node facts that exist only because somebody asked: label values, image sizes.

A cluster has many labels and images, and selectors name few of them. A column is made at its first use from the
node objects and from then on kept in step by the snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from berg.scheduler.state.arrays import Floats, Ids, Interner, Ints, grown

Obj = dict[str, Any]


class LabelColumn:
    """`ids[row]` is the interned value of one label, -1 where the node lacks it (and in rows without a node).

    `version` changes with any entry, so that what was counted by domain knows when it is stale.
    """

    def __init__(self, key: str, capacity: int) -> None:
        self.key = key
        self.values = Interner()
        self.ids: Ids = np.full(capacity, -1, dtype=np.int32)
        self.version = 0
        self._numbers: Floats | None = None

    def set(self, row: int, labels: Mapping[str, str] | None) -> None:
        value = None if labels is None else labels.get(self.key)
        new = -1 if value is None else self.values.id(value)
        if self.ids[row] != new:
            self.ids[row] = new
            self.version += 1

    def grow(self, capacity: int) -> None:
        self.ids = grown(self.ids, capacity, -1)
        self.version += 1

    @property
    def domains(self) -> int:
        """How many values there have been; counts by domain have one slot more, for rows without the label."""
        return len(self.values)

    def numbers(self) -> Floats:
        """The value of each id as a number, NaN where it is none: for Gt and Lt. The last slot is NaN, for -1."""
        if self._numbers is None or len(self._numbers) != self.domains + 1:
            self._numbers = np.array([*(_number(v) for v in self.values.names), np.nan])
        return self._numbers


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float("nan")


class ImageColumn:
    """`sizes[row]` is the size in bytes of one image on the node, 0 where it is not; `nodes` how many have it."""

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.sizes: Ints = np.zeros(capacity, dtype=np.int64)
        self.nodes = 0
        self.version = 0

    def set(self, row: int, images: Mapping[str, int]) -> None:
        size = images.get(self.name, 0)
        had = int(self.sizes[row])
        if had != size:
            self.nodes += (size > 0) - (had > 0)
            self.sizes[row] = size
            self.version += 1

    def grow(self, capacity: int) -> None:
        self.sizes = grown(self.sizes, capacity)


def normalized_image(name: str) -> str:
    """With `:latest` where there is neither tag nor digest, as runtimes report it."""
    return name if name.rfind(":") > name.rfind("/") else f"{name}:latest"


def node_images(images: Sequence[Obj]) -> dict[str, int]:
    return {normalized_image(n): i.get("sizeBytes") or 0 for i in images for n in i.get("names") or ()}
