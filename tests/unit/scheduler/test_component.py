"""The scheduler as a component: elected, over the API, with kube-scheduler's own rights."""

from __future__ import annotations

from typing import Any

from berg.machinery.clock import FakeClock
from berg.machinery.resources import resource
from berg.scheduler.config import SchedulerConfig, parse
from berg.scheduler.framework.interface import Bind, Cycle, Permit, Reserve
from berg.scheduler.framework.status import SKIP, Code, Status, error, unschedulable
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


class Flaky(Bind):
    """Fails the first time."""

    name = "Flaky"
    tries = 0

    async def bind(self, cycle: Cycle, node: str) -> Status | None:
        type(self).tries += 1
        return error("boom") if self.tries == 1 else SKIP


async def test_a_failed_binding_is_undone_and_tried_again() -> None:
    config = parse(
        {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "profiles": [{"plugins": {"bind": {"enabled": [{"name": "Flaky"}]}}}],
        },
        {"Flaky": Flaky},
    )
    # Flaky goes before DefaultBinder
    points = config.profiles[0].plugins.points
    points["bind"] = [("Flaky", 0), ("DefaultBinder", 0)]
    clock = FakeClock()
    async with Cluster(scheduler=config, controllers=False, https=False, clock=clock) as cluster:
        await cluster.client.create(PODS, pod("a"))

        def refused(o: Obj) -> bool:
            return any(c.get("reason") == "SchedulerError" for c in o["status"].get("conditions") or ())

        found = await cluster.until(PODS, "a", refused)
        message = next(c["message"] for c in found["status"]["conditions"] if c["type"] == "PodScheduled")
        assert message == 'running Bind plugin "Flaky": boom'
        scheduler = cluster.scheduler
        assert scheduler is not None
        assert not scheduler.assumed and not scheduler.snapshot.where
        await clock.advance(2)
        await cluster.until(PODS, "a", running)
        assert not scheduler.assumed and len(scheduler.snapshot.where) == 1 and not len(scheduler.queue)


async def test_a_pod_deleted_before_it_is_bound_leaves_nothing() -> None:
    async with Cluster(nodes=0, controllers=False, https=False) as cluster:
        scheduler = cluster.scheduler
        assert scheduler is not None
        await cluster.client.create(PODS, pod("a"))

        async def queued() -> bool:
            return len(scheduler.queue) == 1

        async def empty() -> bool:
            return len(scheduler.queue) == 0

        await cluster.eventually(queued)
        await cluster.client.delete(PODS, "default", "a", grace_period_s=0)
        await cluster.eventually(empty)
        assert not scheduler.snapshot.where and not scheduler.assumed
