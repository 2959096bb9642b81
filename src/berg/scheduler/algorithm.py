"""One pod, one decision. No I/O, nothing awaited: the snapshot in, a node or a `FitError` out.

1. PreFilter plugins may reject the pod or narrow down the nodes.
2. Filters: cached answers of the pod's class, then those that depend on the whole cluster.
3. Scores of what is left; the best node, and among equals one at random.
4. If pods are nominated to that node, it must fit beside them too; otherwise the next best.

Differs from upstream: unless `percentageOfNodesToScore` is set, all feasible nodes are scored at any cluster size,
because a score is a vector here and sampling would save nothing.

Source: pkg/scheduler/schedule_one.go.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from berg.scheduler.framework.classcache import Applicable, ClassCache, ClassState
from berg.scheduler.framework.diagnosis import Diagnosis, FitError
from berg.scheduler.framework.interface import Cycle, Filter, PreFilterResult, Score
from berg.scheduler.framework.profile import Profile
from berg.scheduler.framework.status import Code, Status, error, unresolvable
from berg.scheduler.state.arrays import ALL, Bools, Ints, RowArray, Rows
from berg.scheduler.state.podinfo import PodInfo
from berg.scheduler.state.snapshot import Snapshot

MIN_FEASIBLE = 100
"""never fewer feasible nodes than this are looked for, whatever the percentage"""


class SchedulingError(Exception):
    """A plugin failed: nothing is known of whether the pod fits."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


@dataclass(slots=True)
class Decision:
    node: str
    cycle: Cycle
    evaluated: int
    feasible: int


T = TypeVar("T")


class Algorithm:
    """Decides for pods of one profile."""

    def __init__(
        self,
        profile: Profile,
        snapshot: Snapshot,
        *,
        percentage_of_nodes_to_score: int = 0,
        rng: random.Random | None = None,
    ) -> None:
        self.profile = profile
        self.snapshot = snapshot
        self.classes = ClassCache(profile, snapshot)
        self._percentage = percentage_of_nodes_to_score
        self._rng = rng or random.Random()
        self._start = 0
        self.timed: Callable[[str, str, float, str], None] | None = None
        """told how long an extension point took: its name, the profile's, seconds, what came of it"""

    def _time(self, point: str, call: Callable[..., T], *args: Any) -> T:
        if self.timed is None:
            return call(*args)
        started, status = perf_counter(), "Success"
        try:
            return call(*args)
        except FitError:
            status = "Unschedulable"
            raise
        finally:
            self.timed(point, self.profile.name, perf_counter() - started, status)

    def schedule(self, pod: PodInfo, *, nominated: str = "") -> Decision:
        """`nominated` is the node that preemption made room on: if the pod fits there, there it goes.

        Raises FitError, NoNodes, SchedulingError.
        """
        snapshot = self.snapshot
        cycle = Cycle(pod, snapshot, rng=self._rng)
        if snapshot.count == 0:
            raise NoNodes()
        narrowed = self._time("PreFilter", self._pre_filter, cycle)
        if nominated in snapshot.rows and (narrowed is None or nominated in narrowed):
            there = snapshot.rows[nominated]
            only = np.array([there], dtype=np.intp)
            if not _first_codes(self.profile.filters, cycle, only)[0, 0] and self._fits_beside_nominated(cycle, there):
                return Decision(nominated, cycle, 1, 1)
        state = self.classes.state(cycle) if narrowed is None else None
        if narrowed is not None:
            return self._time("Filter", self._among, cycle, narrowed)
        assert state is not None
        feasible = self._time("Filter", self._feasible, cycle, state)
        rows = self._sample(np.flatnonzero(feasible))
        if not len(rows):
            raise FitError(self._diagnose(cycle), cycle)
        row = self._time("Score", self._best, cycle, state, rows)
        if row is None:
            raise FitError(self._diagnose(cycle), cycle)
        return Decision(snapshot.names[row], cycle, snapshot.count, len(rows))

    # PreFilter

    def _pre_filter(self, cycle: Cycle) -> frozenset[str] | None:
        names: frozenset[str] | None = None
        by: set[str] = set()
        rejection: Status | None = None
        for plugin in self.profile.pre_filter:
            answer = plugin.pre_filter(cycle)
            if isinstance(answer, PreFilterResult):
                names = answer.nodes if names is None else names & answer.nodes
                by.add(plugin.name)
                if not names:
                    self._reject(cycle, unresolvable(_unsatisfied(by)).of(plugin.name))
            elif isinstance(answer, Status) and answer.code != Code.SKIP:
                if not answer.rejected:
                    raise SchedulingError(error(f'running PreFilter plugin "{plugin.name}": {answer.message}'))
                if answer.code == Code.UNSCHEDULABLE_AND_UNRESOLVABLE:
                    self._reject(cycle, answer.of(plugin.name))
                rejection = answer.of(plugin.name)  # preemption may help: it needs what the others prepare
        if rejection is not None:
            self._reject(cycle, rejection)
        if names is not None:
            cycle.data["narrowed-by"] = by
        return names

    def _reject(self, cycle: Cycle, status: Status) -> None:
        diagnosis = Diagnosis(self.snapshot.count, pre_filter_message=status.message)
        diagnosis.add(status, np.flatnonzero(self.snapshot.valid))
        cycle.filters = self.profile.filters
        raise FitError(diagnosis, cycle)

    def _among(self, cycle: Cycle, names: frozenset[str]) -> Decision:
        """The few nodes that PreFilter left: asked directly, nothing is cached."""
        snapshot = self.snapshot
        found = [snapshot.rows[n] for n in names if n in snapshot.rows]
        rows = np.array(sorted(found), dtype=np.intp)
        filters = self._plugins(cycle).filters
        verdict = _first_codes(filters, cycle, rows)
        ok = rows[verdict[0] == 0]
        ok = np.array([r for r in ok if self._fits_beside_nominated(cycle, int(r))], dtype=np.intp)
        if len(ok):
            best = ok[0] if len(ok) == 1 else self._pick(ok, self._fresh_scores(cycle, ok))
            return Decision(snapshot.names[int(best)], cycle, len(rows), len(ok))
        diagnosis = Diagnosis(snapshot.count)
        _explain(diagnosis, filters, cycle, rows, verdict)
        rest = np.setdiff1d(np.flatnonzero(snapshot.valid), rows)
        if len(rest):
            by = sorted(cycle.data["narrowed-by"])
            status = unresolvable(f"node(s) didn't satisfy plugin(s) [{' '.join(by)}]")
            diagnosis.add(status, rest)
            diagnosis.plugins.update(by)
        cycle.filters = filters
        raise FitError(diagnosis, cycle)

    # Filter

    def _feasible(self, cycle: Cycle, state: ClassState) -> Bools:
        passes = state.passes
        for plugin in self._plugins(cycle).live:
            codes = plugin.filter(cycle, ALL)
            if codes is not None:
                passes = passes & (codes == 0)
        return passes

    def _sample(self, rows: RowArray) -> RowArray:
        """The feasible nodes to be scored: all, or the next so many in turn when a percentage is configured."""
        if not self._percentage or self._percentage >= 100:
            return rows
        wanted = max(MIN_FEASIBLE, self.snapshot.count * self._percentage // 100)
        if len(rows) <= wanted:
            return rows
        at = int(np.searchsorted(rows, self._start))
        taken = np.take(rows, range(at, at + wanted), mode="wrap")
        self._start = (int(taken[-1]) + 1) % self.snapshot.capacity
        return np.sort(taken)

    def _fits_beside_nominated(self, cycle: Cycle, row: int) -> bool:
        """Whether the pod fits on `row` when the pods nominated to it (of at least its priority) are there."""
        snapshot = self.snapshot
        nominated = snapshot.nominated.get(row)
        if not nominated:
            return True
        others = [p for p in nominated.values() if p.uid != cycle.pod.uid and p.priority >= cycle.cls.priority]
        if not others:
            return True
        return bool(self._beside(cycle, row, others)[0, 0] == 0)

    def _beside(self, cycle: Cycle, row: int, others: list[PodInfo]) -> Ints:
        snapshot = self.snapshot
        held = snapshot.nominated.pop(row)  # they are there in earnest now; not to be counted twice
        try:
            with snapshot.trial(add=[(p, row) for p in others]):
                return _first_codes(self.profile.filters, cycle, np.array([row], dtype=np.intp))
        finally:
            snapshot.nominated[row] = held

    def _diagnose(self, cycle: Cycle) -> Diagnosis:
        filters = cycle.filters = self._plugins(cycle).filters
        diagnosis = Diagnosis(self.snapshot.count)
        rows = np.flatnonzero(self.snapshot.valid)
        verdict = _first_codes(filters, cycle, rows)
        for i in np.flatnonzero(verdict[0] == 0):  # pods nominated to this node are in the way
            row = int(rows[i])
            others = [p for p in snapshot_nominated(self.snapshot, row) if p.uid != cycle.pod.uid]
            if others:
                verdict[:, i] = self._beside(cycle, row, others)[:, 0]
        _explain(diagnosis, filters, cycle, rows, verdict)
        return diagnosis

    # Score

    def _best(self, cycle: Cycle, state: ClassState, rows: RowArray) -> int | None:
        if len(rows) == 1:
            row = int(rows[0])
            return row if self._fits_beside_nominated(cycle, row) else None
        scores = state.base[rows]
        for (plugin, weight), raw in zip(state.raw_scores, state.raw, strict=True):
            here = raw[rows]
            if here.any():
                scores = scores + weight * plugin.normalize(cycle, here)
        scores = self._add(cycle, self._plugins(cycle).live_scores, rows, scores)
        while len(rows):
            row = self._pick(rows, scores)
            if not self.snapshot.nominated or self._fits_beside_nominated(cycle, row):
                return row
            keep = rows != row
            rows, scores = rows[keep], scores[keep]
        return None

    def _fresh_scores(self, cycle: Cycle, rows: RowArray) -> Ints:
        return self._add(cycle, self._plugins(cycle).scores, rows, np.zeros(len(rows), dtype=np.int64))

    def _plugins(self, cycle: Cycle) -> Applicable:
        return Applicable.to(self.profile, cycle.cls)

    def _add(self, cycle: Cycle, plugins: list[tuple[Score, int]], rows: RowArray, scores: Ints) -> Ints:
        for plugin, weight in plugins:
            plugin.pre_score(cycle, rows)
            points = plugin.score(cycle, rows)
            if points is not None:
                scores = scores + weight * plugin.normalize(cycle, points)
        return scores

    def _pick(self, rows: RowArray, scores: Ints) -> int:
        top = np.flatnonzero(scores == scores.max())
        return int(rows[top[0] if len(top) == 1 else top[self._rng.randrange(len(top))]])


def snapshot_nominated(snapshot: Snapshot, row: int) -> list[PodInfo]:
    return list(snapshot.nominated.get(row, {}).values())


def _unsatisfied(by: set[str]) -> str:
    if len(by) == 1:
        return f"node(s) didn't satisfy plugin {next(iter(by))}"
    return f"node(s) didn't satisfy plugin(s) [{' '.join(sorted(by))}] simultaneously"


class NoNodes(Exception):
    """There is no node at all."""

    def __init__(self) -> None:
        super().__init__("no nodes available to schedule pods")


def _first_codes(filters: list[Filter], cycle: Cycle, rows: Rows) -> Ints:
    """For each of `rows` (index of the first filter that rejects it + 1, its code), or (0, 0)."""
    n = len(cycle.snapshot.valid[rows])
    found = np.zeros((2, n), dtype=np.int64)
    for i, plugin in enumerate(filters):
        codes = plugin.filter(cycle, rows)
        if codes is not None:
            first = (codes != 0) & (found[0] == 0)
            found[0, first] = i + 1
            found[1, first] = codes[first]
    return found


def _explain(diagnosis: Diagnosis, filters: list[Filter], cycle: Cycle, rows: RowArray, verdict: Ints) -> None:
    for i, plugin in enumerate(filters):
        mine = verdict[0] == i + 1
        if mine.any():
            codes = verdict[1, mine]
            for code in np.unique(codes):
                status = plugin.explain(cycle, int(code)).of(plugin.name)
                diagnosis.add(status, rows[mine][codes == code])
