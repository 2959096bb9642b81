"""What a cacher counts as it works: events, lists, what the store was asked for and how long it took.

Source: k8s.io/apiserver pkg/storage/cacher/metrics, pkg/storage/etcd3/metrics.
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter

from berg.machinery.metrics import Cell

SECONDS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
)  # fmt: skip
WAITS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)
LEASES = (10.0, 50.0, 100.0, 500.0, 1000.0, 2500.0, 5000.0)


class CacheFigures:
    __slots__ = ("asked", "dispatched", "fetched", "from_store", "listed", "loads", "received", "refused", "returned",
                 "waits")  # fmt: skip

    def __init__(self) -> None:
        self.received = self.dispatched = 0
        """events of the store, and what became of them"""
        self.loads = 0
        """how often the state was read anew"""
        self.listed: Counter[str] = Counter()
        self.fetched: Counter[str] = Counter()
        """index ("" without) → lists, and objects gone through for them"""
        self.returned = 0
        self.from_store = [0, 0, 0, 0]
        """lists that the store answered; objects that it gave, that were looked at, that fitted"""
        self.asked: dict[str, Cell] = {}
        """operation → how long the store took"""
        self.refused: Counter[str] = Counter()
        """operation → failures"""
        self.waits = Cell(WAITS)
        """of reads for which the cache was not new enough"""

    def asked_since(self, operation: str, started: float, *, well: bool = True) -> None:
        cell = self.asked.get(operation)
        if cell is None:
            cell = self.asked[operation] = Cell(SECONDS)
        cell.observe(perf_counter() - started)
        if not well:
            self.refused[operation] += 1

    def listed_from_store(self, given: int, fitting: int) -> None:
        for i, count in enumerate((1, given, given, fitting)):
            self.from_store[i] += count
