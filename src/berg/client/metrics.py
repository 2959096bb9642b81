"""Counters, gauges and histograms of one component, in Prometheus' text format.

A registry belongs to a component, not to the process: several run in one. Counting is a dictionary look-up; gauges
are asked when somebody reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float]]


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


class Counter:
    kind = "counter"

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.values: dict[Labels, float] = {}

    def inc(self, *labels: str, by: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by

    def lines(self, name: str) -> Iterable[str]:
        for labels, value in sorted(self.values.items()):
            yield f"{name}{_text(self.labels, labels)} {_number(value)}"


class Gauge:
    """Its samples are what `read` gives when they are asked for."""

    kind = "gauge"

    def __init__(self, labels: Sequence[str], read: Callable[[], Samples], kind: str = "gauge") -> None:
        self.labels, self._read, self.kind = tuple(labels), read, kind

    def lines(self, name: str) -> Iterable[str]:
        for labels, value in sorted(self._read()):
            yield f"{name}{_text(self.labels, labels)} {_number(value)}"


class Histogram:
    kind = "histogram"

    def __init__(self, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.labels, self.bounds = tuple(labels), tuple(bounds)
        self._buckets: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, *labels: str) -> None:
        buckets = self._buckets.setdefault(labels, [0] * (len(self.bounds) + 1))
        buckets[bisect_left(self.bounds, value)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self, name: str) -> Iterable[str]:
        for labels, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip([*map(_number, self.bounds), "+Inf"], buckets, strict=True):
                total += count
                yield f"{name}_bucket{_text((*self.labels, 'le'), (*labels, bound))} {total}"
            yield f"{name}_sum{_text(self.labels, labels)} {self._sums[labels]!r}"
            yield f"{name}_count{_text(self.labels, labels)} {total}"


def _text(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)) + "}"


class Registry:
    def __init__(self) -> None:
        self._metrics: dict[str, tuple[str, Counter | Gauge | Histogram]] = {}

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        found = Counter(labels)
        self._metrics[name] = (help, found)
        return found

    def gauge(self, name: str, help: str, labels: Sequence[str], read: Callable[[], Samples]) -> None:
        self._metrics[name] = (help, Gauge(labels, read))

    def total(self, name: str, help: str, labels: Sequence[str], read: Callable[[], Samples]) -> None:
        """A counter that someone else keeps."""
        self._metrics[name] = (help, Gauge(labels, read, "counter"))

    def histogram(self, name: str, help: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        found = Histogram(labels, bounds)
        self._metrics[name] = (help, found)
        return found

    def text(self) -> str:
        out: list[str] = []
        for name, (help, metric) in sorted(self._metrics.items()):
            out += [f"# HELP {name} {help}", f"# TYPE {name} {metric.kind}", *metric.lines(name)]
        return "\n".join(out) + "\n"
