"""How many pods match, by node and by topology domain: kept, not counted anew for every pod to place.

Two questions are asked by inter-pod affinity and topology spreading:

- How many existing pods match *this selector* on each node? A `PodCounter`, one for every selector in use.
- On which nodes are pods that carry *this term*, which the new pod matches? A `Carrier`, one for every distinct
  term that existing pods have.

Existing pods are grouped in `LabelClass`es (same namespace and labels), so a selector is tried once per class, not
once per pod. Adding or removing a pod touches one entry in each counter that matches its class.

Domains: `by_domain(column)` sums the rows by the value of a node label and is then kept in step with each pod; it is
summed anew only when the label column itself changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import numpy as np

from berg.scheduler.state.arrays import Ints, grown
from berg.scheduler.state.columns import LabelColumn
from berg.scheduler.state.podinfo import PodClass, PodInfo, Term

Matcher = Callable[["LabelClass"], bool]
Label = tuple[str, str]
T = TypeVar("T")


class ByLabel(Generic[T]):
    """Things that ask for a label, found by a pod's labels; those that name none are always candidates."""

    def __init__(self) -> None:
        self._by: dict[Label | None, list[T]] = {}

    def add(self, label: Label | None, thing: T) -> None:
        self._by.setdefault(label, []).append(thing)

    def candidates(self, labels: dict[str, str]) -> Iterable[T]:
        yield from self._by.get(None, ())
        for label in labels.items():
            yield from self._by.get(label, ())


class DomainCount:
    """Integers by row, and the same summed by topology domain."""

    def __init__(self, capacity: int) -> None:
        self.by_row: Ints = np.zeros(capacity, dtype=np.int64)
        self.total = 0
        self._domains: dict[str, tuple[LabelColumn, int, Ints]] = {}

    def add(self, row: int, n: int) -> None:
        self.by_row[row] += n
        self.total += n
        for key, (column, version, sums) in self._domains.items():
            if version == column.version:
                sums[column.ids[row]] += n
            else:
                del self._domains[key]
                return self._drop_stale()
        return None

    def _drop_stale(self) -> None:
        self._domains.clear()

    def by_domain(self, column: LabelColumn) -> Ints:
        """By id of the label's value; index it with `column.ids`. The last slot (id -1) counts nothing useful."""
        kept = self._domains.get(column.key)
        if kept is not None and kept[0] is column and kept[1] == column.version:
            return kept[2]
        sums = np.zeros(column.domains + 1, dtype=np.int64)
        np.add.at(sums, column.ids, self.by_row)
        self._domains[column.key] = (column, column.version, sums)
        return sums

    def grow(self, capacity: int) -> None:
        self.by_row = grown(self.by_row, capacity)
        self._domains.clear()


class PodCounter(DomainCount):
    """Pods that match; `terminating` says whether those being deleted count. `exact` is a label that all have."""

    def __init__(self, capacity: int, matches: Matcher, exact: Label | None, terminating: bool) -> None:
        super().__init__(capacity)
        self.matches = matches
        self.exact = exact
        self.terminating = terminating
        self.used = 0


class Carrier(DomainCount):
    """Pods that carry `term` as one of `kind`: required, required-anti, preferred, preferred-anti."""

    def __init__(self, capacity: int, kind: str, term: Term, weight: int) -> None:
        super().__init__(capacity)
        self.kind = kind
        self.term = term
        self.weight = weight


class LabelClass:
    """Pods with the same namespace and labels. `rows` counts all of them by row, `leaving` those being deleted."""

    __slots__ = ("carriers", "carriers_version", "counters", "labels", "leaving", "namespace", "rows")

    def __init__(self, namespace: str, labels: dict[str, str]) -> None:
        self.namespace = namespace
        self.labels = labels
        self.rows: dict[int, int] = {}
        self.leaving: dict[int, int] = {}
        self.counters: list[PodCounter] = []
        self.carriers: list[Carrier] = []
        self.carriers_version = -1


class Counters:
    """All counters and carriers of a snapshot, and the label classes that feed them."""

    KEEP = 512
    """selectors whose counts are kept; the ones longest unused are dropped beyond"""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._classes: dict[tuple[str, tuple[Label, ...]], LabelClass] = {}
        self._classes_by: dict[Label, list[LabelClass]] = {}
        self._counters: dict[tuple[bytes, bool], PodCounter] = {}
        self._counters_by: ByLabel[PodCounter] = ByLabel()
        self._carriers: dict[tuple[str, bytes, int], Carrier] = {}
        self._carriers_by: ByLabel[Carrier] = ByLabel()
        self._carriers_version = 0
        self._clock = 0
        self.namespaces: dict[str, dict[str, str]] = {}
        """labels of namespaces, for namespaceSelectors"""

    def grow(self, capacity: int) -> None:
        self._capacity = capacity
        for count in (*self._counters.values(), *self._carriers.values()):
            count.grow(capacity)

    def label_class(self, cls: PodClass) -> LabelClass:
        found = cls.label_class
        if isinstance(found, LabelClass):
            return found
        key = (cls.namespace, tuple(sorted(cls.labels.items())))
        one = self._classes.get(key)
        if one is None:
            one = self._classes[key] = LabelClass(cls.namespace, cls.labels)
            one.counters = [c for c in self._counters_by.candidates(one.labels) if c.matches(one)]
            for label in one.labels.items():
                self._classes_by.setdefault(label, []).append(one)
        cls.label_class = one
        return one

    def add(self, pod: PodInfo, row: int, n: int = 1) -> None:
        """`n` is 1 for a pod that came to `row`, -1 for one that went."""
        group = self.label_class(pod.cls)
        _tally(group.rows, row, n)
        if pod.terminating:
            _tally(group.leaving, row, n)
        for counter in group.counters:
            if counter.terminating or not pod.terminating:
                counter.add(row, n)
        for carrier in self._carried(pod.cls):
            carrier.add(row, n)

    def _carried(self, cls: PodClass) -> list[Carrier]:
        found: list[Carrier] | None = cls.memo.get("carriers")
        if found is None:
            found = cls.memo["carriers"] = [self._carrier(*k) for k in _terms(cls)]
        return found

    def _carrier(self, kind: str, term: Term, weight: int) -> Carrier:
        key = (kind, term.id, weight)
        found = self._carriers.get(key)
        if found is None:
            found = self._carriers[key] = Carrier(self._capacity, kind, term, weight)
            self._carriers_by.add(term.selector.exact(), found)
            self._carriers_version += 1
        return found

    def carriers(self, cls: PodClass) -> list[Carrier]:
        """Terms of existing pods that a pod of `cls` matches. Some may have a total of 0."""
        if not self._carriers:
            return []
        group = self.label_class(cls)
        if group.carriers_version != self._carriers_version:
            labels = self.namespaces.get(group.namespace, {})
            group.carriers = [
                c
                for c in self._carriers_by.candidates(group.labels)
                if c.term.matches(group.namespace, group.labels, labels)
            ]
            group.carriers_version = self._carriers_version
        return group.carriers

    def counter(self, id: bytes, matches: Matcher, *, exact: Label | None, terminating: bool) -> PodCounter:
        """The counter of that id; when it is new, `matches` is tried on every label class (with the label `exact`)."""
        self._clock += 1
        key = (id, terminating)
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = PodCounter(self._capacity, matches, exact, terminating)
            self._counters_by.add(exact, found)
            for group in self._classes.values() if exact is None else self._classes_by.get(exact, ()):
                if matches(group):
                    group.counters.append(found)
                    _pour(found, group.rows, 1)
                    if not terminating:
                        _pour(found, group.leaving, -1)
            self._forget_unused()
        found.used = self._clock
        return found

    def of_terms(self, terms: tuple[Term, ...], prefix: bytes = b"term:") -> PodCounter:
        """Pods that match every one of `terms`, deleted or not."""

        def matches(group: LabelClass) -> bool:
            labels = self.namespaces.get(group.namespace, {})
            return all(t.matches(group.namespace, group.labels, labels) for t in terms)

        id = prefix + b"\0".join(t.id for t in terms)
        return self.counter(id, matches, exact=terms[0].selector.exact(), terminating=True)

    def set_namespace(self, name: str, labels: dict[str, str] | None) -> None:
        """A namespace's labels changed: whatever selects namespaces is counted anew when next asked for."""
        old = self.namespaces.get(name)
        if old == labels:
            return
        if labels is None:
            self.namespaces.pop(name, None)
        else:
            self.namespaces[name] = labels
        if old or labels:
            self._drop({key for key in self._counters if key[0].startswith(b"term:")})
            self._carriers_version += 1

    def sweep(self, used: Iterable[PodClass]) -> None:
        """Forgets what no pod class of `used` belongs to or carries; the others are forgotten for good by the caller,
        since they remember label classes and carriers that are not kept in step any more."""
        groups = {id(c.label_class) for c in used}
        carried = {id(carrier) for c in used for carrier in c.memo.get("carriers", ())}
        self._classes = {k: g for k, g in self._classes.items() if id(g) in groups or g.rows}
        self._classes_by.clear()
        for group in self._classes.values():
            for label in group.labels.items():
                self._classes_by.setdefault(label, []).append(group)
        self._carriers = {k: c for k, c in self._carriers.items() if id(c) in carried or c.total}
        self._carriers_by = ByLabel()
        for carrier in self._carriers.values():
            self._carriers_by.add(carrier.term.selector.exact(), carrier)
        self._carriers_version += 1

    def _forget_unused(self) -> None:
        if len(self._counters) > self.KEEP:
            by_age = sorted(self._counters, key=lambda k: self._counters[k].used)
            self._drop(set(by_age[: self.KEEP // 4]))

    def _drop(self, keys: set[tuple[bytes, bool]]) -> None:
        gone = {id(self._counters.pop(k)) for k in keys}
        if gone:
            self._counters_by = ByLabel()
            for counter in self._counters.values():
                self._counters_by.add(counter.exact, counter)
            for group in self._classes.values():
                group.counters = [c for c in group.counters if id(c) not in gone]


def _terms(cls: PodClass) -> Iterable[tuple[str, Term, int]]:
    for term in cls.affinity:
        yield "required", term, 1
    for term in cls.anti_affinity:
        yield "required-anti", term, 1
    for weight, term in cls.preferred_affinity:
        yield "preferred", term, weight
    for weight, term in cls.preferred_anti_affinity:
        yield "preferred-anti", term, weight


def _tally(rows: dict[int, int], row: int, n: int) -> None:
    now = rows.get(row, 0) + n
    if now:
        rows[row] = now
    else:
        rows.pop(row, None)


def _pour(counter: PodCounter, rows: dict[int, int], sign: int) -> None:
    for row, n in rows.items():
        counter.add(row, sign * n)
