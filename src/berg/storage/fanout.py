"""One cacher's watchers, and how an event reaches a thousand of them.

Watchers are grouped by scope (everything, a namespace, one key). The events of one commit are one list, made
once per scope; giving it to a watcher is one append. A watcher takes everything that has gathered in one step,
so a slow turn of the loop makes batches larger, not more. One that falls more than its buffer behind is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from berg.storage.cacher import CacheEvent

Scope = tuple[str, str]


class Watcher:
    """An async iterator of batches of events."""

    __slots__ = ("_batches", "_behind", "_buffer", "_closed", "_fanout", "_from", "_scope", "_waiter")

    def __init__(self, fanout: Fanout, scope: Scope, after: int, past: Sequence[CacheEvent], buffer: int) -> None:
        self._fanout = fanout
        self._scope = scope
        self._from = after
        self._batches: list[Sequence[CacheEvent]] = [past] if past else []
        self._behind = 0
        """events gathered since the reader last came; what it asked for of the past does not count"""
        self._buffer = buffer
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> Sequence[CacheEvent]:
        while not self._closed:
            if self._batches:
                return self.take()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        raise StopAsyncIteration

    def take(self) -> Sequence[CacheEvent]:
        """What has gathered, without waiting; nothing when there is nothing."""
        batches = self._batches
        if not batches:
            return ()
        self._batches = []
        self._behind = 0
        return batches[0] if len(batches) == 1 else [e for batch in batches for e in batch]

    @property
    def closed(self) -> bool:
        return self._closed

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._batches.clear()
            self._fanout.remove(self._scope, self)
            self._wake()

    def offer(self, events: Sequence[CacheEvent]) -> None:
        if events[0].revision <= self._from:
            events = [e for e in events if e.revision > self._from]
            if not events:
                return
        self._behind += len(events)
        if self._behind > self._buffer:
            self.close()
            return
        self._batches.append(events)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Fanout:
    __slots__ = ("_scopes",)

    def __init__(self) -> None:
        self._scopes: dict[Scope, dict[Watcher, None]] = {}

    def open(
        self, after: int, past: Sequence[CacheEvent], *, namespace: str | None, key: str | None, buffer: int
    ) -> Watcher:
        scope = ("key", key) if key is not None else ("namespace", namespace) if namespace else ("", "")
        watcher = Watcher(self, scope, after, past, buffer)
        self._scopes.setdefault(scope, {})[watcher] = None
        return watcher

    def remove(self, scope: Scope, watcher: Watcher) -> None:
        watchers = self._scopes.get(scope)
        if watchers is not None:
            watchers.pop(watcher, None)
            if not watchers:
                del self._scopes[scope]

    def publish(self, events: Sequence[CacheEvent]) -> None:
        if not self._scopes:
            return
        for scope, watchers in list(self._scopes.items()):
            what, value = scope
            if what == "namespace":
                theirs: Sequence[CacheEvent] = [e for e in events if e.entry is not None and e.entry.namespace == value]
            elif what == "key":
                theirs = [e for e in events if e.entry is not None and e.entry.key == value]
            else:
                theirs = events
            if theirs:
                for watcher in list(watchers):
                    watcher.offer(theirs)

    def close(self) -> None:
        for watchers in list(self._scopes.values()):
            for watcher in list(watchers):
                watcher.close()
