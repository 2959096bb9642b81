"""Leader election on a Lease: of several that run, one acts.

The holder renews; the others watch the clock since they last saw the Lease change, by their own clock, never by
the times written in it (clocks of machines differ). One who cannot renew in time stops before another may start:
`renew_deadline_s` < `lease_duration_s`.

Source: client-go tools/leaderelection.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from berg.client.events import EventRecorder
from berg.client.rest import Client
from berg.machinery.clock import Clock, RealClock, rfc3339_micro
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
JITTER = 1.2


class LeaderElector:
    def __init__(
        self,
        client: Client,
        name: str,
        identity: str,
        *,
        on_started: Callable[[], Awaitable[None]],
        on_stopped: Callable[[], Awaitable[None]],
        namespace: str = "kube-system",
        clock: Clock | None = None,
        lease_duration_s: float = 15,
        renew_deadline_s: float = 10,
        retry_period_s: float = 2,
        recorder: EventRecorder | None = None,
        coordinated: bool = False,
    ) -> None:
        """`coordinated`: the API server chooses among LeaseCandidates; the Lease is only renewed, never taken."""
        self._coordinated = coordinated
        self._client, self._name, self._namespace, self.identity = client, name, namespace, identity
        self._clock: Clock = clock or RealClock()
        self._on_started, self._on_stopped = on_started, on_stopped
        self._duration_s, self._deadline_s, self._retry_s = lease_duration_s, renew_deadline_s, retry_period_s
        self._recorder = recorder
        self._seen: Obj | None = None
        self._seen_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self.leading = False

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self.run(), name=f"leader election {self._name}")

    async def stop(self) -> None:
        """Gives the lease up, so that the next one need not wait."""
        await end(self._task)
        if self._recorder is not None:
            await self._recorder.stop()

    async def run(self) -> None:
        """Until the lease is lost or this is cancelled."""
        while not await self._try():
            await self._clock.sleep(self._retry_s * random.uniform(1.0, JITTER))
        self.leading = True
        log.info("successfully acquired lease %s/%s", self._namespace, self._name)
        if self._recorder is not None and self._seen is not None:
            self._recorder.event(self._seen, "Normal", "LeaderElection", f"{self.identity} became leader")
        try:
            await self._on_started()
            await self._renew()
        finally:
            self.leading = False
            await self._on_stopped()
            await self._release()

    async def _renew(self) -> None:
        renewed = self._clock.monotonic()
        while self._clock.monotonic() - renewed < self._deadline_s:
            if await self._try():
                renewed = self._clock.monotonic()
            elif self._seen is not None and (self._seen["spec"].get("holderIdentity") or "") != self.identity:
                break
            await self._clock.sleep(self._retry_s)
        log.warning("lost lease %s/%s", self._namespace, self._name)

    async def _try(self) -> bool:
        """Takes or renews the lease if that may be."""
        try:
            async with asyncio.timeout(self._deadline_s):  # wait_for may lose a cancellation before Python 3.12
                return await (self._hold() if self._coordinated else self._take())
        except (ApiError, TimeoutError) as e:
            log.debug("lease %s/%s: %s", self._namespace, self._name, e)
            return False

    async def _take(self) -> bool:
        now = rfc3339_micro(self._clock.now())
        spec: Obj = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, int(self._duration_s)),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        }
        try:
            lease = await self._client.get(LEASES, self._namespace, self._name)
        except ApiError as e:
            if e.code != 404:
                raise
            made = {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": spec}
            self._observe(await self._client.create(LEASES, made))
            return True
        if self._seen is None or self._seen["spec"] != lease.get("spec", {}):
            self._observe(lease)
        old = lease.get("spec") or {}
        holder = old.get("holderIdentity") or ""
        if holder == self.identity:
            spec["acquireTime"] = old.get("acquireTime", now)
            spec["leaseTransitions"] = old.get("leaseTransitions", 0)
        else:
            if holder and self._clock.monotonic() - self._seen_at < self._duration_s:
                return False
            spec["leaseTransitions"] = old.get("leaseTransitions", 0) + 1
        self._observe(await self._client.update(LEASES, {**lease, "spec": spec}))
        return True

    async def _hold(self) -> bool:
        """Renews the Lease when it is ours, and neither over nor wanted by a better one."""
        lease = await self._client.get(LEASES, self._namespace, self._name)
        if self._seen is None or self._seen["spec"] != lease.get("spec", {}):
            self._observe(lease)
        old = lease.get("spec") or {}
        late = self._clock.monotonic() - self._seen_at > (old.get("leaseDurationSeconds") or 0)
        if late or old.get("holderIdentity") != self.identity or old.get("preferredHolder"):
            return False
        now = rfc3339_micro(self._clock.now())
        spec = {"acquireTime": now, "leaseTransitions": 0, **old, "renewTime": now}
        spec["leaseDurationSeconds"] = max(1, int(self._duration_s))
        self._observe(await self._client.update(LEASES, {**lease, "spec": spec}))
        return True

    def _observe(self, lease: Obj) -> None:
        self._seen = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, **lease, "spec": lease.get("spec") or {}}
        self._seen_at = self._clock.monotonic()

    async def _release(self) -> None:
        if self._seen is None or self._seen["spec"].get("holderIdentity") != self.identity:
            return
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": rfc3339_micro(self._clock.now())}
        spec["acquireTime"] = spec["renewTime"]
        spec["leaseTransitions"] = self._seen["spec"].get("leaseTransitions", 0)
        try:
            await self._client.update(LEASES, {**self._seen, "spec": spec})
        except ApiError as e:
            log.debug("lease %s/%s not released: %s", self._namespace, self._name, e.message)
