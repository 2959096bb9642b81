"""The scheduler as a component: elected, over the API, with kube-scheduler's own rights."""

from __future__ import annotations

from typing import Any

from berg.machinery.resources import resource
from berg.scheduler.config import SchedulerConfig
from berg.scheduler.framework.interface import Cycle, Permit, Reserve
from berg.scheduler.framework.status import Code, Status, unschedulable
from berg.scheduler.leader import ElectedScheduler
from berg.testing import Cluster

Obj = dict[str, Any]
PODS = resource("pods")


def pod(name: str) -> Obj:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def running(o: Obj) -> bool:
    return bool(o["status"].get("phase") == "Running")


async def test_acts_while_it_holds_the_lease() -> None:
    async with Cluster(scheduler=False, controllers=False, https=False) as cluster:
        lost: list[bool] = []
        scheduler = ElectedScheduler(
            cluster.client_as("system:kube-scheduler"), SchedulerConfig(), on_lost=lambda: lost.append(True)
        )
        await scheduler.start()
        try:
            await cluster.client.create(PODS, pod("a"))
            await cluster.until(PODS, "a", running)
            lease = await cluster.client.get(resource("leases.coordination.k8s.io"), "kube-system", "kube-scheduler")
            assert lease["spec"]["holderIdentity"]
        finally:
            await scheduler.stop()
        lease = await cluster.client.get(resource("leases.coordination.k8s.io"), "kube-system", "kube-scheduler")
        assert not lease["spec"].get("holderIdentity") and not lost


class Watchful(Permit, Reserve):
    """Holds a pod back once, and records what is undone."""

    name = "Watchful"
    undone: list[str] = []

    def permit(self, cycle: Cycle, node: str) -> tuple[Status | None, float]:
        if cycle.pod.name == "held":
            return Status(Code.WAIT), 30
        return (unschedulable("not today"), 0) if cycle.pod.name == "refused" else (None, 0)

    def reserve(self, cycle: Cycle, node: str) -> Status | None:
        return None

    def unreserve(self, cycle: Cycle, node: str) -> None:
        self.undone.append(cycle.pod.name)


async def test_permit_and_reserve() -> None:
    from berg.scheduler.config import parse

    Watchful.undone = []
    config = parse(
        {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "profiles": [{"plugins": {"multiPoint": {"enabled": [{"name": "Watchful"}]}}}],
        },
        {"Watchful": Watchful},
    )
    async with Cluster(scheduler=config, controllers=False, https=False) as cluster:
        client, scheduler = cluster.client, cluster.scheduler
        assert scheduler is not None
        await client.create(PODS, pod("refused"))

        def told(o: Obj) -> bool:
            return any(c.get("message") for c in o["status"].get("conditions") or () if c["type"] == "PodScheduled")

        found = await cluster.until(PODS, "refused", told)
        condition = next(c for c in found["status"]["conditions"] if c["type"] == "PodScheduled")
        assert (condition["reason"], condition["message"]) == (
            "Unschedulable",
            "0/1 nodes are available: 1 not today.",
        )
        assert Watchful.undone == ["refused"]
        held = await client.create(PODS, pod("held"))
        uid = held["metadata"]["uid"]

        async def waiting() -> Any:
            return scheduler.waiting_pod(uid)

        (await cluster.eventually(waiting)).allow("Watchful")
        await cluster.until(PODS, "held", running)


async def test_pods_of_other_schedulers_are_left_alone() -> None:
    async with Cluster(controllers=False, https=False) as cluster:
        other = pod("other")
        other["spec"]["schedulerName"] = "mine"
        await cluster.client.create(PODS, other)
        await cluster.client.create(PODS, pod("ours"))
        await cluster.until(PODS, "ours", running)
        found = await cluster.client.get(PODS, "default", "other")
        assert not found["spec"].get("nodeName") and not found["status"].get("conditions")
