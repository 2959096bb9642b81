"""Scheduling throughput on 5,000 nodes, with the workloads of upstream's scheduler_perf.

    python bench/scheduler.py [WORKLOAD …] [--nodes 5000] [--scale 1.0] [--profile FILE]

One process: the API server over a store in memory, the scheduler as its client (no sockets). Pods are created by 16
tasks while they are scheduled, as in scheduler_perf; the figure is pods per second from the first create to the last
binding. Node objects exist; nobody plays kubelet.

Source of the workloads: kubernetes test/integration/scheduler_perf.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from berg.machinery.clock import RealClock
from berg.machinery.resources import resource
from berg.scheduler.algorithm import Algorithm
from berg.scheduler.config import SchedulerConfig
from berg.scheduler.framework.diagnosis import FitError
from berg.scheduler.framework.profile import Profile
from berg.scheduler.state.objects import ObjectStore
from berg.scheduler.state.podinfo import PodParser
from berg.scheduler.state.snapshot import Snapshot
from berg.testing.cluster import Cluster

Obj = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def pod(namespace: str, labels: Obj | None = None, *, cpu: str = "100m", memory: str = "500Mi", **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "pod-", "namespace": namespace, "labels": labels or {}},
        "spec": {
            "containers": [
                {
                    "name": "pause",
                    "image": "registry.k8s.io/pause:3.10",
                    "ports": [{"containerPort": 80}],
                    "resources": {
                        "limits": {"cpu": cpu, "memory": memory},
                        "requests": {"cpu": cpu, "memory": memory},
                    },
                }
            ],
            **spec,
        },
    }


def term(color: str, key: str) -> Obj:
    return {
        "labelSelector": {"matchLabels": {"color": color}},
        "topologyKey": key,
        "namespaces": ["sched-0", "sched-1"],
    }


def spread(when: str) -> list[Obj]:
    selector = {"matchLabels": {"color": "blue"}}
    return [{"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": when, "labelSelector": selector}]


def node_affinity(namespace: str) -> Obj:
    expression = {"key": ZONE, "operator": "In", "values": ["zone1", "zone2"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return pod(namespace, affinity={"nodeAffinity": {REQUIRED: required}})


def preferred(kind: str, color: str, key: str) -> Callable[[str], Obj]:
    terms = [{"weight": 1, "podAffinityTerm": term(color, key)}]
    return lambda ns: pod(ns, {"color": color}, affinity={kind: {PREFERRED: terms}})


@dataclass
class Workload:
    upstream: int
    """pods/s of kube-scheduler 1.36 on the machine that the budget was made on"""
    measured: int
    template: Callable[[str], Obj]
    initial: int = 0
    initial_template: Callable[[str], Obj] = pod
    zones: tuple[str, ...] = ("zone1",)
    churn: bool = False
    """meanwhile a node, a service and a pod that fits nowhere come and go every second"""


WORKLOADS = {
    "basic": Workload(247, 10_000, pod, initial=1_000),
    "mixed-churn": Workload(242, 10_000, pod, churn=True),
    "node-affinity": Workload(339, 10_000, node_affinity, initial=5_000, initial_template=node_affinity),
    "pod-affinity": Workload(
        83,
        5_000,
        lambda ns: pod(ns, {"color": "blue"}, affinity={"podAffinity": {REQUIRED: [term("blue", ZONE)]}}),
        initial=5_000,
        initial_template=lambda ns: pod(ns, {"color": "blue"}),
    ),
    "anti-affinity": Workload(
        60,
        2_000,
        lambda ns: pod(ns, {"color": "green"}, affinity={"podAntiAffinity": {REQUIRED: [term("green", HOST)]}}),
        initial=1_000,
        initial_template=lambda ns: pod(
            ns, {"color": "green"}, affinity={"podAntiAffinity": {REQUIRED: [term("green", HOST)]}}
        ),
    ),
    "preferred-affinity": Workload(
        137,
        5_000,
        preferred("podAffinity", "red", HOST),
        initial=5_000,
        initial_template=lambda ns: pod(ns, {"color": "red"}),
    ),
    "spreading": Workload(
        195,
        5_000,
        lambda ns: pod(ns, {"color": "blue"}, topologySpreadConstraints=spread("DoNotSchedule")),
        initial=5_000,
        zones=("moon-1", "moon-2", "moon-3"),
    ),
    "preferred-spreading": Workload(
        186,
        5_000,
        lambda ns: pod(ns, {"color": "blue"}, topologySpreadConstraints=spread("ScheduleAnyway")),
        initial=5_000,
        zones=("moon-1", "moon-2", "moon-3"),
    ),
    "preemption": Workload(
        124,
        5_000,
        lambda ns: pod(ns, cpu="3000m", priorityClassName="high"),
        initial=20_000,
        initial_template=lambda ns: pod(ns, cpu="900m", terminationGracePeriodSeconds=0),
    ),
}


async def all_of(n: int, work: Callable[[int], Any], width: int = 16) -> None:
    numbers = iter(range(n))

    async def worker() -> None:
        for i in numbers:
            await work(i)

    await asyncio.gather(*(worker() for _ in range(width)))


def node(i: int, zones: tuple[str, ...]) -> Obj:
    amounts = {"cpu": "4", "memory": "32Gi", "pods": "110"}
    return {
        "metadata": {"name": f"node-{i}", "labels": {HOST: f"node-{i}", ZONE: zones[i % len(zones)]}},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


async def churn(cluster: Cluster) -> None:
    client = cluster.client
    large = pod("churn", cpu="9", memory="50Gi", priorityClassName="high")
    large["metadata"]["name"] = "large"
    service = {
        "metadata": {"name": "churn", "namespace": "churn"},
        "spec": {"selector": {"app": "foo"}, "ports": [{"port": 80}]},
    }
    things = ((resource("nodes"), node(10**6, ("zone1",))), (resource("services"), service), (resource("pods"), large))
    await client.create(resource("namespaces"), {"metadata": {"name": "churn"}})
    while True:
        for r, obj in things:
            await client.create(r, obj)
        await asyncio.sleep(1)
        for r, obj in things:
            name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace")
            await client.delete(r, namespace, name, grace_period_s=0)


async def run(name: str, w: Workload, nodes: int, scale: float) -> float:
    pods = resource("pods")
    async with Cluster(
        nodes=0,
        controllers=False,
        https=False,
    ) as cluster:
        client = cluster.client
        for namespace in ("sched-0", "sched-1"):
            await client.create(resource("namespaces"), {"metadata": {"name": namespace}})
        high = {"metadata": {"name": "high"}, "value": 1000}
        await client.create(resource("priorityclasses.scheduling.k8s.io"), high)
        await all_of(nodes, lambda i: client.create(resource("nodes"), node(i, w.zones)))
        assert cluster.scheduler is not None
        where = cluster.scheduler.snapshot.where

        async def scheduled(n: int) -> None:
            while len(where) < n or cluster.scheduler.assumed:  # type: ignore[union-attr]  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # outside of what is measured

        initial = int(w.initial * scale)
        await all_of(initial, lambda _: client.create(pods, w.initial_template("sched-0")))
        await scheduled(initial)
        gc.collect()
        gc.freeze()
        n = int(w.measured * scale)
        done = asyncio.Event()
        left = n

        def bound(_: Obj, new: Obj) -> None:
            nonlocal left
            if new["metadata"]["namespace"] == "sched-1" and new["spec"].get("nodeName"):
                left -= 1
                if not left:
                    done.set()

        informer = cluster.scheduler._factory.informer(pods, field_selector=LIVE)
        informer.add_handler(None, lambda old, new: None if old["spec"].get("nodeName") else bound(old, new))
        churning = asyncio.ensure_future(churn(cluster)) if w.churn else None
        started, cpu = time.perf_counter(), time.process_time()
        await all_of(n, lambda _: client.create(pods, w.template("sched-1")))
        created = time.perf_counter() - started
        await asyncio.wait_for(done.wait(), 120)
        if churning is not None:
            churning.cancel()
        took = time.perf_counter() - started
        rate = n / took
        busy = (time.process_time() - cpu) / took
        print(
            f"{name:<20} {n:>6} pods  {rate:8.0f}/s  created in {created:5.1f} s of {took:5.1f} s, busy {busy:4.0%}"
            f"  upstream {w.upstream}/s  {rate / w.upstream:5.1f}×",
            flush=True,
        )
        gc.unfreeze()
        return rate


LIVE = "status.phase!=Succeeded,status.phase!=Failed"


class Handle:
    """What plugins see when there is no cluster around them."""

    client = None

    def __init__(self) -> None:
        self.objects = ObjectStore()
        self.clock = RealClock()

    async def changed(self, kind: str) -> None:
        await self.objects.changed(kind)

    def waiting_pod(self, uid: str) -> None:
        return None

    def preemption_of(self, uid: str) -> None:
        return None


def run_core(name: str, w: Workload, nodes: int, scale: float) -> float:
    """Decisions alone: no API server, no queue, no bindings."""
    config = SchedulerConfig().profiles[0]
    profile = Profile(config.scheduler_name, config.plugins, Handle())
    snapshot, parser = Snapshot(), PodParser()
    algorithm = Algorithm(profile, snapshot)
    for i in range(nodes):
        snapshot.set_node(node(i, w.zones))
    numbers = itertools.count()

    def one(template: Callable[[str], Obj], namespace: str) -> None:
        obj = template(namespace)
        obj["metadata"] |= {"name": (n := f"pod-{next(numbers)}"), "uid": n}
        if "priorityClassName" in obj["spec"]:
            obj["spec"]["priority"] = 1000
        info = parser.parse(obj)
        try:
            decision = algorithm.schedule(info)
        except FitError as e:
            chosen, status = profile.post_filter[0].post_filter(e.cycle, e.diagnosis)
            if not chosen:
                raise RuntimeError(status.message) from e
            for victim in e.cycle.data["preemption"].victims:
                snapshot.remove_pod(victim.uid)
            decision = algorithm.schedule(info, nominated=chosen)
        snapshot.add_pod(replace(info, node=decision.node))

    for _ in range(int(w.initial * scale)):
        one(w.initial_template, "sched-0")
    n = int(w.measured * scale)
    started = time.perf_counter()
    for _ in range(n):
        one(w.template, "sched-1")
    rate = n / (time.perf_counter() - started)
    print(f"{name:<20} {n:>6} decisions  {rate:8.0f}/s", flush=True)
    return rate


async def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("workloads", nargs="*", default=[], choices=[[], *WORKLOADS])
    p.add_argument("--nodes", type=int, default=5000)
    p.add_argument("--scale", type=float, default=1.0, help="of the numbers of pods")
    p.add_argument("--core", action="store_true", help="decisions alone, without an API server")
    p.add_argument("--profile", help="write a cProfile of it")
    a = p.parse_args()
    profile = None
    if a.profile:
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
    for name in a.workloads or WORKLOADS:
        if a.core:
            run_core(name, WORKLOADS[name], a.nodes, a.scale)
        else:
            await run(name, WORKLOADS[name], a.nodes, a.scale)
    if profile is not None:
        profile.disable()
        profile.dump_stats(a.profile)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
