"""Work that must not be left half done: a cancelled caller waits for it to end, and only then is cancelled.

A call that changes something in the runtime is such work; a pod that is told to end interrupts everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def uninterrupted(work: Awaitable[T]) -> T:
    """Sees `work` through even when the caller is cancelled, and only then lets go."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # seen
        raise
