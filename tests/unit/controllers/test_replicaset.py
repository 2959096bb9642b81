from typing import Any

from controllers_world import World, template

from berg.machinery import status


def replicaset(replicas: int) -> dict[str, Any]:
    return {
        "metadata": {"name": "rs"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "x"}},
            "template": template({"app": "x"}),
        },
    }


async def test_nothing_is_created_twice_while_the_informer_is_behind(world: World):
    world.create("replicasets.apps", replicaset(5))
    await world.run("replicaset-controller")
    for _ in range(5):
        world.change("replicasets.apps", "rs", {"metadata": {"annotations": {"touched": str(_)}}})
    await world.settle()
    assert len(world.pods()) == 5
    creates = [p for verb, p in world.api.log if verb == "POST" and p.endswith("/pods")]
    assert len(creates) == 5


async def test_orphans_that_match_are_adopted_and_strangers_released(world: World):
    world.create("replicasets.apps", replicaset(1))
    orphan = {"metadata": {"name": "orphan", "labels": {"app": "x"}}, "spec": {}, "status": {"phase": "Running"}}
    world.create("pods", orphan)
    await world.run("replicaset-controller")
    assert [p["metadata"]["name"] for p in world.pods()] == ["orphan"]
    assert world.get("pods", "orphan")["metadata"]["ownerReferences"][0]["name"] == "rs"
    world.change("pods", "orphan", {"metadata": {"labels": {"app": "y"}}})
    await world.settle()
    assert world.get("pods", "orphan")["metadata"]["ownerReferences"] == []
    assert len(world.pods()) == 2


async def test_a_failure_to_create_is_a_condition_and_is_not_hammered(world: World):
    world.create("replicasets.apps", replicaset(100))
    refused: list[str] = []

    def hook(method: str, path: str, doc: Any) -> Any:
        if method == "POST" and path.endswith("/pods"):
            refused.append(path)
            return status.forbidden("", "pods", "rs-x", "exceeded quota")
        return None

    world.api.answer_hook = hook
    await world.run("replicaset-controller")
    assert 0 < len(refused) < 12
    (c,) = world.get("replicasets.apps", "rs")["status"]["conditions"]
    assert (c["type"], c["status"], c["reason"]) == ("ReplicaFailure", "True", "FailedCreate")
    assert c["message"] == 'pods "rs-x" is forbidden: exceeded quota'
    world.api.answer_hook = None
    await world.clock.advance(60)
    await world.settle()
    assert len(world.pods()) == 100
    assert "conditions" not in world.get("replicasets.apps", "rs")["status"]


async def test_the_least_useful_pods_go_first(world: World):
    world.create("replicasets.apps", replicaset(4))
    await world.run("replicaset-controller")
    names = [p["metadata"]["name"] for p in world.pods()]
    for n in names:
        world.change("pods", n, {"spec": {"nodeName": "n1"}})
        world.set_pod(n)
    world.set_pod(names[2], ready=False)
    world.change("pods", names[1], {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}})
    await world.settle()
    world.change("replicasets.apps", "rs", {"spec": {"replicas": 2}})
    await world.settle()
    gone = {p["metadata"]["name"] for p in world.pods() if "deletionTimestamp" in p["metadata"]}
    assert gone == {names[1], names[2]}


async def test_available_after_min_ready_seconds(world: World):
    rs = replicaset(1)
    rs["spec"]["minReadySeconds"] = 30
    world.create("replicasets.apps", rs)
    await world.run("replicaset-controller")
    await world.run_pods()
    assert "availableReplicas" not in world.get("replicasets.apps", "rs")["status"]
    await world.clock.advance(31)
    await world.settle()
    assert world.get("replicasets.apps", "rs")["status"]["availableReplicas"] == 1


async def test_a_replication_controller_does_the_same(world: World):
    world.create(
        "replicationcontrollers",
        {"metadata": {"name": "rc"}, "spec": {"replicas": 2, "selector": {"a": "b"}, "template": template({"a": "b"})}},
    )
    await world.run("replicationcontroller-controller")
    await world.run_pods()
    assert world.get("replicationcontrollers", "rc")["status"]["readyReplicas"] == 2
    assert world.pods()[0]["metadata"]["ownerReferences"][0]["kind"] == "ReplicationController"
