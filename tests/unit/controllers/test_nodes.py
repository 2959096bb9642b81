from typing import Any

from controllers_world import World

from berg.controllers.nodeipam import CIDRSet
from berg.controllers.tainteviction import patience
from berg.machinery.clock import rfc3339, rfc3339_micro
from berg.machinery.status import ApiError


def node(world: World, name: str, **labels: str) -> None:
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": rfc3339(world.clock.now())}
    world.create("nodes", {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {"conditions": [ready]}})


def renew(world: World, name: str) -> None:
    spec = {"holderIdentity": name, "renewTime": rfc3339_micro(world.clock.now())}
    world.create(
        "leases.coordination.k8s.io", {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec}
    )


def taints(world: World, name: str) -> list[tuple[str, str]]:
    return [
        (t["key"].partition("/")[2], t["effect"]) for t in world.get("nodes", name, None)["spec"].get("taints") or []
    ]


async def test_a_silent_node_is_unknown_tainted_and_its_pods_are_not_ready(world: World):
    for n in ("n1", "n2"):
        node(world, n)
        renew(world, n)
    world.create("pods", {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}})
    world.set_pod("p")
    await world.run("node-lifecycle-controller", "taint-eviction-controller")
    for _ in range(6):
        await world.clock.advance(10)
        renew(world, "n2")
        await world.settle()
    conditions = {c["type"]: c for c in world.get("nodes", "n1", None)["status"]["conditions"]}
    assert {t: c["status"] for t, c in conditions.items()} == {
        "Ready": "Unknown",
        "MemoryPressure": "Unknown",
        "DiskPressure": "Unknown",
        "PIDPressure": "Unknown",
    }
    assert conditions["Ready"]["reason"] == "NodeStatusUnknown"
    assert conditions["Ready"]["message"] == "Kubelet stopped posting node status."
    assert conditions["MemoryPressure"]["reason"] == "NodeStatusNeverUpdated"
    assert sorted(taints(world, "n1")) == [("unreachable", "NoExecute"), ("unreachable", "NoSchedule")]
    assert taints(world, "n2") == []
    assert world.manager is not None
    assert 'node_collector_evictions_total{zone=""} 1' in world.manager.metrics.text()
    assert world.events("NodeNotReady") == ["Node n1 status is now: NodeNotReady", "Node is not ready"]
    # It has no toleration, so it is evicted at once.
    assert world.get("pods", "p")["metadata"]["deletionTimestamp"]
    (c,) = [c for c in world.get("pods", "p")["status"]["conditions"] if c["type"] == "DisruptionTarget"]
    assert (c["reason"], c["message"]) == ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")


async def test_when_all_are_silent_no_one_is_evicted(world: World):
    node(world, "n1")
    await world.run("node-lifecycle-controller")
    await world.clock.advance(70)
    await world.settle()
    assert taints(world, "n1") == [("unreachable", "NoSchedule")]
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": rfc3339(world.clock.now())}
    world.change("nodes", "n1", {"status": {"conditions": [ready]}}, None)
    await world.settle()
    assert taints(world, "n1") == []


async def test_conditions_and_cordon_are_taints(world: World):
    node(world, "n1")
    await world.run("node-lifecycle-controller")
    now = rfc3339(world.clock.now())
    conditions = [
        {"type": "Ready", "status": "True", "lastHeartbeatTime": now},
        {"type": "DiskPressure", "status": "True"},
    ]
    world.change("nodes", "n1", {"spec": {"unschedulable": True}, "status": {"conditions": conditions}}, None)
    await world.settle()
    assert taints(world, "n1") == [("disk-pressure", "NoSchedule"), ("unschedulable", "NoSchedule")]


async def test_a_toleration_for_a_while(world: World):
    taint = {"key": "x", "effect": "NoExecute"}
    world.create("nodes", {"metadata": {"name": "n1"}, "spec": {"taints": [taint]}})
    toleration = {"key": "x", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    world.create("pods", {"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "tolerations": [toleration]}})
    await world.run("taint-eviction-controller")
    await world.clock.advance(290)
    assert "deletionTimestamp" not in world.get("pods", "p")["metadata"]
    world.change("nodes", "n1", {"spec": {"taints": []}}, None)
    await world.settle()
    world.change("nodes", "n1", {"spec": {"taints": [taint]}}, None)
    await world.settle()
    await world.clock.advance(290)
    assert "deletionTimestamp" not in world.get("pods", "p")["metadata"]
    await world.clock.advance(15)
    await world.settle()
    assert world.get("pods", "p")["metadata"]["deletionTimestamp"]
    assert world.events("TaintManagerEviction") == [
        "Cancelling deletion of Pod default/p",
        "Marking for deletion Pod default/p",
    ]


def test_patience():
    taint = {"key": "k", "value": "v", "effect": "NoExecute"}

    def with_(*tolerations: dict[str, Any]) -> float | None:
        return patience({"spec": {"tolerations": list(tolerations)}}, [taint])

    assert with_() == 0
    assert with_({"operator": "Exists"}) is None
    assert with_({"key": "k", "value": "v"}) is None
    assert with_({"key": "k", "value": "w"}) == 0
    assert with_({"key": "k", "operator": "Exists", "effect": "NoSchedule"}) == 0
    assert with_({"key": "k", "operator": "Exists", "tolerationSeconds": 5}, {"operator": "Exists"}) == 5


async def test_every_node_gets_a_range_of_its_own(world: World):
    world.config.cluster_cidr = "10.244.0.0/22,fd00::/48"
    world.create(
        "nodes", {"metadata": {"name": "old"}, "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}}
    )
    for n in ("a", "b", "c"):
        world.create("nodes", {"metadata": {"name": n}, "spec": {}})
    await world.run("node-ipam-controller")
    cidrs = {n["metadata"]["name"]: n["spec"].get("podCIDRs") for n in world.all("nodes")}
    assert cidrs == {
        "old": ["10.244.0.0/24"],
        "a": ["10.244.1.0/24", "fd00::/64"],
        "b": ["10.244.2.0/24", "fd00:0:0:1::/64"],
        "c": ["10.244.3.0/24", "fd00:0:0:2::/64"],
    }
    world.create("nodes", {"metadata": {"name": "d"}, "spec": {}})
    await world.settle()
    assert world.events("CIDRNotAvailable")[0] == "Node d status is now: CIDRNotAvailable"
    world.delete("nodes", "b", None)
    await world.clock.advance(5)
    await world.settle()
    assert world.get("nodes", "d", None)["spec"]["podCIDR"] == "10.244.2.0/24"


async def test_a_refused_write_costs_no_range(world: World):
    """A node's object changes a lot while it registers: the first node still has the first range."""
    world.config.cluster_cidr = "10.244.0.0/16"
    refused: list[str] = []

    def api(method: str, path: str, doc: Any) -> ApiError | None:
        if method != "PATCH" or len(refused) == 2:
            return None
        refused.append(path)
        return ApiError(409, "Conflict", "the object has been modified")

    world.api.answer_hook = api
    await world.run("node-ipam-controller")
    world.create("nodes", {"metadata": {"name": "a"}, "spec": {}})
    await world.settle()
    assert len(refused) == 2
    assert world.get("nodes", "a", None)["spec"]["podCIDRs"] == ["10.244.0.0/24"]


def test_ranges_are_found_again():
    from ipaddress import ip_network

    s = CIDRSet(ip_network("10.0.0.0/16"), 24)
    assert s.occupy("10.0.0.0/23")
    assert not s.occupy("192.168.0.0/24")
    assert s.allocate() == "10.0.2.0/24"
    s.release("10.0.1.0/24")
    assert [s.allocate() for _ in range(254)].count("10.0.1.0/24") == 1
    assert s.allocate() is None


async def test_pods_of_a_node_that_is_gone_are_deleted(world: World):
    world.create("nodes", {"metadata": {"name": "n1"}, "spec": {}})
    world.create("pods", {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}})
    await world.run("pod-garbage-collector-controller")
    world.delete("nodes", "n1", None)
    await world.clock.advance(35)
    assert world.pods()
    await world.clock.advance(10)
    await world.settle()
    assert not world.pods()


async def test_finished_pods_beyond_the_threshold_go_oldest_first(world: World):
    world.config.terminated_pod_gc_threshold = 2
    for i in range(4):
        world.create("pods", {"metadata": {"name": f"p{i}"}, "spec": {}, "status": {"phase": "Succeeded"}})
        await world.clock.advance(1)
    await world.run("pod-garbage-collector-controller")
    assert [p["metadata"]["name"] for p in world.pods()] == ["p2", "p3"]
