"""Decisions: where a pod goes, and the message when it goes nowhere."""

from __future__ import annotations

import pytest

from berg.scheduler.algorithm import NoNodes
from berg.scheduler.framework.diagnosis import FitError

from .objects import Core, node, pod


def why(core: Core, obj: dict) -> str:
    with pytest.raises(FitError) as e:
        core.decide(obj)
    return str(e.value)


def test_no_nodes() -> None:
    with pytest.raises(NoNodes, match="no nodes available to schedule pods"):
        Core().decide(pod("a"))


def test_the_emptier_node_wins() -> None:
    core = Core(node("a"), node("b"))
    core.place(pod("x", cpu="2", memory="4Gi"), "a")
    assert core.decide(pod("p", cpu="100m", memory="100Mi")).node == "b"


def test_reasons_are_counted_and_sorted() -> None:
    core = Core(
        node("small", cpu="1"),
        node("full"),
        node("tainted", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}]),
        node("cordoned", unschedulable=True),
    )
    core.place(pod("x", cpu="3"), "full")
    assert why(core, pod("p", cpu="2")) == (
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu."
    )


def test_each_lacking_resource_is_a_reason() -> None:
    core = Core(node("a", cpu="1", memory="1Gi", pods="0"))
    assert why(core, pod("p", cpu="2", memory="2Gi", requests={"example.com/gpu": "1"})) == (
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu, 1 Insufficient memory, "
        "1 Too many pods."
    )


def test_an_assumed_pod_counts_for_the_next_of_its_class() -> None:
    core = Core(node("a", cpu="1"), node("b", cpu="1"))
    placed = {core.schedule(pod(f"p{i}", cpu="600m")) for i in range(2)}
    assert placed == {"a", "b"}
    assert why(core, pod("p2", cpu="600m")) == "0/2 nodes are available: 2 Insufficient cpu."


def test_cached_class_sees_node_changes() -> None:
    core = Core(node("a", cpu="1"))
    template = {"cpu": "2"}
    why(core, pod("p0", **template))
    core.snapshot.set_node(node("a", cpu="4"))
    assert core.schedule(pod("p1", **template)) == "a"
    core.snapshot.set_node(node("a", cpu="4", unschedulable=True))
    assert "1 node(s) were unschedulable" in why(core, pod("p2", **template))
    core.snapshot.delete_node("a")
    core.snapshot.set_node(node("b"))
    assert core.schedule(pod("p3", **template)) == "b"


def test_grows_beyond_its_capacity() -> None:
    core = Core(*(node(f"n{i}", cpu="1") for i in range(20)))
    placed = [core.schedule(pod(f"p{i}", cpu="800m")) for i in range(20)]
    assert sorted(placed) == sorted(f"n{i}" for i in range(20))


def test_pods_of_a_node_that_is_not_known_yet() -> None:
    core = Core()
    core.place(pod("x", cpu="3500m"), "late")
    core.snapshot.set_node(node("late", cpu="4"))
    assert "Insufficient cpu" in why(core, pod("p", cpu="1"))


def test_node_selector_and_affinity() -> None:
    core = Core(node("a", labels={"disk": "ssd", "n": "5"}), node("b", labels={"disk": "hdd", "n": "9"}), node("c"))
    assert core.decide(pod("p", nodeSelector={"disk": "hdd"})).node == "b"

    def affinity(*expressions: dict) -> dict:
        terms = [{"matchExpressions": list(expressions)}]
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}

    assert core.decide(pod("p", affinity=affinity({"key": "n", "operator": "Gt", "values": ["6"]}))).node == "b"
    assert core.decide(pod("p", affinity=affinity({"key": "disk", "operator": "DoesNotExist"}))).node == "c"
    assert (
        core.decide(pod("p", affinity=affinity({"key": "disk", "operator": "In", "values": ["ssd", "x"]}))).node == "a"
    )
    assert why(core, pod("p", nodeSelector={"disk": "tape"})) == (
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    )


def test_preferred_node_affinity_weighs() -> None:
    core = Core(node("a"), node("b", labels={"x": "1"}), node("c", labels={"x": "1", "y": "1"}))

    def prefer(key: str, weight: int) -> dict:
        return {"weight": weight, "preference": {"matchExpressions": [{"key": key, "operator": "Exists"}]}}

    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [prefer("x", 5), prefer("y", 50)]}
    assert core.decide(pod("p", affinity={"nodeAffinity": preferred})).node == "c"


def test_daemon_set_like_pods_go_to_their_node() -> None:
    core = Core(node("a"), node("b", unschedulable=True), node("c"))

    def on(name: str) -> dict:
        fields = [{"key": "metadata.name", "operator": "In", "values": [name]}]
        terms = [{"matchFields": fields}]
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}

    assert core.decide(pod("p", affinity=on("c"))).node == "c"
    assert why(core, pod("p", affinity=on("b"))) == (
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    )


def test_taints_and_tolerations() -> None:
    taint = {"key": "team", "value": "a", "effect": "NoSchedule"}
    core = Core(
        node("t", taints=[taint]), node("soft", taints=[{**taint, "effect": "PreferNoSchedule"}]), node("plain")
    )
    assert core.decide(pod("p")).node == "plain"
    tolerations = [{"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"}]
    assert core.decide(pod("p", tolerations=tolerations, nodeSelector={"kubernetes.io/hostname": "t"})).node == "t"


def test_host_ports() -> None:
    core = Core(node("a"))
    core.place(pod("x", ports=[{"hostPort": 80, "hostIP": "127.0.0.1"}]), "a")
    assert core.decide(pod("p", ports=[{"hostPort": 80, "hostIP": "10.0.0.1"}])).node == "a"
    assert core.decide(pod("p", ports=[{"hostPort": 80, "hostIP": "127.0.0.1", "protocol": "UDP"}])).node == "a"
    assert why(core, pod("p", ports=[{"hostPort": 80}])) == (
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )


def test_features_that_nodes_declare() -> None:
    able = node("able")
    able["status"]["declaredFeatures"] = ["UserNamespacesHostNetworkSupport"]
    core = Core(node("old"), able)
    assert core.decide(pod("p", hostNetwork=True, hostUsers=False)).node == "able"
    core.snapshot.delete_node("able")
    assert why(core, pod("p", hostNetwork=True, hostUsers=False)) == (
        "0/1 nodes are available: 1 node(s) didn't match Pod's required features."
    )


def test_images_attract() -> None:
    image = {"names": ["registry.local/big:1"], "sizeBytes": 900 << 20}
    core = Core(node("a"), node("b", images=[image]), node("c", images=[image]))
    assert core.decide(pod("p", image="registry.local/big:1")).node in ("b", "c")


def test_percentage_of_nodes_to_score_takes_turns() -> None:
    core = Core(*(node(f"n{i:03}") for i in range(300)), config={"percentageOfNodesToScore": 40})
    assert core.decide(pod("p")).feasible == 120
    assert core.decide(pod("p")).feasible == 120
