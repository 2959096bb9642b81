"""Pods that a Permit plugin holds back until someone allows or rejects them, or time is up.

Source: pkg/scheduler/framework/runtime/waiting_pods_map.go.
"""

from __future__ import annotations

import asyncio
from typing import Any

from berg.machinery.clock import Clock
from berg.scheduler.framework.status import Status, unschedulable
from berg.scheduler.state.podinfo import PodInfo


class WaitingPod:
    def __init__(self, pod: PodInfo, timeouts: dict[str, float], clock: Clock) -> None:
        self.pod = pod
        self._timeouts = timeouts
        self._clock = clock
        self._pending = set(timeouts)
        self._verdict: asyncio.Future[Status | None] = asyncio.get_running_loop().create_future()

    @property
    def pending_plugins(self) -> frozenset[str]:
        return frozenset(self._pending)

    def allow(self, plugin: str) -> None:
        self._pending.discard(plugin)
        if not self._pending and not self._verdict.done():
            self._verdict.set_result(None)

    def reject(self, plugin: str, why: str) -> None:
        if not self._verdict.done():
            self._verdict.set_result(unschedulable(why).of(plugin))

    async def wait(self) -> Status | None:
        """None when all have allowed it."""
        plugin, timeout_s = min(self._timeouts.items(), key=lambda i: i[1])
        sleeper = asyncio.ensure_future(self._clock.sleep(timeout_s))
        racing: set[asyncio.Future[Any]] = {self._verdict, sleeper}
        try:
            await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
            if not self._verdict.done():
                self.reject(plugin, f"rejected due to timeout after waiting {timeout_s:g}s at plugin {plugin}")
            return await self._verdict
        finally:
            sleeper.cancel()
