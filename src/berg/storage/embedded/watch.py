"""Watches on the embedded engine.

Each watch has a small buffer of the events that concern it. One whose reader does not keep up is not cut off
and does not grow: it forgets its buffer, remembers where it stopped, and reads the rest from the index's history
when the reader comes back (or learns that it has been compacted).

Watches of one key are found by the key; only watches of ranges are asked about every event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from berg.storage.embedded.index import Index, matcher
from berg.storage.interface import Event, EventType, RevisionCompacted, Unavailable, WatchBatch, WatchRequest

BUFFER = 4096


class Watch:
    """An async iterator of batches; made by `Watches.open`."""

    def __init__(self, watches: Watches, request: WatchRequest) -> None:
        self._watches = watches
        self.request = request
        self._matches = matcher(request.key, request.range_end)
        self._plain = request.prev_kv and not request.no_put and not request.no_delete
        self._buffer: list[Event] = []
        self._progress = 0
        self._behind = request.start_revision
        """the revision to read history from before the buffer is of use; 0: none"""
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._lost = False

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> WatchBatch:
        index = self._watches.index
        while True:
            if self._closed:
                raise StopAsyncIteration
            if self._behind:
                start, self._behind = self._behind, 0
                if start < index.compact_revision:
                    self.close()
                    raise RevisionCompacted(index.compact_revision)
                events = self._select(index.events_from(start))
                if events:
                    return WatchBatch(index.revision, events)
            if self._buffer:
                batch, self._buffer = self._buffer, []
                self._progress = 0
                return WatchBatch(batch[-1].kv.mod_revision, batch)
            if self._lost:
                self.close()
                raise Unavailable("store: closed")
            if self._progress:
                revision, self._progress = self._progress, 0
                return WatchBatch(revision)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._watches.remove(self)
            self._wake()

    @property
    def idle(self) -> bool:
        """Nothing is waiting to be read: the reader has seen everything up to the store's revision."""
        return not self._buffer and not self._behind

    def offer(self, event: Event) -> None:
        if self._behind:
            return
        request = self.request
        if not self._plain:
            if request.no_put if event.type is EventType.PUT else request.no_delete:
                return
            if not request.prev_kv:
                event = Event(event.type, event.kv)
        if len(self._buffer) >= BUFFER:
            self._behind = self._buffer[0].kv.mod_revision
            self._buffer.clear()
        else:
            self._buffer.append(event)
        self._wake()

    async def request_progress(self) -> None:
        self.progress(self._watches.index.revision)

    def progress(self, revision: int) -> None:
        if self.idle:
            self._progress = revision
            self._wake()

    def lose(self) -> None:
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _select(self, events: Sequence[Event]) -> list[Event]:
        request = self.request
        matches = self._matches
        found = [
            e
            for e in events
            if matches(e.kv.key) and not (request.no_put if e.type is EventType.PUT else request.no_delete)
        ]
        return found if request.prev_kv else [Event(e.type, e.kv) for e in found]


class Watches:
    def __init__(self, index: Index) -> None:
        self.index = index
        self._by_key: dict[bytes, set[Watch]] = {}
        self._ranges: set[Watch] = set()

    def open(self, request: WatchRequest) -> Watch:
        """From now on, or from `start_revision`; one that is not reached yet is waited for."""
        later = request.start_revision > self.index.revision
        watch = _Later(self, request) if later else Watch(self, request)
        if request.range_end is None:
            self._by_key.setdefault(request.key, set()).add(watch)
        else:
            self._ranges.add(watch)
        return watch

    def remove(self, watch: Watch) -> None:
        self._ranges.discard(watch)
        same = self._by_key.get(watch.request.key)
        if same is not None:
            same.discard(watch)
            if not same:
                del self._by_key[watch.request.key]

    def publish(self, events: Sequence[Event]) -> None:
        if self._by_key:
            for event in events:
                for watch in self._by_key.get(event.kv.key, ()):
                    watch.offer(event)
        for watch in self._ranges:
            matches = watch._matches
            for event in events:
                if matches(event.kv.key):
                    watch.offer(event)

    def all(self) -> list[Watch]:
        return [*self._ranges, *(w for same in self._by_key.values() for w in same)]


class _Later(Watch):
    """A watch that starts in the future: events before its start are none of its business."""

    def __init__(self, watches: Watches, request: WatchRequest) -> None:
        super().__init__(watches, request)
        self._behind = 0

    def offer(self, event: Event) -> None:
        if event.kv.mod_revision >= self.request.start_revision:
            super().offer(event)
