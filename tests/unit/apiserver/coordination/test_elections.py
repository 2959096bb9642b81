"""A server with the gate on: candidates come, leaders are chosen, the Lease of the election itself is held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from berg import storage
from berg.apiserver.config import Config
from berg.apiserver.coordination import election
from berg.apiserver.coordination.elections import Elections
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock, rfc3339_micro

from ..served_api import Served

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
CANDIDATES = "/apis/coordination.k8s.io/v1beta1/namespaces/default/leasecandidates"


async def serve(gates: dict[str, bool]) -> AsyncIterator[Served]:
    clock = FakeClock()
    store = storage.open("memory:", clock=clock, compaction_interval_s=0)
    await store.start()
    served = {"coordination.k8s.io/v1beta1": "true"}
    server = APIServer(Config(secure_port=-1, store=store, clock=clock, feature_gates=gates, runtime_config=served))
    try:
        await server.start()
        yield Served(server, clock)
    finally:
        await server.stop()
        await store.close()


@pytest.fixture
async def coordinated() -> AsyncIterator[Served]:
    async for served in serve({"CoordinatedLeaderElection": True}):
        yield served


@pytest.fixture
async def plain() -> AsyncIterator[Served]:
    async for served in serve({}):
        yield served


async def becomes(served: Served, path: str, true: Callable[[Any], bool], *, answering: bool = True) -> Any:
    """Time goes on; candidates that are asked say that they are there."""
    async with asyncio.timeout(30):
        while True:
            found = await served.get(path)
            if true(found):
                return found
            for c in (await served.get(CANDIDATES))["items"] if answering else ():
                spec = c["spec"]
                if spec.get("pingTime", "") > spec["renewTime"]:
                    spec = {**spec, "renewTime": rfc3339_micro(served.clock.now())}
                    await served.ask("PUT", f"{CANDIDATES}/{c['metadata']['name']}", {**c, "spec": spec})
            await served.clock.advance(1)


async def collecting(served: Served) -> None:
    registry = served.server.services.registries["coordination.k8s.io", "leasecandidates"]
    while True:
        await served.clock.sleep(5)
        await Elections(served.server.services, registry.storage).collect()


def candidate(served: Served, name: str, version: str) -> dict[str, Any]:
    spec = {"leaseName": "foo", "binaryVersion": version, "emulationVersion": version}
    spec |= {"strategy": "OldestEmulationVersion", "renewTime": rfc3339_micro(served.clock.now())}
    return {"metadata": {"name": name}, "spec": spec}


async def test_a_candidate_becomes_leader_and_makes_place_for_a_better_one(coordinated: Served) -> None:
    await coordinated.create(CANDIDATES, candidate(coordinated, "a", "1.20.0"))
    held = await becomes(coordinated, f"{LEASES}/foo", lambda o: o.get("spec"))
    assert (held["spec"]["holderIdentity"], held["spec"]["strategy"]) == ("a", "OldestEmulationVersion")
    await coordinated.create(CANDIDATES, candidate(coordinated, "b", "1.19.0"))
    # The first one does not renew: first it is only asked to go, then its Lease runs out.
    await becomes(coordinated, f"{LEASES}/foo", lambda o: o["spec"]["holderIdentity"] == "b")


async def test_the_servers_themselves_choose_one(coordinated: Served) -> None:
    own = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/leader-election-controller"
    held = await becomes(coordinated, own, lambda o: o.get("spec"))
    first = held["spec"]["renewTime"]
    renewed = await becomes(coordinated, own, lambda o: o["spec"]["renewTime"] > first)
    assert renewed["spec"]["holderIdentity"] == held["spec"]["holderIdentity"]
    ready = await coordinated.raw(
        "GET", "/readyz/poststarthook/start-kube-apiserver-coordinated-leader-election-controller"
    )
    assert ready.status == 200


async def test_candidates_that_are_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch, coordinated: Served) -> None:
    monkeypatch.setattr(election, "VALID", timedelta(seconds=20))
    coordinated.server.services.spawn(collecting(coordinated))
    await coordinated.create(CANDIDATES, candidate(coordinated, "a", "1.20.0"))
    await becomes(coordinated, f"{CANDIDATES}/a", lambda o: o.get("code") == 404, answering=False)


async def test_without_the_gate_leases_know_no_strategy(plain: Served) -> None:
    spec = {"holderIdentity": "a", "strategy": "OldestEmulationVersion", "preferredHolder": "b"}
    made = await plain.create(LEASES, {"metadata": {"name": "foo"}, "spec": spec})
    assert made["spec"] == {"holderIdentity": "a"}
    assert (
        await plain.raw("GET", "/readyz/poststarthook/start-kube-apiserver-coordinated-leader-election-controller")
    ).status == 404
