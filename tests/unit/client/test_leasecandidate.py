"""Coordinated election as the controller manager does it: the API server chooses, the chosen one leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from berg.client.leaderelection import LEASES, LeaderElector
from berg.client.leasecandidate import CANDIDATES, LeaseCandidate
from berg.client.rest import Client
from berg.machinery.status import ApiError
from berg.testing import Cluster


class Program:
    def __init__(self, client: Client, who: str) -> None:
        self.leads = asyncio.Event()
        self.candidate = LeaseCandidate(client, who, "prog")
        self.elector = LeaderElector(
            client, "prog", who, on_started=self._lead, on_stopped=self._stop, retry_period_s=0.05, coordinated=True
        )

    async def _lead(self) -> None:
        self.leads.set()

    async def _stop(self) -> None:
        self.leads.clear()

    def start(self) -> None:
        self.candidate.start()
        self.elector.start()

    async def stop(self) -> None:
        await self.elector.stop()
        await self.candidate.stop()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    gates = {"CoordinatedLeaderElection": True}
    api = {"feature_gates": gates, "runtime_config": {"coordination.k8s.io/v1beta1": "true"}}
    async with Cluster(nodes=0, controllers=False, scheduler=False, https=False, api=api) as cluster:
        yield cluster.client


async def test_the_chosen_one_leads_and_another_when_it_goes(client: Client) -> None:
    first, second = Program(client, "first"), Program(client, "second")
    try:
        async with asyncio.timeout(60):
            first.start()
            await first.leads.wait()
            lease = await client.get(LEASES, "kube-system", "prog")
            assert (lease["spec"]["holderIdentity"], lease["spec"]["strategy"]) == ("first", "OldestEmulationVersion")
            second.start()
            await first.elector.stop()
            await first.candidate.stop()
            await client.delete(CANDIDATES, "kube-system", "first")
            await second.leads.wait()
            assert not first.leads.is_set()
    finally:
        await first.stop()
        await second.stop()


async def test_nobody_takes_a_lease_that_it_was_not_given(client: Client) -> None:
    alone = Program(client, "alone")
    alone.elector.start()
    try:
        assert not await alone.elector._try()
        with pytest.raises(ApiError, match="not found"):
            await client.get(LEASES, "kube-system", "prog")
        spec = {"holderIdentity": "alone", "preferredHolder": "better", "leaseDurationSeconds": 15}
        spec |= {"strategy": "OldestEmulationVersion"}
        await client.create(LEASES, {"metadata": {"name": "prog"}, "spec": spec}, "kube-system")
        assert not await alone.elector._try()
        assert not alone.leads.is_set()
    finally:
        await alone.stop()
