"""Time in a test cluster is the test's."""

from __future__ import annotations

from typing import Any

from berg.machinery.clock import FakeClock
from berg.machinery.resources import resource
from berg.testing import Cluster, SimConfig

Obj = dict[str, Any]


def ready(node: Obj) -> str:
    return next(c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready")


async def test_nodes_stay_ready_while_they_beat_and_are_lost_when_they_stop() -> None:
    clock = FakeClock()
    async with Cluster(nodes=2, https=False, clock=clock) as cluster:
        for _ in range(12):
            await clock.advance(10)
        node = await cluster.client.get(resource("nodes"), None, "sim-0")
        assert ready(node) == "True"
        assert cluster.nodes is not None
        await cluster.nodes.stop()
        for _ in range(12):
            await clock.advance(10)
        lost = await cluster.until("nodes", "sim-0", lambda n: ready(n) == "Unknown")
        assert any(t["key"] == "node.kubernetes.io/unreachable" for t in lost["spec"]["taints"])


async def test_a_job_takes_as_long_as_it_says() -> None:
    clock = FakeClock()
    async with Cluster(https=False, clock=clock, node_config=SimConfig(job_run_s=3600)) as cluster:
        job = {
            "metadata": {"name": "j"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
        }
        await cluster.client.create(resource("jobs.batch"), job, "default")

        async def running() -> bool:
            await clock.advance(1)
            pods = (await cluster.client.list(resource("pods"), "default"))["items"]
            return [p["status"].get("phase") for p in pods] == ["Running"]

        await cluster.eventually(running)
        await clock.advance(3600)

        async def complete() -> bool:
            await clock.advance(1)
            found = await cluster.client.get(resource("jobs.batch"), "default", "j")
            return any(c["type"] == "Complete" for c in found["status"].get("conditions") or ())

        await cluster.eventually(complete)
