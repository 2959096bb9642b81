from typing import Any

from controllers_world import World, template

from berg.controllers.daemonset import node_of


def daemonset(image: str = "a:1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "ds"},
        "spec": {
            "selector": {"matchLabels": {"d": "s"}},
            "template": template({"d": "s"}, image),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            **spec,
        },
    }


def node(name: str, taints: list[dict[str, str]] | None = None, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints} if taints else {}}


async def run(world: World) -> None:
    """Pods go where they are meant to, and become ready."""
    for _ in range(10):
        for p in world.pods():
            if not p["spec"].get("nodeName"):
                world.change("pods", p["metadata"]["name"], {"spec": {"nodeName": node_of(p)}})
        await world.settle()
        await world.run_pods()


def on(world: World) -> dict[str, str]:
    return {
        node_of(p): p["spec"]["containers"][0]["image"]
        for p in world.pods()
        if "deletionTimestamp" not in p["metadata"]
    }


async def test_one_pod_on_every_node_that_fits(world: World):
    world.create("nodes", node("n1"))
    world.create("nodes", node("n2"))
    world.create("nodes", node("master", [{"key": "cp", "effect": "NoSchedule"}]))
    world.create("nodes", node("drained", [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]))
    world.create("daemonsets.apps", daemonset())
    await world.run("daemonset-controller")
    await run(world)
    assert set(on(world)) == {"n1", "n2", "drained"}
    world.create("nodes", node("n3"))
    await world.settle()
    await run(world)
    assert set(on(world)) == {"n1", "n2", "n3", "drained"}
    status = world.get("daemonsets.apps", "ds")["status"]
    assert status == {
        "currentNumberScheduled": 4,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 4,
        "numberReady": 4,
        "observedGeneration": 1,
        "updatedNumberScheduled": 4,
        "numberAvailable": 4,
    }
    keys = {t["key"] for t in world.pods()[0]["spec"]["tolerations"]}
    assert "node.kubernetes.io/not-ready" in keys


async def test_the_node_selector_counts(world: World):
    world.create("nodes", node("n1", disk="ssd"))
    world.create("nodes", node("n2"))
    ds = daemonset()
    ds["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    world.create("daemonsets.apps", ds)
    await world.run("daemonset-controller")
    await run(world)
    assert set(on(world)) == {"n1"}
    world.change("nodes", "n1", {"metadata": {"labels": {"disk": "hdd"}}}, None)
    world.change("nodes", "n2", {"metadata": {"labels": {"disk": "ssd"}}}, None)
    await world.settle()
    await run(world)
    assert set(on(world)) == {"n2"}


async def test_a_rolling_update_takes_one_node_at_a_time(world: World):
    for i in range(3):
        world.create("nodes", node(f"n{i}"))
    world.create("daemonsets.apps", daemonset())
    await world.run("daemonset-controller")
    await run(world)
    world.change("daemonsets.apps", "ds", {"spec": {"template": template({"d": "s"}, "a:2")}})
    await world.settle()
    going = world.pods(lambda p: "deletionTimestamp" in p["metadata"])
    assert len(going) == 1
    await run(world)
    assert on(world) == {"n0": "a:2", "n1": "a:2", "n2": "a:2"}
    revisions = world.all("controllerrevisions.apps")
    assert sorted(r["revision"] for r in revisions) == [1, 2]


async def test_with_surge_the_new_pod_comes_first(world: World):
    for i in range(2):
        world.create("nodes", node(f"n{i}"))
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    world.create("daemonsets.apps", daemonset(updateStrategy=strategy))
    await world.run("daemonset-controller")
    await run(world)
    world.change("daemonsets.apps", "ds", {"spec": {"template": template({"d": "s"}, "a:2")}})
    await world.settle()
    assert len(world.pods()) == 3
    assert not world.pods(lambda p: "deletionTimestamp" in p["metadata"])
    await run(world)
    assert on(world) == {"n0": "a:2", "n1": "a:2"}
    assert len(world.pods()) == 2


async def test_a_failed_pod_is_replaced_with_delay(world: World):
    world.create("nodes", node("n1"))
    world.create("daemonsets.apps", daemonset())
    await world.run("daemonset-controller")
    await run(world)
    first = world.pods()[0]["metadata"]["name"]
    world.set_pod(first, "Failed")
    await world.settle()
    await run(world)
    assert [p["metadata"]["name"] for p in world.pods()] != [first]
    text = f"Found failed daemon pod default/{first} on node n1, will try to kill it"
    assert world.events("FailedDaemonPod") == [text]
