"""One cacher's watchers, and how an event reaches a thousand of them.

Watchers are grouped by scope (everything, a namespace, one key, a value in an index), and only the scopes that an
event touches are looked at, so that thousands of watchers of single objects cost nothing when others change. The
events of one commit are one list, made once per scope; giving it to a watcher is one append. A watcher takes
everything that has gathered in one step, so a slow turn of the loop makes batches larger, not more. One that falls
more than its buffer behind is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from berg.storage.cacher import CacheEntry, CacheEvent

Scope = tuple[str, str]
EVERYTHING: Scope = ("", "")
PLAIN = ("", "namespace", "key")

IndexValues = Callable[[str, CacheEntry], Sequence[str]]


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
        if await self.ready():
            return self.take()
        raise StopAsyncIteration

    async def ready(self) -> bool:
        """Waits until there is something to take. False: it has ended."""
        while not self._closed:
            if self._batches:
                return True
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return False

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
    __slots__ = ("_indexed", "_scopes")

    def __init__(self) -> None:
        self._scopes: dict[Scope, dict[Watcher, None]] = {}
        self._indexed: dict[str, int] = {}
        """how many scopes there are by the name of their index"""

    def open(self, scope: Scope, after: int, past: Sequence[CacheEvent], buffer: int) -> Watcher:
        """`scope`: EVERYTHING, ("namespace", …), ("key", …), or (index, value)."""
        watcher = Watcher(self, scope, after, past, buffer)
        if scope not in self._scopes:
            self._scopes[scope] = {}
            if scope[0] not in PLAIN:
                self._indexed[scope[0]] = self._indexed.get(scope[0], 0) + 1
        self._scopes[scope][watcher] = None
        return watcher

    def remove(self, scope: Scope, watcher: Watcher) -> None:
        watchers = self._scopes.get(scope)
        if watchers is None:
            return
        watchers.pop(watcher, None)
        if not watchers:
            del self._scopes[scope]
            if scope[0] not in PLAIN:
                self._indexed[scope[0]] -= 1
                if not self._indexed[scope[0]]:
                    del self._indexed[scope[0]]

    def interested(self, namespace: str, key: str) -> int:
        """How many watch an object, indexes aside."""
        scopes: tuple[Scope, ...] = (EVERYTHING, ("namespace", namespace), ("key", key))
        return sum(len(self._scopes[scope]) for scope in scopes if scope in self._scopes)

    def publish(self, events: Sequence[CacheEvent], values: IndexValues) -> None:
        """`values(index, entry)`: the entry's values in an index."""
        scopes = self._scopes
        if not scopes:
            return
        everyone = scopes.get(EVERYTHING)
        if everyone is not None:
            _offer(everyone, events)
            if len(scopes) == 1:
                return
        groups: dict[Scope, list[CacheEvent]] = {}
        for event in events:
            for scope in self._touched(event, values):
                if scope in scopes:
                    groups.setdefault(scope, []).append(event)
        for scope, theirs in groups.items():
            watchers = scopes.get(scope)
            if watchers is not None:
                _offer(watchers, theirs)

    def _touched(self, event: CacheEvent, values: IndexValues) -> Iterable[Scope]:
        entry = event.entry
        if entry is None:
            return ()
        touched = {("namespace", entry.namespace), ("key", entry.key)}
        for name in self._indexed:  # where it was, too: leaving is news
            touched.update((name, value) for value in values(name, entry))
            if event.previous is not None:
                touched.update((name, value) for value in values(name, event.previous))
        return touched

    def close(self) -> None:
        for watchers in list(self._scopes.values()):
            for watcher in list(watchers):
                watcher.close()


def _offer(watchers: dict[Watcher, None], events: Sequence[CacheEvent]) -> None:
    for watcher in list(watchers):
        watcher.offer(events)
