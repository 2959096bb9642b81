"""Who waits for changes of the v2 tree, and the recent past for those who ask from an index on.

Source: etcd server/etcdserver/api/v2store/watcher_hub.go, event_history.go.
"""

from __future__ import annotations

import asyncio
from collections import deque

from berg.etcd.v2.tree import INDEX_CLEARED, Event, V2Error, hidden

HISTORY = 1000
BEHIND = 100
"""events a streaming watcher may be behind before it is dropped"""


class Watcher:
    def __init__(self, path: str, recursive: bool) -> None:
        self.path = path
        self.recursive = recursive
        self.events: asyncio.Queue[Event | None] = asyncio.Queue(BEHIND)

    def concerns(self, event: Event, gone: list[str]) -> bool:
        """`gone`: everything that disappeared with the event."""
        path = event.path
        if path == self.path:
            return True
        if self.path in gone:
            return True
        inside = path.startswith(self.path.rstrip("/") + "/")
        return self.recursive and inside and not hidden(self.path, path)


class Watchers:
    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._watchers: set[Watcher] = set()
        self.starts = 1
        """the first index the history knows of"""

    def __len__(self) -> int:
        return len(self._watchers)

    def open(self, path: str, *, recursive: bool, since: int, index: int) -> Watcher:
        """`since` 0: from now on. Raises V2Error when that is no longer known."""
        watcher = Watcher(path, recursive)
        if since and since <= index:
            if since < self.starts:
                cause = f"the requested history has been cleared [{self.starts}/{since}]"
                raise V2Error(INDEX_CLEARED, cause, index)
            for event in self._history:
                if event.index >= since and watcher.concerns(event, []):
                    watcher.events.put_nowait(event)
                    break
        self._watchers.add(watcher)
        return watcher

    def close(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def publish(self, event: Event, gone: list[str]) -> None:
        if len(self._history) == HISTORY:
            self.starts = self._history[1].index
        self._history.append(event)
        if event.refresh:
            return
        for watcher in list(self._watchers):
            if watcher.concerns(event, gone):
                try:
                    watcher.events.put_nowait(event)
                except asyncio.QueueFull:
                    self._watchers.discard(watcher)

    def end(self) -> None:
        for watcher in self._watchers:
            if not watcher.events.full():
                watcher.events.put_nowait(None)
        self._watchers.clear()
