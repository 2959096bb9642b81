"""A scheduler that acts only while it holds its Lease: of several in a cluster, one schedules."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from berg.client.leaderelection import LeaderElector
from berg.client.leasecandidate import LeaseCandidate
from berg.client.rest import Client
from berg.machinery.clock import Clock
from berg.machinery.features import FeatureGates
from berg.scheduler.config import SchedulerConfig
from berg.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from berg.scheduler.metrics import Metrics


class ElectedScheduler:
    """`on_lost` is called when the lease was lost: the process should end, as upstream's does."""

    def __init__(
        self, client: Client, config: SchedulerConfig, *, on_lost: Callable[[], None], clock: Clock | None = None
    ) -> None:
        self._client, self._config, self._clock, self._on_lost = client, config, clock, on_lost
        self._scheduler: Scheduler | None = None
        self.metrics: Metrics | None = None
        self._stopping = False
        e = config.leader_election
        identity = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4()}"
        self._candidate: LeaseCandidate | None = None
        coordinated = FeatureGates(config.feature_gates).enabled("CoordinatedLeaderElection")
        if coordinated:
            self._candidate = LeaseCandidate(client, identity, e.name, namespace=e.namespace, clock=clock)
        self._elector = LeaderElector(
            client,
            e.name,
            identity,
            on_started=self._lead,
            on_stopped=self._lost,
            namespace=e.namespace,
            clock=clock,
            lease_duration_s=e.lease_duration_s,
            renew_deadline_s=e.renew_deadline_s,
            retry_period_s=e.retry_period_s,
            coordinated=coordinated,
        )

    def pod_resources(self) -> bytes:
        return self._scheduler.pod_resources() if self._scheduler is not None else b""

    async def start(self) -> None:
        self._elector.start()
        if self._candidate is not None:
            self._candidate.start()

    async def stop(self) -> None:
        self._stopping = True
        await self._elector.stop()
        if self._candidate is not None:
            await self._candidate.stop()
        await self._end()

    def pending(self) -> dict[str, int]:
        return self._scheduler.queue.counts() if self._scheduler is not None else {}

    async def _lead(self) -> None:
        self._scheduler = Scheduler(self._client, self._config, clock=self._clock)
        self._scheduler.metrics = self.metrics
        await self._scheduler.start()

    async def _lost(self) -> None:
        await self._end()
        if not self._stopping:
            self._on_lost()

    async def _end(self) -> None:
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            await scheduler.stop()
