"""One wide request begins in each turn of the event loop.

A list of many objects is work for the processor, without a pause from its beginning to its last byte. However many
seats there are, two of them at once are not done any sooner; but where they begin one by one, everything small that
has come in meanwhile is answered in between.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    __slots__ = ("_open", "_waiting")

    def __init__(self) -> None:
        self._open = True
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        loop = asyncio.get_running_loop()
        if self._open:
            self._open = False
            loop.call_soon(self._next, loop)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                loop.call_soon(self._next, loop)
                return
        self._open = True
