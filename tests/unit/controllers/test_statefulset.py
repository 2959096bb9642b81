from typing import Any

from controllers_world import World, template


def statefulset(replicas: int = 3, image: str = "a:1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "db"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": template({"app": "db"}, image),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "podManagementPolicy": "OrderedReady",
            **spec,
        },
    }


def names(world: World) -> list[str]:
    return sorted(p["metadata"]["name"] for p in world.pods() if "deletionTimestamp" not in p["metadata"])


def images(world: World) -> dict[str, str]:
    return {p["metadata"]["name"]: p["spec"]["containers"][0]["image"] for p in world.pods()}


async def test_one_after_the_other(world: World):
    world.create("statefulsets.apps", statefulset())
    await world.run("statefulset-controller")
    assert names(world) == ["db-0"]
    pod = world.get("pods", "db-0")
    revision = world.all("controllerrevisions.apps")[0]["metadata"]["name"]
    assert pod["metadata"]["labels"] == {
        "app": "db",
        "statefulset.kubernetes.io/pod-name": "db-0",
        "apps.kubernetes.io/pod-index": "0",
        "controller-revision-hash": revision,
    }
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-0", "db")
    world.set_pod("db-0", ready=False)
    await world.settle()
    assert names(world) == ["db-0"]
    world.set_pod("db-0")
    await world.settle()
    assert names(world) == ["db-0", "db-1"]
    await world.run_pods()
    assert names(world) == ["db-0", "db-1", "db-2"]
    status = world.get("statefulsets.apps", "db")["status"]
    assert status == {
        "observedGeneration": 1,
        "replicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "currentReplicas": 3,
        "updatedReplicas": 3,
        "currentRevision": revision,
        "updateRevision": revision,
        "collisionCount": 0,
    }
    assert world.events("SuccessfulCreate")[0] == "Create Pod db-0 in StatefulSet db successful"


async def test_scaling_down_takes_the_last_first(world: World):
    world.create("statefulsets.apps", statefulset())
    await world.run("statefulset-controller")
    for p in ("db-0", "db-1", "db-2"):
        await world.settle()
        world.change("pods", p, {"spec": {"nodeName": "n"}})
        world.set_pod(p)
    await world.settle()
    world.change("statefulsets.apps", "db", {"spec": {"replicas": 1}})
    await world.settle()
    assert names(world) == ["db-0", "db-1"]
    world.delete("pods", "db-2")
    await world.settle()
    assert names(world) == ["db-0"]


async def test_parallel_does_all_at_once(world: World):
    world.create("statefulsets.apps", statefulset(podManagementPolicy="Parallel", ordinals={"start": 5}))
    await world.run("statefulset-controller")
    assert names(world) == ["db-5", "db-6", "db-7"]


async def test_an_update_goes_from_the_highest_down_to_the_partition(world: World):
    world.create("statefulsets.apps", statefulset())
    await world.run("statefulset-controller")
    await world.run_pods()
    old = world.get("statefulsets.apps", "db")["status"]["currentRevision"]
    strategy = {"rollingUpdate": {"partition": 2}}
    world.change(
        "statefulsets.apps", "db", {"spec": {"updateStrategy": strategy, "template": template({"app": "db"}, "a:2")}}
    )
    await world.settle()
    await world.run_pods()
    assert images(world) == {"db-0": "a:1", "db-1": "a:1", "db-2": "a:2"}
    status = world.get("statefulsets.apps", "db")["status"]
    assert (status["currentRevision"], status["currentReplicas"], status["updatedReplicas"]) == (old, 2, 1)
    world.delete("pods", "db-0")
    await world.settle()
    await world.run_pods()
    assert images(world)["db-0"] == "a:1"
    world.change("statefulsets.apps", "db", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
    await world.settle()
    await world.run_pods()
    assert set(images(world).values()) == {"a:2"}
    status = world.get("statefulsets.apps", "db")["status"]
    assert status["currentRevision"] == status["updateRevision"] != old


async def test_claims_are_made_and_outlive_the_set_unless_told_otherwise(world: World):
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    world.create("statefulsets.apps", statefulset(2, volumeClaimTemplates=[claim]))
    await world.run("statefulset-controller")
    await world.run_pods()
    assert sorted(c["metadata"]["name"] for c in world.all("persistentvolumeclaims")) == ["data-db-0", "data-db-1"]
    pod = world.get("pods", "db-1")
    assert pod["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}]
    pvc = world.get("persistentvolumeclaims", "data-db-1")
    assert pvc["metadata"]["labels"] == {"app": "db"}
    assert "ownerReferences" not in pvc["metadata"]
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    world.change("statefulsets.apps", "db", {"spec": {"persistentVolumeClaimRetentionPolicy": policy}})
    await world.settle()
    owners = world.get("persistentvolumeclaims", "data-db-1")["metadata"]["ownerReferences"]
    assert [o["kind"] for o in owners] == ["StatefulSet"]
    for p in ("db-0", "db-1"):
        world.change("pods", p, {"spec": {"nodeName": "n"}})
    world.change("statefulsets.apps", "db", {"spec": {"replicas": 1}})
    await world.settle()
    owners = world.get("persistentvolumeclaims", "data-db-1")["metadata"]["ownerReferences"]
    assert [o["kind"] for o in owners] == ["Pod"]


async def test_a_failed_pod_is_made_again_under_its_name(world: World):
    world.create("statefulsets.apps", statefulset(1))
    await world.run("statefulset-controller")
    uid = world.get("pods", "db-0")["metadata"]["uid"]
    world.set_pod("db-0", "Failed")
    await world.settle()
    assert world.get("pods", "db-0")["metadata"]["uid"] != uid
