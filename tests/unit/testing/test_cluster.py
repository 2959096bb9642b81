"""The cluster in one event loop, as a test uses it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from berg.client.rest import Client
from berg.machinery.resources import resource
from berg.machinery.status import ApiError
from berg.testing import Cluster, SimConfig, SimNodes

Obj = dict[str, Any]
PODS = resource("pods")


def pod(name: str, annotations: Obj | None = None, **spec: Any) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "default", "annotations": annotations or {}},
        "spec": {"containers": [{"name": "c", "image": "app:1"}], **spec},
    }


def phase(wanted: str) -> Any:
    return lambda o: (o.get("status") or {}).get("phase") == wanted


async def test_a_pod_lives_and_goes() -> None:
    async with Cluster(controllers=False) as cluster:
        await cluster.client.create(PODS, pod("a"))
        running = await cluster.until(PODS, "a", phase("Running"))
        status = running["status"]
        assert running["spec"]["nodeName"] == "sim-0"
        assert status["podIP"] and status["hostIP"] and status["startTime"]
        assert status["containerStatuses"][0]["containerID"].startswith("sim://")
        conditions = {c["type"]: c["status"] for c in status["conditions"]}
        assert conditions["Ready"] == conditions["PodScheduled"] == "True"
        await cluster.client.delete(PODS, "default", "a")
        await cluster.until_gone(PODS, "a")


async def test_run_to_completion() -> None:
    async with Cluster(controllers=False) as cluster:
        once = {"restartPolicy": "Never"}
        await cluster.client.create(PODS, pod("good", {"sim.berg.dev/run-for": "0.01"}, **once))
        failing = {"sim.berg.dev/run-for": "0", "sim.berg.dev/exit-code": "3"}
        await cluster.client.create(PODS, pod("bad", failing, **once))
        await cluster.until(PODS, "good", phase("Succeeded"))
        bad = await cluster.until(PODS, "bad", phase("Failed"))
        assert bad["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


async def test_simulated_nodes_say_so() -> None:
    config = SimConfig(zones=2, cpu="8", taint=True, more_resources={"example.com/gpu": "4"})
    async with Cluster(nodes=2, node_config=config, controllers=False, scheduler=False, https=False) as cluster:
        nodes = (await cluster.client.list(resource("nodes"), label_selector="berg.dev/simulated=true"))["items"]
        assert [n["metadata"]["labels"]["topology.kubernetes.io/zone"] for n in nodes] == ["zone-0", "zone-1"]
        assert {"key": "berg.dev/simulated", "value": "true", "effect": "NoSchedule"} in nodes[0]["spec"]["taints"]
        assert nodes[0]["status"]["allocatable"]["example.com/gpu"] == "4"
        assert nodes[0]["status"]["nodeInfo"]["containerRuntimeVersion"] == "sim://1"


async def test_unschedulable_pods_say_why() -> None:
    async with Cluster(controllers=False) as cluster:
        big = pod("big")
        big["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1000"}}
        await cluster.client.create(PODS, big)

        def refused(o: Obj) -> bool:
            return any(c.get("reason") == "Unschedulable" for c in o["status"].get("conditions") or ())

        found = await cluster.until(PODS, "big", refused)
        message = next(c["message"] for c in found["status"]["conditions"] if c["type"] == "PodScheduled")
        assert message == (
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: "
            "1 Preemption is not helpful for scheduling."
        )


async def test_preemption_makes_room() -> None:
    async with Cluster(controllers=False, node_config=SimConfig(cpu="1")) as cluster:
        client = cluster.client
        for name, value in (("low", 1), ("high", 1000)):
            await client.create(
                resource("priorityclasses.scheduling.k8s.io"), {"metadata": {"name": name}, "value": value}
            )

        def asking(name: str, priority: str) -> Obj:
            one = pod(name, priorityClassName=priority)
            one["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
            return one

        await client.create(PODS, asking("victim", "low"))
        await cluster.until(PODS, "victim", phase("Running"))
        await client.create(PODS, asking("important", "high"))
        await cluster.until_gone(PODS, "victim")
        await cluster.until(PODS, "important", phase("Running"))


async def test_over_https_with_the_kubeconfig() -> None:
    async with Cluster(controllers=False) as cluster:
        client = Client.from_kubeconfig(cluster.kubeconfig_path)
        try:
            assert (await client.get(resource("nodes"), None, "sim-0"))["metadata"]["name"] == "sim-0"
        finally:
            await client.close()


async def test_rbac_holds_in_memory_too() -> None:
    async with Cluster(nodes=0, controllers=False, scheduler=False, https=False) as cluster:
        nobody = cluster.client_as("nobody")
        with pytest.raises(ApiError, match='pods is forbidden: User "nobody" cannot list resource "pods"'):
            await nobody.list(PODS, "default")


async def test_several_at_once_and_nothing_left() -> None:
    tasks = asyncio.all_tasks()
    fds = len(os.listdir("/proc/self/fd"))
    async with Cluster(controllers=False) as a, Cluster(controllers=False) as b:
        assert a.server.port != b.server.port
        directories = [os.path.dirname(c.kubeconfig_path) for c in (a, b)]
        await a.client.create(PODS, pod("only-in-a"))
        assert (await b.client.list(PODS, "default"))["items"] == []
    assert asyncio.all_tasks() == tasks
    assert not any(os.path.exists(d) for d in directories)
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= fds + 2  # the selector's own


async def test_simulated_nodes_over_https_and_taken_up_again() -> None:
    """As `berg up --sim-nodes` runs them, stopped and started anew."""
    async with Cluster(nodes=0, controllers=False) as cluster:
        client = Client.from_kubeconfig(cluster.kubeconfig_path)
        try:
            first = SimNodes(client, 20)
            await first.start()
            await cluster.client.create(PODS, pod("a"))
            await cluster.until(PODS, "a", phase("Running"))
            await first.stop()
            await cluster.client.create(PODS, pod("b"))
            await cluster.client.delete(PODS, "default", "a")
            second = SimNodes(client, 20)
            await second.start()
            await cluster.until(PODS, "b", phase("Running"))
            await cluster.until_gone(PODS, "a")
            await second.stop()
        finally:
            await client.close()
