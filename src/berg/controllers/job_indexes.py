"""Sets of completion indexes, written as `1,3-5,7`. No I/O.

Source: pkg/controller/job/indexed_job_utils.go.
"""

from __future__ import annotations

from collections.abc import Iterable


class Indexes:
    """Disjoint intervals in order: a job may have a hundred thousand indexes, most of them next to each other."""

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self.intervals: list[tuple[int, int]] = []
        for first, last in sorted(intervals):
            if self.intervals and first <= self.intervals[-1][1] + 1:
                before = self.intervals[-1]
                self.intervals[-1] = (before[0], max(before[1], last))
            else:
                self.intervals.append((first, last))

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Indexes:
        return cls((n, n) for n in numbers)

    @classmethod
    def parse(cls, text: str | None, completions: int) -> Indexes:
        """What is not a number is skipped, what is beyond `completions` cut off."""
        found = []
        for part in (text or "").split(","):
            first, dash, last = part.partition("-")
            if not first.isdigit() or (dash and not last.isdigit()):
                continue
            if int(first) < completions:
                found.append((int(first), min(int(last if dash else first), completions - 1)))
        return cls(found)

    def union(self, other: Indexes) -> Indexes:
        return Indexes([*self.intervals, *other.intervals])

    def common(self, other: Indexes) -> int:
        """How many are in both."""
        return sum(max(0, min(b, d) - max(a, c) + 1) for a, b in self.intervals for c, d in other.intervals)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.intervals)

    def __contains__(self, n: int) -> bool:
        return any(first <= n <= last for first, last in self.intervals)

    def missing(self, count: int, completions: int) -> list[int]:
        """The `count` lowest numbers below `completions` that are not in the set."""
        found: list[int] = []
        candidate = 0
        for first, last in [*self.intervals, (completions, completions)]:
            while candidate < min(first, completions) and len(found) < count:
                found.append(candidate)
                candidate += 1
            candidate = max(candidate, last + 1)
        return found

    def __str__(self) -> str:
        parts = []
        for first, last in self.intervals:
            parts.append(str(first) if first == last else f"{first},{last}" if last == first + 1 else f"{first}-{last}")
        return ",".join(parts)
