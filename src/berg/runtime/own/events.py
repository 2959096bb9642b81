"""Container events: one stream for each listener of GetContainerEvents, none lost while it listens.

A listener that does not read is cut off after `LIMIT` events with RESOURCE_EXHAUSTED; it lists anew, as after any gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import Code, CRIError

LIMIT = 10_000


class EventHub:
    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[pb.ContainerEventResponse | None]] = set()

    @property
    def listened_to(self) -> bool:
        return bool(self._listeners)

    def publish(self, event: pb.ContainerEventResponse) -> None:
        for queue in self._listeners:
            if queue.qsize() < LIMIT:
                queue.put_nowait(event)

    def close(self) -> None:
        for queue in self._listeners:
            queue.put_nowait(None)

    async def listen(self) -> AsyncIterator[pb.ContainerEventResponse]:
        queue: asyncio.Queue[pb.ContainerEventResponse | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
                if queue.qsize() >= LIMIT:
                    raise CRIError(Code.RESOURCE_EXHAUSTED, "the listener is too slow: events were lost")
        finally:
            self._listeners.discard(queue)
