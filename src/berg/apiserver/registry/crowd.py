"""When many watch one kind: who is written to when.

A change concerns all of them at once, and writing to a thousand connections takes the loop a good part of a tenth of
a second, in which nobody else would be answered. So they take turns, in rounds: some in each turn of the loop, and
requests in between. Whatever comes up to a watcher's turn goes in one write, and a round does not begin right after
the last one, so that more comes together.

Invariant: a watcher that waits for its turn gets it within two rounds.
"""

from __future__ import annotations

import asyncio
from collections import deque

LARGE = 100
AT_ONCE = 32
PAUSE_PER_WATCHER_S, LONGEST_PAUSE_S = 0.00005, 0.05


class Crowd:
    def __init__(self) -> None:
        self.size = 0
        """how many watch"""
        self._round: deque[asyncio.Future[None]] = deque()
        self._next: deque[asyncio.Future[None]] = deque()
        self._began = 0.0
        self._running = False

    @property
    def large(self) -> bool:
        return self.size > LARGE

    async def turn(self) -> None:
        """Returns when it is this watcher's turn."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._next.append(future)
        if not self._running:
            self._running = True
            self._begin(loop)
        await future

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        pause_s = min(self.size * PAUSE_PER_WATCHER_S, LONGEST_PAUSE_S)
        loop.call_at(max(self._began + pause_s, loop.time()), self._let_go, loop)

    def _let_go(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._round:
            self._round, self._next = self._next, self._round
            self._began = loop.time()
        for _ in range(min(AT_ONCE, len(self._round))):
            future = self._round.popleft()
            if not future.done():
                future.set_result(None)
        if self._round:
            loop.call_soon(self._let_go, loop)
        elif self._next:
            self._begin(loop)
        else:
            self._running = False
