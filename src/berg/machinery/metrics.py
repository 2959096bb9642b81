"""Counters, gauges and histograms of one component, in Prometheus' text format.

A registry belongs to a component, not to the process: several run in one. Counting is a dictionary look-up, and less
where the cell or the figure is kept at hand; what parts keep anyway is read off them (`gauge`, `total`,
`distribution`) when somebody asks, and costs nothing until then.

A help text begins with upstream's promise about the name, `[STABLE]`, `[BETA]` or `[ALPHA]`, where there is one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float]]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LEVEL = re.compile(r"\[([A-Z]+)\]")


def exponential(first: float, factor: float, count: int) -> tuple[float, ...]:
    """Bounds of a histogram, each `factor` times the one before, multiplied one after the other as Go does."""
    bounds = [first]
    while len(bounds) < count:
        bounds.append(bounds[-1] * factor)
    return tuple(bounds)


def number(value: float) -> str:
    """As Go writes it, so that bounds are the same labels: `1e-05`, `0.0001`, `65536`, `1e+06`."""
    size = abs(value)
    if size == 0 or 1e-4 <= size < 1e6 or size == float("inf"):
        text = repr(float(value)).removesuffix(".0")
        return "+Inf" if text == "inf" else text
    if value != value:
        return "NaN"
    digits, exponent = f"{Decimal(repr(float(value))).normalize():E}".split("E")
    return f"{digits}e{exponent[0]}{exponent[1:]:0>2}"


class Cell:
    """One histogram: how many values fell between which bounds."""

    __slots__ = ("bounds", "buckets", "count", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value

    def observe_many(self, value: float, times: int) -> None:
        self.buckets[bisect_left(self.bounds, value)] += times
        self.count += times
        self.total += value * times

    def moved(self, before: float, after: float) -> None:
        """For a cell of corrections: what another cell knows as `before` is to be `after`."""
        self.buckets[bisect_left(self.bounds, before)] -= 1
        self.buckets[bisect_left(self.bounds, after)] += 1
        self.total += after - before

    def plus(self, other: Cell) -> Cell:
        """Both in one; of the same bounds."""
        found = Cell(self.bounds)
        found.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        found.count, found.total = self.count + other.count, self.total + other.total
        return found

    def lines(self, name: str, names: Labels, values: Labels, bounds: Sequence[float]) -> Iterator[str]:
        """`bounds`: these of the cell's own. One cell can tell several families that differ in how fine they are."""
        running, wanted = 0, set(bounds)
        names = (*names, "le")
        for bound, count in zip(self.bounds, self.buckets, strict=False):
            running += count
            if bound in wanted:
                yield f"{name}_bucket{_text(names, (*values, number(bound)))} {number(running)}"
        yield f"{name}_bucket{_text(names, (*values, '+Inf'))} {number(self.count)}"
        names = names[:-1]
        yield f"{name}_sum{_text(names, values)} {number(self.total)}"
        yield f"{name}_count{_text(names, values)} {number(self.count)}"


class Recent(Cell):
    """That keeps the last values, too."""

    __slots__ = ("last",)

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__(bounds)
        self.last: deque[float] = deque(maxlen=500)

    def observe(self, value: float) -> None:
        super().observe(value)
        self.last.append(value)


class Timed:
    """For how long something was in which state."""

    __slots__ = ("_at", "seconds", "state")

    def __init__(self, state: Hashable, now: float) -> None:
        self._at = now
        self.state = state
        self.seconds: dict[Any, float] = {}

    def turn(self, state: Hashable, now: float) -> None:
        seconds, before = self.seconds, self.state
        seconds[before] = seconds.get(before, 0.0) + now - self._at
        self._at, self.state = now, state

    def taken(self, now: float) -> dict[Any, float]:
        """What was counted since somebody last took it."""
        self.turn(self.state, now)
        found, self.seconds = self.seconds, {}
        return found


def observe_times(cell: Cell, value: float, seconds: float) -> None:
    """An observation at the end of every nanosecond: upstream's timing histograms."""
    cell.observe_many(value, round(seconds * 1e9))


class Counter:
    kind = "counter"

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def inc(self, *labels: str, by: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by

    def lines(self, name: str) -> Iterable[str]:
        for labels, value in sorted(self.values.items()):
            yield f"{name}{_text(self.labels, labels)} {number(value)}"


class Gauge:
    """Its samples are what `read` gives when they are asked for."""

    def __init__(self, labels: Sequence[str], read: Callable[[], Samples], kind: str = "gauge") -> None:
        self.labels, self._read, self.kind = tuple(labels), read, kind

    def lines(self, name: str) -> Iterable[str]:
        for labels, value in sorted(self._read()):
            yield f"{name}{_text(self.labels, labels)} {number(value)}"


class Histogram:
    kind = "histogram"

    def __init__(self, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.labels, self.bounds = tuple(labels), tuple(bounds)
        self._cells: dict[Labels, Cell] = {} if labels else {(): Cell(self.bounds)}

    def observe(self, value: float, *labels: str) -> None:
        self.cell(*labels).observe(value)

    def cell(self, *labels: str) -> Cell:
        """For who observes often: it may be kept."""
        found = self._cells.get(labels)
        if found is None:
            found = self._cells[labels] = Cell(self.bounds)
        return found

    def cells(self) -> Iterable[tuple[Labels, Cell]]:
        return self._cells.items()

    def lines(self, name: str) -> Iterable[str]:
        for labels, cell in sorted(self.cells(), key=lambda found: found[0]):
            yield from cell.lines(name, self.labels, labels, self.bounds)


class Distribution(Histogram):
    """Cells that someone else keeps, with these bounds or more."""

    def __init__(
        self, labels: Sequence[str], bounds: Sequence[float], read: Callable[[], Iterable[tuple[Labels, Cell]]]
    ) -> None:
        super().__init__(labels, bounds)
        self._read = read

    def cells(self) -> Iterable[tuple[Labels, Cell]]:
        return self._read()


Summed = tuple[Labels, Collection[float], int, float]
"""labels, the last values, how many there were in all, their sum"""


class Summary:
    kind = "summary"

    def __init__(self, labels: Sequence[str], read: Callable[[], Iterable[Summed]]) -> None:
        self.labels, self._read = tuple(labels), read

    def lines(self, name: str) -> Iterable[str]:
        for labels, recent, count, total in sorted(self._read(), key=lambda found: found[0]):
            ordered = sorted(recent)
            for quantile in QUANTILES:
                value = ordered[min(int(quantile * len(ordered)), len(ordered) - 1)] if ordered else float("nan")
                text = _text((*self.labels, "quantile"), (*labels, number(quantile)))
                yield f"{name}{text} {number(value)}"
            yield f"{name}_sum{_text(self.labels, labels)} {number(total)}"
            yield f"{name}_count{_text(self.labels, labels)} {number(count)}"


QUANTILES = (0.5, 0.9, 0.99)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _text(names: Labels, values: Labels) -> str:
    """In the order of their names, the bucket or quantile last."""
    if not names:
        return ""
    last = names[-1] in ("le", "quantile")
    pairs = sorted(zip(names[:-1], values[:-1], strict=True) if last else zip(names, values, strict=True))
    if last:
        pairs.append((names[-1], values[-1]))
    return "{" + ",".join([f'{n}="{_escape(v)}"' for n, v in pairs]) + "}"


Metric = Counter | Gauge | Histogram | Summary


class Registry:
    def __init__(self, disabled: Iterable[str] = ()) -> None:
        """`disabled`: families that are not told."""
        self._metrics: dict[str, tuple[str, Metric]] = {}
        self.disabled = frozenset(disabled)

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        """Asked for again, it is the same one."""
        _, found = self._metrics.setdefault(name, (help, Counter(labels)))
        assert isinstance(found, Counter)
        return found

    def gauge(self, name: str, help: str, labels: Sequence[str], read: Callable[[], Samples]) -> None:
        self._metrics[name] = (help, Gauge(labels, read))

    def total(self, name: str, help: str, labels: Sequence[str], read: Callable[[], Samples]) -> None:
        """A counter that someone else keeps."""
        self._metrics[name] = (help, Gauge(labels, read, "counter"))

    def histogram(self, name: str, help: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        """Asked for again, it is the same one."""
        _, found = self._metrics.setdefault(name, (help, Histogram(labels, bounds)))
        assert isinstance(found, Histogram)
        return found

    def summary(self, name: str, help: str, labels: Sequence[str], read: Callable[[], Iterable[Summed]]) -> None:
        """Quantiles of what was seen of late, by someone else."""
        self._metrics[name] = (help, Summary(labels, read))

    def distribution(
        self,
        name: str,
        help: str,
        bounds: Sequence[float],
        labels: Sequence[str],
        read: Callable[[], Iterable[tuple[Labels, Cell]]],
    ) -> None:
        """A histogram that someone else keeps."""
        self._metrics[name] = (help, Distribution(labels, bounds, read))

    def levels(self) -> Samples:
        """How many families there are of each promise."""
        found = Tally(m[1] for help, _ in self._metrics.values() if (m := _LEVEL.match(help)))
        return [((level,), count) for level, count in found.items()]

    def text(self) -> str:
        out: list[str] = []
        for name, (help, metric) in sorted(self._metrics.items()):
            if name in self.disabled:
                continue
            lines = list(metric.lines(name))
            if lines:
                out += [f"# HELP {name} {help}", f"# TYPE {name} {metric.kind}", *lines]
        return "\n".join(out) + "\n"
