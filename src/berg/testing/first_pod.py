"""The scheduler of a test cluster, started when the first pod wants a node.

A scheduler, with its numpy, is a third of what a cluster's start costs, and most tests of controllers and operators
never schedule anything. Seen from outside there is no difference: a pod without a node gets one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from berg.client.rest import Client
from berg.machinery import collector
from berg.machinery.resources import resource
from berg.machinery.tasks import end

if TYPE_CHECKING:
    from berg.scheduler.scheduler import Scheduler


log = logging.getLogger(__name__)


class FirstPod:
    """A part of the cluster in the scheduler's place. `make` answers the scheduler, not started."""

    def __init__(self, client: Client, make: Callable[[], Scheduler]) -> None:
        self._client, self._make = client, make
        self._waiting: asyncio.Task[None] | None = None
        self._scheduler: Scheduler | None = None

    async def start(self) -> None:
        self._waiting = asyncio.create_task(self._wait(), name="first pod")

    async def _wait(self) -> None:
        pods = self._client.watch(resource("pods"), field_selector="spec.nodeName=", send_initial_events=True)
        try:
            async for event in pods:
                if event.type == "ADDED":
                    break
        finally:
            await pods.aclose()
        try:
            with collector.held():
                self._scheduler = self._make()
                await self._scheduler.start()
        except Exception:
            log.exception("starting the scheduler")

    async def stop(self) -> None:
        await end(self._waiting)
        if self._scheduler is not None:
            await self._scheduler.stop()
