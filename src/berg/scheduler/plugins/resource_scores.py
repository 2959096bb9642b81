"""How well a pod's requests suit a node: the scorers behind NodeResourcesFit and NodeResourcesBalancedAllocation.

Source: plugins/noderesources (least_allocated.go, most_allocated.go, requested_to_capacity_ratio.go,
balanced_allocation.go). Integer divisions are upstream's, so scores are equal to the point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from berg.scheduler.framework.interface import MAX_SCORE, Cycle, Rows
from berg.scheduler.state.arrays import Bools, Floats, Ints
from berg.scheduler.state.podinfo import PodClass
from berg.scheduler.state.snapshot import CPU, MEMORY, STORAGE

Obj = dict[str, Any]

OneScore = Callable[[Ints, Ints], Ints]
"""(requested with the pod, allocatable) → 0…MAX_SCORE, for one resource on many nodes"""


def least(requested: Ints, allocatable: Ints) -> Ints:
    free = np.maximum(allocatable - requested, 0)
    return free * MAX_SCORE // allocatable


def most(requested: Ints, allocatable: Ints) -> Ints:
    return np.minimum(requested, allocatable) * MAX_SCORE // allocatable


def ratio(shape: Sequence[Obj]) -> OneScore:
    """A broken line through (utilization in %, score of 10)."""
    xs = [p["utilization"] for p in shape]
    ys = [p.get("score", 0) * (MAX_SCORE // 10) for p in shape]

    def score(requested: Ints, allocatable: Ints) -> Ints:
        used = np.where(requested > allocatable, 100, requested * 100 // allocatable)
        return np.trunc(np.interp(used, xs, ys)).astype(np.int64)

    return score


def fit_score(cycle: Cycle, rows: Rows, resources: Sequence[tuple[str, int]], one: OneScore, *, rounds: bool) -> Ints:
    """The weighted mean over `resources` (name, weight) of `one`; cpu and memory count with defaults for containers
    that request none. `rounds`: to the nearest, and resources that score 0 do not count (RequestedToCapacityRatio)."""
    snapshot, cls = cycle.snapshot, cycle.cls
    total: Ints | int = 0
    weights: Ints | int = 0
    for name, weight in resources:
        column = snapshot.resource(name)
        if column in (CPU, MEMORY):
            index = 0 if column == CPU else 1
            asked, used = cls.nonzero[index], snapshot.nonzero[index, rows]
        else:
            asked, used = cls.requests.get(name, 0), snapshot.requested[column, rows]
            if not asked and column != STORAGE:
                continue
        allocatable = snapshot.allocatable[column, rows]
        has = allocatable > 0
        score = np.where(has, one(used + asked, np.maximum(allocatable, 1)), 0)
        counted: Bools = (score > 0) if rounds else has
        total = total + score * weight
        weights = weights + counted * weight
    if isinstance(weights, int):
        return np.zeros(len(snapshot.valid[rows]), dtype=np.int64)
    weights = np.maximum(weights, 1)
    if rounds:
        return np.floor(total / weights + 0.5).astype(np.int64)
    return np.asarray(total // weights)


def balanced_score(cycle: Cycle, rows: Rows, resources: Sequence[str]) -> Ints:
    """How much evener the pod makes the use of the node's resources: 50 (worse) … 75 (no change) … 100."""
    snapshot, cls = cycle.snapshot, cycle.cls
    before: list[Floats] = []
    after: list[Floats] = []
    counted: list[Bools] = []
    for name in resources:
        column = snapshot.resource(name)
        asked = requested_of(cls, name)
        if not asked and column not in (CPU, MEMORY, STORAGE):
            continue
        allocatable = snapshot.allocatable[column, rows]
        used = snapshot.requested[column, rows]
        capacity = np.maximum(allocatable, 1)
        before.append(np.minimum(used / capacity, 1.0))
        after.append(np.minimum((used + asked) / capacity, 1.0))
        counted.append(allocatable > 0)
    half = MAX_SCORE // 2
    difference = _evenness(after, counted) - _evenness(before, counted)
    # Go's integer division truncates; half + difference is never negative, so // is the same
    return np.asarray(half + (half + difference) // 2)


def requested_of(cls: PodClass, name: str) -> int:
    return cls.requests.get(name, 0)


def _evenness(fractions: list[Floats], counted: list[Bools]) -> Ints:
    """(1 - standard deviation) in points."""
    if len(fractions) == 2:  # by far the most common: cpu and memory
        deviation = np.abs(fractions[0] - fractions[1]) / 2
        deviation[~(counted[0] & counted[1])] = 0.0
    else:
        has = np.array(counted)
        values = np.array(fractions)
        n = np.maximum(has.sum(axis=0), 1)
        mean = (values * has).sum(axis=0) / n
        deviation = np.sqrt((((values - mean) ** 2) * has).sum(axis=0) / n)
    return ((1 - deviation) * MAX_SCORE).astype(np.int64)
