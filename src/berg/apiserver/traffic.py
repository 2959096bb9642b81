"""Reads and writes that are under way, and those of them that wait for a seat; for how long there were how many.

All four numbers are one integer, so that a change is one addition and one look-up.

Source: k8s.io/apiserver pkg/server/filters/maxinflight.go, pkg/util/flowcontrol/metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import perf_counter

from berg.machinery.metrics import Cell, Labels, Registry, Samples, observe_times

READ, WRITE, WAITING_READ, WAITING_WRITE = 1, 1 << 16, 1 << 32, 1 << 48
MUTATING = frozenset(("create", "update", "patch", "delete", "deletecollection"))
_COUNTS = (0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Traffic:
    __slots__ = ("_at", "_cells", "_seconds", "_state")

    def __init__(self) -> None:
        self._at = perf_counter()
        self._state = 0
        self._seconds: dict[int, float] = {}
        self._cells = {(phase, kind): Cell(_COUNTS) for phase in ("executing", "waiting") for kind in _KINDS}

    def change(self, by: int, now: float) -> None:
        """`by`: READ, -READ, …"""
        seconds, state = self._seconds, self._state
        seconds[state] = seconds.get(state, 0.0) + now - self._at
        self._at = now
        self._state = state + by

    def describe(self, r: Registry) -> None:
        help = "[STABLE] Requests under way now, by kind."
        r.gauge("apiserver_current_inflight_requests", help, ("request_kind",), lambda: self._now(0))
        help = "[ALPHA] Requests that wait now, by kind."
        r.gauge("apiserver_current_inqueue_requests", help, ("request_kind",), lambda: self._now(2))
        help = "[ALPHA] Reads and writes that ran and waited, each number for how many nanoseconds."
        name, labels = "apiserver_flowcontrol_read_vs_write_current_requests", ("phase", "request_kind")
        r.distribution(name, help, _COUNTS, labels, self._times)

    def _now(self, first: int) -> Samples:
        found = list(_split(self._state))
        return [((kind,), found[first + i]) for i, kind in enumerate(_KINDS)]

    def _times(self) -> Iterable[tuple[Labels, Cell]]:
        self.change(0, perf_counter())
        taken, self._seconds = self._seconds, {}
        for state, seconds in taken.items():
            reads, writes, waiting_reads, waiting_writes = _split(state)
            counts = (reads - waiting_reads, writes - waiting_writes, waiting_reads, waiting_writes)
            for count, cell in zip(counts, self._cells.values(), strict=True):
                observe_times(cell, count, seconds)
        return self._cells.items()


_KINDS = ("readOnly", "mutating")


def _split(state: int) -> Iterator[int]:
    for shift in (0, 16, 32, 48):
        yield state >> shift & 0xFFFF
