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

    __slots__ = ("_at", "_began", "_now", "_squares", "_sum", "average", "deviation", "high", "smoothed")

    def __init__(self, now: float) -> None:
        self._began = self._at = now
        self._now = 0
        self._sum = self._squares = 0.0
        self.high = 0
        """the most there was in this period"""
        self.average = self.deviation = self.smoothed = 0.0
        """as of the last period"""

    def note(self, seats: int, now: float) -> None:
        passed, before = now - self._at, self._now
        self._sum += before * passed
        self._squares += before * before * passed
        self._at, self._now = now, seats
        if seats > self.high:
            self.high = seats

    def close(self, now: float) -> int:
        """Ends a period; gives the most there was in it."""
        self.note(self._now, now)
        length, high = now - self._began, self.high
        if length > 0:
            self.average = self._sum / length
            self.deviation = math.sqrt(max(self._squares / length - self.average**2, 0.0))
            envelope = self.average + self.deviation
            self.smoothed = max(envelope, SMOOTHING * self.smoothed + (1 - SMOOTHING) * envelope)
        self._began, self._sum, self._squares, self.high = now, 0.0, 0.0, self._now
        return high


@dataclass(frozen=True, slots=True)
class Ask:
    """What one level that is not exempt brings to the table."""

    limits: Limits
    high: int
    smoothed: float

    @property
    def least(self) -> int:
        return max(self.limits.least, min(self.limits.nominal, self.high))


def deal(total: int, exempt: int, asks: Sequence[Ask]) -> list[int]:
    """Seats for each. `total`: of all levels; `exempt`: what exempt levels use of them."""
    left = total - exempt
    kept, wanted = sum(a.limits.least for a in asks), sum(a.least for a in asks)
    if left <= kept:
        return [a.limits.least for a in asks]
    if left <= wanted:
        part = (left - kept) / (wanted - kept)
        return [a.limits.least + _half_up((a.least - a.limits.least) * part) for a in asks]
    return [
        _half_up(seats) for seats in fair(total, [(a.least, a.limits.most, max(a.least, a.smoothed)) for a in asks])
    ]


def fair(total: int, items: Sequence[tuple[float, float, float]]) -> list[float]:
    """Items are (least, most, target). All get the same proportion of their target, as far as their bounds let them,
    so that together they get `total`."""
    targets = [max(target, _LEAST_TARGET) for _, _, target in items]

    def dealt(proportion: float) -> list[float]:
        return [min(max(low, proportion * t), high) for (low, high, _), t in zip(items, targets, strict=True)]

    bounds = sorted({b / t for (low, high, _), t in zip(items, targets, strict=True) for b in (low, high)})
    if not bounds or sum(dealt(bounds[0])) >= total:
        return [low for low, _, _ in items]
    for before, after in pairwise(bounds):
        # Between two bounds the sum is a straight line.
        below, above = sum(dealt(before)), sum(dealt(after))
        if above >= total:
            return dealt(before + (after - before) * (total - below) / (above - below) if above > below else after)
    return [high for _, high, _ in items]
