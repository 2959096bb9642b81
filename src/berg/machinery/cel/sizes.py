"""Bounds of sizes and costs, and the units that both the estimate and the meter reckon in.

Source: cel-go common/cost.go, checker/cost.go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

INFINITE = (1 << 64) - 1
TRAVERSAL, REGEX = 0.1, 0.25
NEW_LIST, NEW_MAP, NEW_STRUCT = 10, 30, 40
CHECK = 350_000
"""of asking the authorizer"""


def limited(value: float) -> int:
    return INFINITE if value >= INFINITE else math.ceil(value)


def times(a: float, b: float) -> int:
    return 0 if not a or not b else limited(a * b)


@dataclass(slots=True)
class Size:
    least: int
    most: int

    def __add__(self, other: Size) -> Size:
        return Size(limited(self.least + other.least), limited(self.most + other.most))

    def __or__(self, other: Size) -> Size:
        return Size(min(self.least, other.least), max(self.most, other.most))


UNKNOWN = Size(0, INFINITE)
ONE = Size(1, 1)
