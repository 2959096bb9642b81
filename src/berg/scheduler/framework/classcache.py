"""What pods of one template share: which nodes pass, and how they score, kept up to date row by row.

For pod classes alike in what is weighed against a node there is a `ClassState` with the answers of every plugin whose
scope is NODE or PODS. When the next such pod comes, only the rows that changed since (usually the one that the last
pod went to) are asked again. Plugins of scope CLUSTER are asked anew every time, by the algorithm.

Invariant after `bring_up_to_date`: `codes[i]` is what the i-th cacheable filter answers for each row now, `passes` is
where all answer 0 and a node exists, `base` the weighted sum of the scores that need no normalisation.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from berg.scheduler.framework.interface import Cycle, Filter, Scope
from berg.scheduler.framework.profile import Profile
from berg.scheduler.state.arrays import ALL, Bools, Ints
from berg.scheduler.state.podinfo import PodClass
from berg.scheduler.state.snapshot import Snapshot


class Applicable:
    """The plugins that have something to say about a pod class."""

    def __init__(self, profile: Profile, cls: PodClass) -> None:
        self.filters: list[Filter] = [f for f in profile.filters if f.applies(cls)]
        self.live = [f for f in self.filters if f.scope == Scope.CLUSTER]
        self.scores = [(s, w) for s, w in profile.scores if s.scores_for(cls)]
        self.live_scores = [(s, w) for s, w in self.scores if s.score_scope == Scope.CLUSTER]

    @classmethod
    def to(cls, profile: Profile, pods: PodClass) -> Applicable:
        found: Applicable | None = pods.memo.get(f"plugins/{profile.name}")
        if found is None:
            found = pods.memo[f"plugins/{profile.name}"] = cls(profile, pods)
        return found


class ClassState:
    def __init__(self, profile: Profile, cls: PodClass) -> None:
        self.place = -1
        """in the snapshot's change log"""
        plugins = Applicable.to(profile, cls)
        self.cached: list[Filter] = [f for f in plugins.filters if f.scope != Scope.CLUSTER]
        scoring = [(s, w) for s, w in plugins.scores if s.score_scope != Scope.CLUSTER]
        self.base_scores = [(s, w) for s, w in scoring if not s.normalizes]
        self.raw_scores = [(s, w) for s, w in scoring if s.normalizes]
        self.codes: list[Ints] = []
        self.passes: Bools = np.zeros(0, dtype=np.bool_)
        self.terms: list[Ints] = []
        """weighted scores of `base_scores`, one by one"""
        self.base: Ints = np.zeros(0, dtype=np.int64)
        self.raw: list[Ints] = []
        self._node_changes = -1

    def bring_up_to_date(self, cycle: Cycle) -> None:
        snapshot = cycle.snapshot
        end = snapshot.log.end
        if self.place == end:
            return
        entries = snapshot.log.since(self.place) if self.place >= 0 else None
        if entries is None or len(entries) > snapshot.capacity // 2 or len(self.passes) != snapshot.capacity:
            self._compute_all(cycle)
        else:
            rows = {e >> 1 for e in entries}
            if snapshot.node_changes != self._node_changes:
                # an image's score depends on how many nodes have it
                self._compute_all(cycle) if any(
                    s.score_scope == Scope.NODE for s, _ in self.base_scores
                ) else self._update(cycle, rows, node=True)
            else:
                self._update(cycle, rows, node=False)
        self._node_changes = snapshot.node_changes
        self.place = end

    def _compute_all(self, cycle: Cycle) -> None:
        n = cycle.snapshot.capacity
        self.codes = [_or_zeros(f.filter(cycle, ALL), n) for f in self.cached]
        self.passes = cycle.snapshot.valid.copy()
        for codes in self.codes:
            self.passes &= codes == 0
        self.terms = [_or_zeros(s.score(cycle, ALL), n) * w for s, w in self.base_scores]
        self.base = np.zeros(n, dtype=np.int64)
        for term in self.terms:
            self.base += term
        self.raw = [_or_zeros(s.score(cycle, ALL), n) for s, _ in self.raw_scores]

    def _update(self, cycle: Cycle, changed: set[int], *, node: bool) -> None:
        rows = np.fromiter(changed, dtype=np.intp, count=len(changed))
        n = len(rows)
        passes = cycle.snapshot.valid[rows]
        for f, codes in zip(self.cached, self.codes, strict=True):
            if node or f.scope == Scope.PODS:
                codes[rows] = _or_zeros(f.filter(cycle, rows), n)
            passes &= codes[rows] == 0
        self.passes[rows] = passes
        for i, (s, w) in enumerate(self.base_scores):
            if node or s.score_scope == Scope.PODS:
                new = _or_zeros(s.score(cycle, rows), n) * w
                self.base[rows] += new - self.terms[i][rows]
                self.terms[i][rows] = new
        for (s, _), raw in zip(self.raw_scores, self.raw, strict=True):
            if node or s.score_scope == Scope.PODS:
                raw[rows] = _or_zeros(s.score(cycle, rows), n)


def _or_zeros(answer: Ints | None, n: int) -> Ints:
    return np.zeros(n, dtype=np.int64) if answer is None else answer


class ClassCache:
    """The states of the classes seen last."""

    KEEP = 48

    def __init__(self, profile: Profile, snapshot: Snapshot) -> None:
        self._profile = profile
        self._snapshot = snapshot
        self._states: OrderedDict[bytes, ClassState] = OrderedDict()

    def state(self, cycle: Cycle) -> ClassState:
        key = cycle.cls.row_signature
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = ClassState(self._profile, cycle.cls)
            if len(self._states) > self.KEEP:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(key)
        state.bring_up_to_date(cycle)
        self._snapshot.log.trim(self._snapshot.capacity)
        return state
