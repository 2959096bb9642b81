"""Whether runtime and network are ready, as the runtime itself says; asked at start and every 5 s, or when needed.

`runtime_error` and `network_error` are None when all is well, otherwise upstream's text for the node's Ready
condition.

Source: pkg/kubelet/runtime.go, kubelet.go updateRuntimeUp.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from berg.machinery.clock import Clock
from berg.machinery.tasks import end
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, CRIError

log = logging.getLogger(__name__)

PERIOD_S = 5.0
RETRY_S = 0.2
THRESHOLD_S = 30.0


class RuntimeState:
    def __init__(self, cri: CRI, clock: Clock, changed: Callable[[], None]) -> None:
        self._cri = cri
        self._clock = clock
        self._changed = changed
        self._last_sync: float | None = None
        self._runtime_error: str | None = None
        self._network_error: str | None = "network state unknown"
        self.name = ""
        self.version = ""
        self.handlers: list[Any] = []
        self.features: Any = None
        self.cgroup_driver = ""
        self.health: list[tuple[str, Callable[[], str | None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def network_error(self) -> str | None:
        return self._network_error

    @property
    def runtime_error(self) -> str | None:
        errors = []
        if self._last_sync is None:
            errors.append("container runtime status check may not have completed yet")
        elif self._clock.monotonic() - self._last_sync > THRESHOLD_S:
            errors.append("container runtime is down")
        for name, check in self.health:
            if (problem := check()) is not None:
                errors.append(f"{name} is not healthy: {problem}")
        if self._runtime_error:
            errors.append(self._runtime_error)
        return aggregate(errors)

    async def identify(self) -> None:
        """Who the runtime is. Raises CRIError."""
        answer = await self._cri.version(pb.VersionRequest(version="0.1.0"))
        self.name, self.version = answer.runtime_name, answer.runtime_version

    async def check(self) -> None:
        before = (self._runtime_error, self._network_error, self._last_sync is None)
        try:
            answer = await self._cri.status(pb.StatusRequest())
        except CRIError as e:
            log.warning("container runtime status: %s", e)
            return
        conditions = {c.type: c for c in answer.status.conditions}
        self._network_error = _problem(conditions, "NetworkReady", "container runtime network not ready")
        self._runtime_error = _problem(conditions, "RuntimeReady", "container runtime not ready")
        self.handlers = sorted(answer.runtime_handlers, key=lambda h: h.name)
        self.features = answer.features if answer.HasField("features") else None
        if self._runtime_error is None:
            self._last_sync = self._clock.monotonic()
        if before != (self._runtime_error, self._network_error, self._last_sync is None):
            self._changed()

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    def recheck(self) -> None:
        """Something may have become ready, or not: look now."""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            bad = self.runtime_error is not None or self._network_error is not None
            waits = [
                asyncio.ensure_future(self._wake.wait()),
                asyncio.ensure_future(self._clock.sleep(RETRY_S if bad else PERIOD_S)),
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for w in waits:
                    w.cancel()
            self._wake.clear()
            await self.check()

    async def stop(self) -> None:
        await end(self._task)


def aggregate(errors: list[str]) -> str | None:
    """Several errors as Go's aggregate prints them."""
    if not errors:
        return None
    return errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"


def _problem(conditions: dict[str, Any], type: str, words: str) -> str | None:
    c = conditions.get(type)
    if c is not None and c.status:
        return None
    if c is None:
        return f"{words}: <nil>"
    return f"{words}: {type}=false reason:{c.reason} message:{c.message}"
