"""Controllers may run twice, may be cut off, may be killed: what they make must come out right all the same."""

import random
from typing import Any

import pytest
from controllers_world import World, template

from berg.client.rest import Client
from berg.controllers.config import Config
from berg.controllers.daemonset import node_of
from berg.controllers.manager import ControllerManager
from berg.machinery import status

WORKLOADS = (
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "endpoints-controller",
    "endpointslice-controller",
)


def create(world: World) -> None:
    for i in range(3):
        world.create("nodes", {"metadata": {"name": f"n{i}"}, "spec": {}})

    def selector(name: str) -> dict[str, Any]:
        return {"selector": {"matchLabels": {"app": name}}, "template": template({"app": name})}

    rolling = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
    world.create(
        "deployments.apps", {"metadata": {"name": "web"}, "spec": {"replicas": 3, **rolling, **selector("web")}}
    )
    world.create(
        "statefulsets.apps",
        {"metadata": {"name": "db"}, "spec": {"replicas": 2, "serviceName": "db", **selector("db")}},
    )
    world.create("daemonsets.apps", {"metadata": {"name": "agent"}, "spec": selector("agent")})
    job = {"completions": 4, "parallelism": 2, "backoffLimit": 6, "completionMode": "Indexed", **selector("job")}
    world.create("jobs.batch", {"metadata": {"name": "job"}, "spec": job})
    service = {"selector": {"app": "web"}, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]}
    world.create("services", {"metadata": {"name": "web"}, "spec": service})


async def live(world: World, rounds: int) -> None:
    """Nodes do their work while time passes."""
    for _ in range(rounds):
        for pod in world.pods():
            name = pod["metadata"]["name"]
            if pod["metadata"].get("deletionTimestamp"):
                if not pod["metadata"].get("finalizers"):
                    world.delete("pods", name)
            elif not pod["spec"].get("nodeName"):
                world.change("pods", name, {"spec": {"nodeName": node_of(pod) or "n0"}})
            elif pod["status"]["phase"] == "Pending":
                world.set_pod(name, podIPs=[{"ip": f"10.1.0.{len(name) % 200}"}])
            elif pod["metadata"]["labels"]["app"] == "job" and pod["status"]["phase"] == "Running":
                world.set_pod(name, "Succeeded")
        await world.settle(100)
        await world.clock.advance(2)


def outcome(world: World) -> dict[str, Any]:
    alive = [p for p in world.pods() if "deletionTimestamp" not in p["metadata"] and p["status"]["phase"] == "Running"]
    counts: dict[str, int] = {}
    for p in alive:
        app = p["metadata"]["labels"]["app"]
        counts[app] = counts.get(app, 0) + 1
    web = sorted(p["metadata"]["name"] for p in alive if p["metadata"]["labels"]["app"] == "web")
    job = world.get("jobs.batch", "job")["status"]
    slices = world.all("endpointslices.discovery.k8s.io")
    return {
        "pods": counts,
        "sets": len(world.all("replicasets.apps")),
        "job": (job.get("completedIndexes"), job.get("succeeded"), job.get("failed"), job["conditions"][-1]["type"]),
        "endpoints": sorted(e["targetRef"]["name"] for s in slices for e in s["endpoints"]) == web,
        "ready": world.get("deployments.apps", "web")["status"].get("readyReplicas"),
    }


EXPECTED = {
    "pods": {"web": 3, "db": 2, "agent": 3},
    "sets": 1,
    "job": ("0-3", 4, None, "Complete"),
    "endpoints": True,
    "ready": 3,
}


async def test_two_managers_at_once(world: World):
    create(world)
    await world.run(*WORKLOADS)
    other = ControllerManager(
        Client(world.api, clock=world.clock), Config(controllers=list(WORKLOADS)), clock=world.clock
    )
    await other.start()
    await live(world, 20)
    await other.stop()
    assert outcome(world) == EXPECTED


@pytest.mark.parametrize("seed", range(5))
async def test_an_api_server_that_often_fails(world: World, seed: int):
    dice = random.Random(seed)

    def hook(method: str, path: str, doc: Any) -> Any:
        if method != "GET" and not path.endswith("/events") and dice.random() < 0.3:
            return dice.choice(
                [
                    status.internal_error("etcd is slow"),
                    status.conflict("", "x", "y", "changed"),
                    status.service_unavailable("no"),
                ]
            )
        return None

    world.api.answer_hook = hook
    create(world)
    await world.run(*WORKLOADS)
    await live(world, 60)
    world.api.answer_hook = None
    await live(world, 20)
    assert outcome(world) == EXPECTED


@pytest.mark.parametrize("seed", range(5))
async def test_killed_again_and_again(world: World, seed: int):
    """Stopped in the middle of what it does, a fresh one goes on from the objects alone."""
    dice = random.Random(seed)
    create(world)
    await world.run(*WORKLOADS)
    for _ in range(12):
        await live(world, 1)
        for _ in range(dice.randint(0, 40)):
            await world.clock.sleep(0)
        assert world.manager is not None
        await world.manager.stop()
        world.manager = ControllerManager(world.client, world.config, clock=world.clock)
        await world.manager.start()
    await live(world, 20)
    assert outcome(world) == EXPECTED
