"""Configuration files that are read again when they change: one watch of the directories they are in.

A file is often a link into a directory that is swapped as a whole (as a mounted ConfigMap is), so what is compared
is the content. Where the kernel gives no watch, the content is looked at once a minute, as upstream does anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from berg.machinery.clock import Clock
from berg.machinery.inotify import Inotify
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

EVERY_S = 60.0
SETTLE_S = 0.05
"""a writer that truncates and writes makes several events: they are one change"""

Changed = Callable[[], Awaitable[None]]


async def follow(paths: Sequence[str], changed: Changed, clock: Clock) -> None:
    """Calls `changed` after any of the files has other content than before, until cancelled. What `changed` raises
    is logged."""
    event = asyncio.Event()
    watch = _watch(paths, event)
    known = _contents(paths)
    try:
        while True:
            await _either(event, clock)
            if event.is_set():
                event.clear()
                await asyncio.sleep(SETTLE_S)
            now = _contents(paths)
            if now == known:
                continue
            known = now
            try:
                await changed()
            except Exception:
                log.exception("reading %s again", ", ".join(paths))
    finally:
        if watch is not None:
            watch.close()


async def _either(event: asyncio.Event, clock: Clock) -> None:
    waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(clock.sleep(EVERY_S))]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(*waits)


def _watch(paths: Sequence[str], event: asyncio.Event) -> Inotify | None:
    try:
        watch = Inotify(event.set)
        for directory in {Path(p).absolute().parent for p in paths}:
            watch.add(directory)
    except (OSError, AttributeError) as e:
        log.info("no watch of %s, looking every minute: %s", ", ".join(paths), e)
        return None
    return watch


def _contents(paths: Sequence[str]) -> list[bytes | None]:
    return [_content(p) for p in paths]


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None
