"""One request's way back: headers and data, as fast as the peer's windows and the network take them.

What may not go yet waits here, in order, without being copied. Whoever produces a lot awaits `drained`; a response
that is one block of bytes just waits as that block. A stream that waits for its own window is woken by the peer;
one that waits for the network stands in `connection.ready`, where each gets its turn, and one that waits for the
connection's window in `connection.starved`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from berg.machinery.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    NO_ERROR,
    NUMBER,
    RST,
    SMALLEST_MAX_FRAME,
)

if TYPE_CHECKING:
    from berg.machinery.http2.connection import Connection

TURN_BYTES = 64 << 10
"""what one stream may write before it is another's turn"""


class Stream:
    """`state` belongs to the handler."""

    __slots__ = (
        "_pending",
        "_waiter",
        "answered",
        "connection",
        "ended",
        "id",
        "open",
        "received",
        "sent",
        "state",
        "window",
    )

    def __init__(self, connection: Connection, number: int, window: int) -> None:
        self.connection = connection
        self.id = number
        self.window = window
        self.received = 0
        """bytes since the peer's window was last opened"""
        self.sent = 0
        """bytes of data"""
        self.answered = False
        self.open = True
        self.ended = False
        """the client has said everything"""
        self.state: object = None
        self._pending: deque[tuple[bool, bytes | memoryview, bool]] = deque()
        """what waits: (whether data, bytes, whether the last), in order"""
        self._waiter: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether something that was sent has not left yet."""
        return bool(self._pending)

    def answer(self, block: bytes, data: bytes) -> None:
        """All there is to say, in one: headers, and data that is not empty."""
        connection = self.connection
        size = len(data)
        if (
            self._pending
            or connection.full
            or not self.open
            or not self.ended
            or size > min(connection.peer_frame, self.window, connection.window)
            or len(block) > SMALLEST_MAX_FRAME
        ):
            self.send_headers(block)
            self.send_data(data, end=True)
            return
        connection.window -= size
        head = HEAD.pack(size << 8 | DATA, END_STREAM, self.id)
        connection.put(HEADERS, END_HEADERS, self.id, block, head + data)
        connection.finish(self)

    def send_headers(self, block: bytes, *, end: bool = False) -> None:
        if not self.open:
            return
        self.answered = True
        if self._pending or self.connection.full:
            self._wait(False, block, end)
        else:
            self._headers(block, end)

    def send_data(self, data: bytes, *, end: bool = False) -> None:
        if not self.open or not (data or end):
            return
        if self._pending:
            self._wait(True, data, end)
            return
        rest = self._data(data, end)
        if rest is not None:
            self._wait(True, rest, end)

    def _wait(self, is_data: bool, data: bytes | memoryview, end: bool) -> None:
        self._pending.append((is_data, data, end))
        self.line_up()

    def line_up(self) -> None:
        """For a turn, unless only the peer can let this stream go on."""
        if not self._pending:
            return
        if not self._pending[0][0]:
            self.connection.ready.setdefault(self.id, self)
        elif self.window > 0:
            waiting = self.connection.ready if self.connection.window > 0 else self.connection.starved
            waiting.setdefault(self.id, self)

    def _headers(self, block: bytes, end: bool) -> None:
        connection = self.connection
        flags = END_STREAM if end else 0
        if len(block) <= SMALLEST_MAX_FRAME:
            connection.put(HEADERS, flags | END_HEADERS, self.id, block)
        else:
            kind = HEADERS
            for at in range(0, len(block), SMALLEST_MAX_FRAME):
                last = at + SMALLEST_MAX_FRAME >= len(block)
                piece = block[at : at + SMALLEST_MAX_FRAME]
                connection.put(kind, flags | (END_HEADERS if last else 0), self.id, piece)
                kind, flags = CONTINUATION, 0
        if end:
            self._end()

    def _data(self, data: bytes | memoryview, end: bool) -> memoryview | None:
        """Writes one turn's worth; what did not fit."""
        connection = self.connection
        size = len(data)
        frame = connection.peer_frame
        if not size or (size <= frame and size <= self.window and size <= connection.window and not connection.full):
            connection.put(DATA, END_STREAM if end else 0, self.id, data)
            at = size
        else:
            view = memoryview(data)
            room = 0 if connection.full else min(self.window, connection.window, TURN_BYTES)
            at = 0
            while at < size and at < room:
                piece = view[at : min(at + frame, room)]
                at += len(piece)
                connection.put(DATA, END_STREAM if end and at == size else 0, self.id, piece)
        self.sent += at
        self.window -= at
        connection.window -= at
        if at < size:
            return memoryview(data)[at:]
        if end:
            self._end()
        return None

    def _end(self) -> None:
        if not self.ended:
            # Answered before the client was done: it need not go on. Not in the write that has the answer, because
            # there are clients (curl 7.88) that forget what they have not looked at yet of a stream that is reset.
            self.connection.cut_off(self.id)
            self.connection.loop.call_soon(self.connection.put, RST, 0, self.id, NUMBER.pack(NO_ERROR))
        self.connection.finish(self)

    def push(self) -> None:
        """One turn."""
        while self._pending and self.open:
            is_data, data, end = self._pending.popleft()
            if is_data:
                rest = self._data(data, end)
                if rest is not None:
                    self._pending.appendleft((True, rest, end))
                    self.line_up()
                    return
            else:
                self._headers(bytes(data), end)
        self.wake()

    def drop(self) -> None:
        """Nothing more is sent, or waited for."""
        self.open = False
        self._pending.clear()
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def drained(self) -> None:
        """Until everything that was sent has been handed to the network, or never will be."""
        while self._pending and self.open:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def reset(self, code: int) -> None:
        if self.open:
            self.connection.put(RST, 0, self.id, NUMBER.pack(code))
            self.connection.cut_off(self.id)
            self.connection.finish(self)
