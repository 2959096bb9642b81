"""A component that would lead: says so in a LeaseCandidate, and answers when the API server asks whether it is there.

Source: KEP-4355, client-go tools/leaderelection/leasecandidate.go.
"""

from __future__ import annotations

import asyncio
import logging

from berg.client.informer import InformerFactory
from berg.client.rest import Client
from berg.machinery.clock import Clock, RealClock, rfc3339_micro
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

CANDIDATES = Resource("coordination.k8s.io", "v1beta1", "leasecandidates", "LeaseCandidate", namespaced=True)
VERSION = "1.37.0"
RENEW_S = 300.0
RETRY_S = 1.0


class LeaseCandidate:
    """`name` is the identity with which the component takes the Lease `lease`."""

    def __init__(
        self, client: Client, name: str, lease: str, *, namespace: str = "kube-system", clock: Clock | None = None
    ) -> None:
        self._client, self._name, self._lease, self._namespace = client, name, lease, namespace
        self._clock: Clock = clock or RealClock()
        self._informers = InformerFactory(client, self._clock)
        self._informer = self._informers.informer(
            CANDIDATES, namespace=namespace, field_selector=f"metadata.name={name}"
        )
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """At once; it goes on beside the election."""
        self._informer.add_handler(None, lambda old, new: self._seen(new), lambda old: self._asked.set())
        self._informers.start_new()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"lease candidate {self._name}")

    async def stop(self) -> None:
        await end(self._task)
        await self._informers.stop()

    def _seen(self, candidate: Obj) -> None:
        spec = candidate["spec"]
        if (spec.get("pingTime") or "") > (spec.get("renewTime") or ""):
            self._asked.set()

    async def _run(self) -> None:
        await self._informer.synced.wait()
        while True:
            self._asked.clear()
            try:
                await self._renew()
            except ApiError as e:
                log.warning("lease candidate %s: %s", self._name, e.message)
                await self._clock.sleep(RETRY_S)
                continue
            waits = [asyncio.ensure_future(self._asked.wait()), asyncio.ensure_future(self._clock.sleep(RENEW_S))]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    async def _renew(self) -> None:
        now = rfc3339_micro(self._clock.now())
        found = self._informer.lister.get(self._namespace, self._name)
        if found is not None:
            await self._client.update(CANDIDATES, {**found, "spec": {**found["spec"], "renewTime": now}})
            return
        spec = {"leaseName": self._lease, "binaryVersion": VERSION, "emulationVersion": VERSION}
        spec |= {"strategy": "OldestEmulationVersion", "renewTime": now}
        metadata = {"name": self._name, "namespace": self._namespace}
        await self._client.create(CANDIDATES, {"metadata": metadata, "spec": spec}, self._namespace)
