"""Of several API servers one does what only one should: it holds a Lease.

`client.leaderelection` is the same for clients of the API; this one asks the registry, for the API server knows no
client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from berg.apiserver.registry.services import Services
from berg.machinery.clock import rfc3339_micro
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Timing:
    duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_s: float = 2.0


class Leadership:
    """`run` does `work` whenever this server leads; it ends only by being cancelled."""

    def __init__(self, services: Services, name: str, identity: str, timing: Timing) -> None:
        self._services, self._name, self._identity, self._timing = services, name, identity, timing
        self._leases = resource("leases.coordination.k8s.io")
        self._seen: tuple[str, float] = ("", 0.0)
        """the holder's last sign of life, and when it was seen by our own clock"""

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        clock = self._services.clock
        while True:
            while not await self._take():
                await clock.sleep(self._timing.retry_s)
            log.info("leading %s", self._name)
            task = asyncio.create_task(work())
            try:
                await self._keep()
            finally:
                await end(task)
                await self._release()

    async def _keep(self) -> None:
        clock = self._services.clock
        renewed = clock.monotonic()
        while clock.monotonic() - renewed < self._timing.renew_deadline_s:
            await clock.sleep(self._timing.retry_s)
            if await self._take():
                renewed = clock.monotonic()
        log.warning("no longer leading %s", self._name)

    async def _take(self) -> bool:
        """Takes the Lease, or renews it, if that may be."""
        services, now = self._services, self._services.clock.now()
        found = services.get(self._leases, "kube-system", self._name)
        spec: Obj = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._timing.duration_s),
            "acquireTime": rfc3339_micro(now),
            "renewTime": rfc3339_micro(now),
            "leaseTransitions": 0,
        }
        try:
            if found is None:
                await services.create(self._leases, "kube-system", {"metadata": {"name": self._name}, "spec": spec})
                return True
            old = found.get("spec") or {}
            if old.get("holderIdentity") == self._identity:
                spec |= {key: old[key] for key in ("acquireTime", "leaseTransitions") if key in old}
            elif old.get("holderIdentity") and not self._late(f"{old['holderIdentity']} {old.get('renewTime')}"):
                return False
            else:
                spec["leaseTransitions"] = (old.get("leaseTransitions") or 0) + 1
            await services.update(self._leases, "kube-system", {**found, "spec": spec})
        except ApiError as e:
            log.debug("lease %s: %s", self._name, e)
            return False
        return True

    def _late(self, sign: str) -> bool:
        """Clocks of machines differ: what counts is how long we have seen no change."""
        now = self._services.clock.monotonic()
        if self._seen[0] != sign:
            self._seen = sign, now
        return now - self._seen[1] >= self._timing.duration_s

    async def _release(self) -> None:
        found = self._services.get(self._leases, "kube-system", self._name)
        if found is None or (found.get("spec") or {}).get("holderIdentity") != self._identity:
            return
        now = rfc3339_micro(self._services.clock.now())
        spec = {**found["spec"], "leaseDurationSeconds": 1, "renewTime": now, "acquireTime": now}
        del spec["holderIdentity"]
        try:
            await self._services.update(self._leases, "kube-system", {**found, "spec": spec})
        except ApiError as e:
            log.debug("lease %s not released: %s", self._name, e)
