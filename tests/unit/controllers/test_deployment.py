from typing import Any

from controllers_world import World, template

BOTH = ("deployment-controller", "replicaset-controller")


def deployment(replicas: int = 3, image: str = "nginx:1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template({"app": "web"}, image),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            **spec,
        },
    }


def image(text: str) -> dict[str, Any]:
    return {"spec": {"template": template({"app": "web"}, text)}}


def conditions(d: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in d["status"]["conditions"]}


async def test_a_deployment_becomes_a_set_and_its_pods(world: World):
    world.create("deployments.apps", deployment())
    await world.run(*BOTH)
    await world.run_pods()
    (rs,) = world.all("replicasets.apps")
    hash = rs["metadata"]["labels"]["pod-template-hash"]
    assert rs["metadata"]["name"] == f"web-{hash}"
    assert rs["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": hash}
    assert rs["metadata"]["annotations"] == {
        "deployment.kubernetes.io/revision": "1",
        "deployment.kubernetes.io/desired-replicas": "3",
        "deployment.kubernetes.io/max-replicas": "4",
    }
    pods = world.pods()
    assert len(pods) == 3
    assert all(p["metadata"]["labels"]["pod-template-hash"] == hash for p in pods)
    assert pods[0]["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": rs["metadata"]["name"],
            "uid": rs["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    d = world.get("deployments.apps", "web")
    status = {k: v for k, v in d["status"].items() if k != "conditions"}
    assert status == {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "terminatingReplicas": 0,
    }
    assert conditions(d) == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    assert d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert world.events("ScalingReplicaSet") == [f"Scaled up replica set web-{hash} from 0 to 3"]
    assert len(world.events("SuccessfulCreate")) == 3


async def test_a_rolling_update_keeps_its_promises_and_can_be_undone(world: World):
    world.create("deployments.apps", deployment(4))
    await world.run(*BOTH)
    await world.run_pods()
    world.change("deployments.apps", "web", image("nginx:2"))
    for _ in range(30):
        await world.settle()
        pods = [p for p in world.pods() if not p["metadata"].get("deletionTimestamp")]
        assert len(pods) <= 5
        assert sum(p["status"]["phase"] == "Running" for p in pods) >= 3
        pending = [p for p in pods if p["status"]["phase"] == "Pending"]
        gone = [p for p in world.pods() if p["metadata"].get("deletionTimestamp")]
        if not pending and not gone:
            break
        for p in gone:
            world.delete("pods", p["metadata"]["name"])
        if pending:
            world.set_pod(pending[0]["metadata"]["name"])
    assert {p["spec"]["containers"][0]["image"] for p in world.pods()} == {"nginx:2"}
    d = world.get("deployments.apps", "web")
    assert d["status"]["updatedReplicas"] == d["status"]["availableReplicas"] == 4
    assert d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    assert sorted(rs["spec"]["replicas"] for rs in world.all("replicasets.apps")) == [0, 4]

    world.change("deployments.apps", "web", image("nginx:1"))
    await world.settle()
    await world.run_pods()
    sets = {rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs for rs in world.all("replicasets.apps")}
    assert len(sets) == 2
    assert sets["nginx:1"]["spec"]["replicas"] == 4
    annotations = sets["nginx:1"]["metadata"]["annotations"]
    assert annotations["deployment.kubernetes.io/revision"] == "3"
    assert annotations["deployment.kubernetes.io/revision-history"] == "1"


async def test_scaling_in_the_middle_of_a_rollout_is_proportional(world: World):
    world.create("deployments.apps", deployment(10, strategy=rolling(3, 2)))
    await world.run(*BOTH)
    await world.run_pods()
    world.change("deployments.apps", "web", image("broken"))
    await world.settle()
    await world.settle()
    assert sizes(world) == {"nginx:1": 8, "broken": 5}
    world.change("deployments.apps", "web", {"spec": {"replicas": 15}})
    await world.settle()
    await world.settle()
    assert sizes(world) == {"nginx:1": 11, "broken": 7}


def rolling(surge: int, unavailable: int) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


def sizes(world: World) -> dict[str, int]:
    return {
        rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["spec"]["replicas"]
        for rs in world.all("replicasets.apps")
    }


async def test_recreate_waits_until_the_old_pods_are_gone(world: World):
    world.create("deployments.apps", deployment(2, strategy={"type": "Recreate"}))
    await world.run(*BOTH)
    for p in world.pods():
        world.change("pods", p["metadata"]["name"], {"spec": {"nodeName": "n"}})
    await world.run_pods()
    world.change("deployments.apps", "web", image("nginx:2"))
    await world.settle()
    assert sizes(world) == {"nginx:1": 0}
    assert len(world.pods(lambda p: "deletionTimestamp" in p["metadata"])) == 2
    await world.run_pods()
    assert sizes(world) == {"nginx:1": 0, "nginx:2": 2}


async def test_no_progress_for_too_long_is_said(world: World):
    world.create("deployments.apps", deployment(1, progressDeadlineSeconds=10))
    await world.run(*BOTH)
    await world.clock.advance(12)
    await world.settle()
    d = world.get("deployments.apps", "web")
    assert conditions(d)["Progressing"] == ("False", "ProgressDeadlineExceeded")
    rs = world.all("replicasets.apps")[0]["metadata"]["name"]
    progressing = next(c for c in d["status"]["conditions"] if c["type"] == "Progressing")
    assert progressing["message"] == f'ReplicaSet "{rs}" has timed out progressing.'


async def test_paused_means_no_rollout_but_scaling(world: World):
    world.create("deployments.apps", deployment(2))
    await world.run(*BOTH)
    await world.run_pods()
    world.change("deployments.apps", "web", {"spec": {"paused": True, **image("nginx:2")["spec"]}})
    await world.settle()
    assert sizes(world) == {"nginx:1": 2}
    world.change("deployments.apps", "web", {"spec": {"replicas": 5}})
    await world.settle()
    assert sizes(world) == {"nginx:1": 5}
    assert conditions(world.get("deployments.apps", "web"))["Progressing"] == ("Unknown", "DeploymentPaused")


async def test_old_sets_beyond_the_limit_go(world: World):
    world.create("deployments.apps", deployment(1, revisionHistoryLimit=1))
    await world.run(*BOTH)
    await world.run_pods()
    for i in range(2, 5):
        world.change("deployments.apps", "web", image(f"nginx:{i}"))
        await world.settle()
        await world.run_pods()
        await world.settle()
    assert set(sizes(world)) == {"nginx:3", "nginx:4"}
