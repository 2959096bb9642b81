"""How many seats each level has just now: levels lend what they do not use, and borrow where much is asked for.

Every ten seconds the seats are dealt anew. What a level asked for in that time (its demand: seats of what ran and of
what waited) gives a target; each gets the same share of its target, but never less than it may not lend or lately
used, and never more than it may borrow.

Source: KEP-1040; k8s.io/apiserver pkg/util/flowcontrol/{apf_controller,conc_alloc}.go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

PERIOD_S = 10.0
SMOOTHING = 0.977
_LEAST_TARGET = 0.001


@dataclass(frozen=True, slots=True)
class Limits:
    """Seats of a level by its configuration: what it has, keeps when it lends, and can have when it borrows."""

    nominal: int
    least: int
    most: int


def limits(shares: int, all_shares: int, seats: int, lendable_percent: int, borrowing_percent: int | None) -> Limits:
    nominal = math.ceil(seats * shares / all_shares) if all_shares else 0
    lent = _half_up(nominal * lendable_percent / 100)
    borrowed = seats if borrowing_percent is None else _half_up(nominal * borrowing_percent / 100)
    return Limits(nominal, nominal - lent, nominal + borrowed)


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


class Demand:
    """Seats asked for over time."""

    __slots__ = ("_began", "_high", "_squares", "_sum", "average", "deviation", "high", "smoothed")

    def __init__(self, now: float) -> None:
        self._began = now
        self._sum = self._squares = 0.0
        self._high = 0
        self.high = 0
        """the most there was"""
        self.average = self.deviation = self.smoothed = 0.0
        """all as of the last period"""

    def add(self, seats: int, seconds: float) -> None:
        self._sum += seats * seconds
        self._squares += seats * seats * seconds
        if seats > self._high:
            self._high = seats

    def close(self, now: float) -> int:
        """Ends a period; gives the most there was in it."""
        length, self.high = now - self._began, self._high
        if length > 0:
            self.average = self._sum / length
            self.deviation = math.sqrt(max(self._squares / length - self.average**2, 0.0))
            envelope = self.average + self.deviation
            self.smoothed = max(envelope, SMOOTHING * self.smoothed + (1 - SMOOTHING) * envelope)
        self._began, self._sum, self._squares, self._high = now, 0.0, 0.0, 0
        return self.high


@dataclass(frozen=True, slots=True)
class Ask:
    """What one level that is not exempt brings to the table."""

    limits: Limits
    high: int
    smoothed: float

    @property
    def least(self) -> int:
        return max(self.limits.least, min(self.limits.nominal, self.high))

    @property
    def target(self) -> float:
        return max(self.least, self.smoothed)

    @property
    def item(self) -> Item:
        return self.least, self.limits.most, self.target


def deal(total: int, exempt: int, asks: Sequence[Ask]) -> list[int]:
    """Seats for each. `total`: of all levels; `exempt`: what exempt levels use of them."""
    left = total - exempt
    kept, wanted = sum(a.limits.least for a in asks), sum(a.least for a in asks)
    if left <= kept:
        return [a.limits.least for a in asks]
    if left <= wanted:
        part = (left - kept) / (wanted - kept)
        return [a.limits.least + _half_up((a.least - a.limits.least) * part) for a in asks]
    return [_half_up(seats) for seats in fair(total, [a.item for a in asks])]


Item = tuple[float, float, float]
"""least, most, target"""


def fair(total: int, items: Sequence[Item]) -> list[float]:
    """All get the same proportion of their target, as far as their bounds let them, so that together they get
    `total`."""
    return _dealt(fraction(total, items), items)


def fraction(total: int, items: Sequence[Item]) -> float:
    """That proportion."""
    bounds = sorted({b / max(t, _LEAST_TARGET) for low, high, t in items for b in (low, high)})
    if not bounds or sum(_dealt(bounds[0], items)) >= total:
        return bounds[0] if bounds else 0.0
    for before, after in pairwise(bounds):
        # Between two bounds the sum is a straight line.
        below, above = sum(_dealt(before, items)), sum(_dealt(after, items))
        if above >= total:
            return before + (after - before) * (total - below) / (above - below) if above > below else after
    return bounds[-1]


def _dealt(proportion: float, items: Sequence[Item]) -> list[float]:
    return [min(max(low, proportion * max(target, _LEAST_TARGET)), high) for low, high, target in items]
