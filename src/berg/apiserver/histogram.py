"""A histogram of Prometheus: counts in buckets, and how it is written."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator


class Histogram:
    __slots__ = ("bounds", "buckets", "count", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        running = 0
        for bound, count in zip(self.bounds, self.buckets, strict=False):
            running += count
            yield f'{name}_bucket{{{labels},le="{bound:g}"}} {running}\n'
        yield f'{name}_bucket{{{labels},le="+Inf"}} {self.count}\n'
        yield f"{name}_sum{{{labels}}} {self.total}\n{name}_count{{{labels}}} {self.count}\n"
