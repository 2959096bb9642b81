"""How many simulated nodes and pods this machine carries.

    python bench/simulated.py [--nodes 5000] [--pods 10000] [--controllers]

One process with everything in it: API server over a store in memory, scheduler, simulated nodes, with `--controllers`
the controllers too (pods then come from Deployments of 100). Prints seconds until all nodes are registered, until all
pods run, the memory then, and how busy the process is when nothing happens but heartbeats.

For comparison, KWOK's own figure is 5,000 nodes and 10,000 pods in 60 s each.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from berg.machinery.resources import resource
from berg.testing.cluster import Cluster
from berg.testing.simnode import SimConfig

Obj = dict[str, Any]
WIDTH = 16


def resident_mb() -> float:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096 / 1e6


def template(labels: Obj) -> Obj:
    requests = {"cpu": "10m", "memory": "64Mi"}
    container = {"name": "c", "image": "app:1", "resources": {"requests": requests}}
    return {"metadata": {"labels": labels}, "spec": {"containers": [container]}}


async def create(cluster: Cluster, pods: int, controllers: bool) -> None:
    if controllers:
        for i in range(-(-pods // 100)):
            labels = {"app": f"d{i}"}
            spec = {"replicas": 100, "selector": {"matchLabels": labels}, "template": template(labels)}
            await cluster.client.create(
                resource("deployments.apps"), {"metadata": {"name": f"d{i}"}, "spec": spec}, "default"
            )
        return
    numbers = iter(range(pods))

    async def worker() -> None:
        for i in numbers:
            pod = template({"app": f"d{i // 100}"})
            pod["metadata"]["name"] = f"p{i}"
            await cluster.client.create(resource("pods"), pod, "default")

    await asyncio.gather(*(worker() for _ in range(WIDTH)))


async def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--nodes", type=int, default=5000)
    p.add_argument("--pods", type=int, default=10_000)
    p.add_argument("--controllers", action="store_true")
    a = p.parse_args()
    started = time.perf_counter()
    async with Cluster(
        nodes=a.nodes, node_config=SimConfig(zones=3), controllers=a.controllers, https=False
    ) as cluster:
        print(f"{a.nodes} nodes ready after {time.perf_counter() - started:.1f} s, {resident_mb():.0f} MB", flush=True)
        started = time.perf_counter()
        await create(cluster, a.pods, a.controllers)
        print(f"created after {time.perf_counter() - started:.1f} s", flush=True)
        assert cluster.nodes is not None
        while sum(p.stage == "running" for p in cluster.nodes._pods.values()) < a.pods:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        took = time.perf_counter() - started
        print(f"{a.pods} pods running after {took:.1f} s ({a.pods / took:.0f}/s), {resident_mb():.0f} MB", flush=True)
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.sleep(20)
        busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
        print(f"idle: {busy:.0%} of a core, {resident_mb():.0f} MB", flush=True)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
