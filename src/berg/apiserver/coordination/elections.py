"""The elections of all Leases that have candidates: what changed is looked at, and every Lease with candidates again
after some seconds, for a leader that dies says nothing. Candidates that are not heard of any more are deleted.

Source: kubernetes pkg/controlplane/controller/leaderelection (controller, candidate GC).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from berg.apiserver.coordination import election
from berg.apiserver.registry.services import Services
from berg.machinery.clock import rfc3339_micro
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import CacheEvent

log = logging.getLogger(__name__)

AGAIN_S = 5.0
COLLECT_S = 30 * 60.0

Key = tuple[str, str]
"""namespace and name of a Lease"""


class Elections:
    def __init__(self, services: Services, candidates: Resource) -> None:
        self._services, self._candidates = services, candidates
        self._leases = resource("leases.coordination.k8s.io")
        self._due: dict[Key, float] = {}
        """when to look at which Lease (monotonic)"""
        self._changed = asyncio.Event()

    def follow(self) -> None:
        """From now on changes are noticed."""
        for r, notice in ((self._leases, self._lease), (self._candidates, self._candidate)):
            self._services.registry(r).subscribe(partial(_each, notice))

    async def run(self) -> None:
        """While this server leads."""
        clock = self._services.clock
        for c in self._services.list(self._candidates):
            self._candidate(c)
        collect = clock.monotonic() + COLLECT_S
        while True:
            now = clock.monotonic()
            if now >= collect:
                await self.collect()
                collect = now + COLLECT_S
            for key in [k for k, due in self._due.items() if due <= now]:
                del self._due[key]
                if await self._step(key):
                    self._due.setdefault(key, clock.monotonic() + AGAIN_S)
            await self._wait(min([collect, *self._due.values()]) - clock.monotonic())

    async def _wait(self, seconds: float) -> None:
        waits = [
            asyncio.ensure_future(self._changed.wait()),
            asyncio.ensure_future(self._services.clock.sleep(max(0.0, seconds))),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._changed.clear()

    def _lease(self, lease: Obj) -> None:
        meta = lease["metadata"]
        self._look(meta["namespace"], meta["name"])

    def _candidate(self, candidate: Obj) -> None:
        spec = candidate["spec"]
        if spec.get("pingTime") and (spec.get("renewTime") or "") < spec["pingTime"]:
            return  # it has just been asked
        self._look(candidate["metadata"]["namespace"], spec.get("leaseName") or "")

    def _look(self, namespace: str, name: str) -> None:
        self._due[namespace, name] = 0.0
        self._changed.set()

    async def _step(self, key: Key) -> bool:
        """One step of the election for this Lease; False when time alone will change nothing."""
        services, (namespace, name) = self._services, key
        now = services.clock.now()
        candidates = [
            c
            for c in services.list(self._candidates, namespace)
            if c["spec"].get("leaseName") == name and not election.expired(c, now)
        ]
        if not candidates:
            return False
        lease = services.get(self._leases, namespace, name)
        if lease is not None and lease.get("spec") is None:
            lease = {**lease, "spec": {}}
        try:
            step = election.step(candidates, lease, now)
            for c in step.ask:
                spec = {**c["spec"], "pingTime": rfc3339_micro(now)}
                await services.update(self._candidates, namespace, {**c, "spec": spec})
            if step.lease is not None and lease is None:
                await services.create(self._leases, namespace, {"metadata": {"name": name}, "spec": step.lease})
                log.info("lease %s/%s goes to %s", namespace, name, step.lease.get("holderIdentity"))
            elif step.lease is not None and lease is not None and step.lease != lease["spec"]:
                await services.update(self._leases, namespace, {**lease, "spec": step.lease})
                to = step.lease.get("preferredHolder") or step.lease.get("holderIdentity")
                log.info("lease %s/%s is to go to %s", namespace, name, to)
        except election.Undecided as e:  # until a candidate says something else
            log.warning("election for lease %s/%s: %s", namespace, name, e)
            return False
        except ApiError as e:
            log.warning("election for lease %s/%s: %s", namespace, name, e)
        return True

    async def collect(self) -> None:
        """Deletes the candidates that have not been heard of for too long."""
        now = self._services.clock.now()
        for c in self._services.list(self._candidates):
            if election.expired(c, now):
                try:
                    meta = c["metadata"]
                    await self._services.delete(self._candidates, meta["namespace"], meta["name"])
                except ApiError as e:
                    log.debug("candidate %s: %s", c["metadata"]["name"], e)


def _each(notice: Callable[[Obj], None], events: Sequence[CacheEvent]) -> None:
    for event in events:
        if event.entry is not None:
            notice(event.entry.obj)
