"""What readers see: every live key in order, and the history since the last compaction.

Only acknowledged changes get in, through `apply`, one commit at a time and in order; nothing here waits or does
I/O. A key's older versions (and its tombstone, a KeyValue of version 0) are kept until `trim` drops what the
compaction revision made unreachable, and so is every event, so that a watch can start in the past.

Invariants: `keys` holds exactly the keys of `current`; `dead` exactly the keys that have history but are not
live; `events` are in order of revision and start behind `compact_revision` or at it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from operator import attrgetter
from typing import Any

from sortedcontainers import SortedList

from berg.storage.interface import (
    Event,
    EventType,
    KeyValue,
    RangeRequest,
    RangeResponse,
    RevisionCompacted,
    RevisionFuture,
    SortOrder,
    SortTarget,
)

_mod = attrgetter("mod_revision")


def _event_revision(event: Event) -> int:
    return event.kv.mod_revision


_SORT_KEY: dict[SortTarget, Callable[[KeyValue], Any]] = {
    SortTarget.KEY: attrgetter("key"),
    SortTarget.VERSION: attrgetter("version"),
    SortTarget.CREATE: attrgetter("create_revision"),
    SortTarget.MOD: _mod,
    SortTarget.VALUE: attrgetter("value"),
}


class Index:
    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = 0
        self.current: dict[bytes, KeyValue] = {}
        self.keys: SortedList = SortedList()
        self.history: dict[bytes, list[KeyValue]] = {}
        """older versions of a key, oldest first; a dead key's last one is its tombstone"""
        self.dead: SortedList = SortedList()
        self.events: list[Event] = []
        self.event_bytes = 0
        """of keys and values in `events`: what history costs in memory"""

    def load(self, kvs: dict[bytes, KeyValue]) -> None:
        """Replaces the live keys by `kvs`, without events: the state at the last compaction."""
        self.current = kvs
        self.keys = SortedList(kvs)

    # -- writing

    def apply(self, kv: KeyValue) -> Event:
        """One change, newer than everything here or of the same revision as the newest."""
        key = kv.key
        old = self.current.get(key)
        if kv.version:
            if old is not None:
                self._remember(key, old)
            else:
                self.keys.add(key)
                if key in self.history:
                    self.dead.remove(key)
            self.current[key] = kv
            event = Event(EventType.PUT, kv, old)
        else:
            if old is not None:
                del self.current[key]
                self.keys.remove(key)
                self._remember(key, old)
                self._remember(key, kv)
                self.dead.add(key)
            event = Event(EventType.DELETE, kv, old)
        self.events.append(event)
        self.event_bytes += len(key) + len(kv.value)
        return event

    def _remember(self, key: bytes, kv: KeyValue) -> None:
        kept = self.history.get(key)
        if kept is None:
            self.history[key] = [kv]
        else:
            kept.append(kv)

    def trim(self, limit: int) -> set[bytes]:
        """Forgets up to `limit` events older than the compaction revision, with the versions that only they
        needed; returns the keys they were about (none: all is trimmed)."""
        end = bisect_left(self.events, self.compact_revision, key=_event_revision)
        end = min(end, limit)
        touched: set[bytes] = set()
        for event in self.events[:end]:
            touched.add(event.kv.key)
            self.event_bytes -= len(event.kv.key) + len(event.kv.value)
        del self.events[:end]
        for key in touched:
            self._forget(key)
        return touched

    def _forget(self, key: bytes) -> None:
        kept = self.history.get(key)
        if kept is None:
            return
        live = self.current.get(key)
        # the newest version at the compaction revision is still readable there; what is before it is not
        first = bisect_right(kept, self.compact_revision, key=_mod) - 1
        if live is not None and live.mod_revision <= self.compact_revision:
            first = len(kept)
        elif first >= 0 and not kept[first].version:
            first += 1  # a tombstone says nothing that its absence does not
        if first > 0:
            del kept[:first]
        if not kept:
            del self.history[key]
            if live is None:
                self.dead.remove(key)

    # -- reading

    def get(self, key: bytes) -> KeyValue | None:
        return self.current.get(key)

    def get_at(self, key: bytes, revision: int) -> KeyValue | None:
        kv = self.current.get(key)
        if kv is not None and kv.mod_revision <= revision:
            return kv
        kept = self.history.get(key)
        if kept is None:
            return None
        i = bisect_right(kept, revision, key=_mod) - 1
        if i < 0 or not kept[i].version:
            return None
        return kept[i]

    def check_revision(self, revision: int, newest: int | None = None) -> None:
        """Raises what a read at `revision` must raise."""
        if revision > (self.revision if newest is None else newest):
            raise RevisionFuture("mvcc: required revision is a future revision")
        if 0 < revision < self.compact_revision:
            raise RevisionCompacted(self.compact_revision)

    def range(self, request: RangeRequest) -> RangeResponse:
        revision = request.revision
        self.check_revision(revision)
        if request.range_end is None:
            kv = self.get_at(request.key, revision) if revision > 0 else self.current.get(request.key)
            found: list[KeyValue] = [] if kv is None else [kv]
            return select(request, found, len(found), self.revision)
        if 0 < revision < self.revision:
            kvs = list(self.iter_at(request.key, request.range_end, revision))
            return select(request, kvs, len(kvs), self.revision)
        first, last = self.bounds(request.key, request.range_end)
        count = max(0, last - first)
        if request.count_only:
            return RangeResponse(self.revision, (), count)
        if request.limit and not _reorders(request):
            last = min(last, first + request.limit + 1)
        current = self.current
        return select(request, [current[k] for k in self.keys.islice(first, last)], count, self.revision)

    def bounds(self, key: bytes, range_end: bytes) -> tuple[int, int]:
        """Positions in `keys` of the range."""
        first = self.keys.bisect_left(key)
        last = len(self.keys) if range_end == b"\0" else self.keys.bisect_left(range_end)
        return first, last

    def iter_current(self, key: bytes, range_end: bytes) -> Iterator[KeyValue]:
        first, last = self.bounds(key, range_end)
        return (self.current[k] for k in self.keys.islice(first, last))

    def iter_at(self, key: bytes, range_end: bytes, revision: int) -> Iterator[KeyValue]:
        end = None if range_end == b"\0" else range_end
        inclusive = (True, False)
        live = self.keys.irange(key, end, inclusive)
        dead = self.dead.irange(key, end, inclusive)
        for k in merge(live, dead):
            kv = self.get_at(k, revision)
            if kv is not None:
                yield kv

    def events_from(self, revision: int) -> Sequence[Event]:
        """Every event at or after `revision`, which has not been compacted."""
        if not self.events or self.events[-1].kv.mod_revision < revision:
            return ()
        return self.events[bisect_left(self.events, revision, key=_event_revision) :]


def _reorders(request: RangeRequest) -> bool:
    return bool(
        (request.sort_order is not SortOrder.NONE or request.sort_target is not SortTarget.KEY)
        or request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def select(request: RangeRequest, kvs: Iterable[KeyValue], count: int, revision: int) -> RangeResponse:
    """Filter, order, cut: what a range answers out of the keys that are there."""
    if request.count_only:
        return RangeResponse(revision, (), count)
    out = list(kvs)
    if _reorders(request):
        out = [
            kv
            for kv in out
            if kv.mod_revision >= request.min_mod_revision
            and (not request.max_mod_revision or kv.mod_revision <= request.max_mod_revision)
            and kv.create_revision >= request.min_create_revision
            and (not request.max_create_revision or kv.create_revision <= request.max_create_revision)
        ]
        # a target without an order means ascending, except for keys, which are in order already
        out.sort(key=_SORT_KEY[request.sort_target], reverse=request.sort_order is SortOrder.DESCEND)
    more = bool(request.limit) and len(out) > request.limit
    if more:
        del out[request.limit :]
    if request.keys_only:
        out = [KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.version, kv.lease) for kv in out]
    return RangeResponse(revision, out, count, more)


def matcher(key: bytes, range_end: bytes | None) -> Callable[[bytes], bool]:
    """Whether a key is in the range that (key, range_end) names."""
    if range_end is None:
        return key.__eq__
    if range_end == b"\0":
        return lambda k: k >= key
    return lambda k: key <= k < range_end
