"""Running one component from its own command: until a signal, then stopped in good order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any


def run(build: Callable[[], list[Any]]) -> None:
    """`build` makes the components inside the loop; they are started in order and stopped in reverse."""
    import uvloop

    from berg.cli.logsetup import to_stderr

    to_stderr()
    uvloop.run(_serve(build))


async def _serve(build: Callable[[], list[Any]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    started: list[Any] = []
    try:
        for component in build():
            started.append(component)
            await component.start()
        await stop.wait()
    finally:
        for component in reversed(started):
            await component.stop()
