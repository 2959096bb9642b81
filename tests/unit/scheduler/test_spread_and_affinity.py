"""Topology spreading and inter-pod affinity."""

from __future__ import annotations

from typing import Any

import pytest

from berg.scheduler.framework.diagnosis import FitError

from .objects import Core, node, pod

Obj = dict[str, Any]
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def zoned(*zones: str, **more: Any) -> list[Obj]:
    return [node(f"n{i}", labels={ZONE: z}, **more) for i, z in enumerate(zones)]


def spread(key: str = ZONE, skew: int = 1, hard: bool = True, **more: Any) -> list[Obj]:
    return [
        {
            "maxSkew": skew,
            "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule" if hard else "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "a"}},
            **more,
        }
    ]


def term(key: str = HOST, app: str = "a", **more: Any) -> Obj:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key, **more}


def together(*terms: Obj) -> Obj:
    return {"podAffinity": {REQUIRED: list(terms)}}


def apart(*terms: Obj) -> Obj:
    return {"podAntiAffinity": {REQUIRED: list(terms)}}


def why(core: Core, obj: Obj) -> str:
    with pytest.raises(FitError) as e:
        core.decide(obj)
    return str(e.value)


A = {"app": "a"}


def zone_of(core: Core, name: str) -> str:
    return core.snapshot.nodes[core.snapshot.rows[name]]["metadata"]["labels"][ZONE]


def test_hard_spreading_keeps_zones_even() -> None:
    core = Core(*zoned("x", "x", "x", "y"))
    placed = [
        zone_of(core, core.schedule(pod(f"p{i}", labels=A, topologySpreadConstraints=spread()))) for i in range(6)
    ]
    assert placed.count("x") == placed.count("y") == 3


def test_hard_spreading_that_cannot_be_kept() -> None:
    core = Core(node("n0", labels={ZONE: "x"}), node("full", cpu="0", labels={ZONE: "y"}), node("nozone"))
    core.place(pod("q", labels=A), "n0")
    assert why(core, pod("p", labels=A, cpu="1", topologySpreadConstraints=spread())) == (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints, "
        "1 node(s) didn't match pod topology spread constraints (missing required label)."
    )


def test_pods_being_deleted_and_other_namespaces_do_not_count() -> None:
    core = Core(*zoned("x", "y"))
    leaving = pod("q", labels=A)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    core.place(leaving, "n0")
    core.place(pod("r", labels=A, namespace="other"), "n0")
    core.place(pod("s", labels=A), "n1")
    assert core.decide(pod("p", labels=A, topologySpreadConstraints=spread())).node == "n0"


def test_min_domains_counts_missing_domains_as_empty() -> None:
    core = Core(*zoned("x"))
    core.place(pod("q", labels=A), "n0")
    assert core.decide(pod("p", labels=A, topologySpreadConstraints=spread())).node == "n0"
    assert "topology spread constraints" in why(
        core, pod("p", labels=A, topologySpreadConstraints=spread(minDomains=2))
    )


def test_nodes_that_the_pod_cannot_use_make_no_domain() -> None:
    core = Core(*zoned("x"), node("cordoned", labels={ZONE: "y", "pool": "b"}))
    for i in range(3):
        core.place(pod(f"q{i}", labels=A), "n0")
    on_pool_a = {"nodeSelector": {HOST: "n0"}}
    assert core.decide(pod("p", labels=A, topologySpreadConstraints=spread(), **on_pool_a)).node == "n0"
    ignoring = spread(nodeAffinityPolicy="Ignore")
    assert "topology spread" in why(core, pod("p", labels=A, topologySpreadConstraints=ignoring, **on_pool_a))


def test_soft_spreading_prefers_the_emptier_zone() -> None:
    core = Core(*zoned("x", "x", "y"))
    core.place(pod("q", labels=A), "n0")
    assert core.decide(pod("p", labels=A, topologySpreadConstraints=spread(hard=False))).node == "n2"


def test_pods_of_one_owner_are_spread_by_default() -> None:
    core = Core(*zoned("x", "y"))
    core.objects.set(
        "ReplicaSet",
        {"metadata": {"name": "rs", "namespace": "default"}, "spec": {"selector": {"matchLabels": A}}},
    )
    owners = [{"kind": "ReplicaSet", "name": "rs", "uid": "1", "controller": True}]
    placed = {core.schedule(pod(f"p{i}", labels=A, owners=owners)) for i in range(2)}
    assert placed == {"n0", "n1"}


def test_required_affinity_follows_the_others() -> None:
    core = Core(*zoned("x", "y"))
    core.place(pod("q", labels=A), "n1")
    for _ in range(3):
        assert core.decide(pod("p", affinity=together(term(ZONE)))).node == "n1"
    assert why(core, pod("p", affinity=together(term(ZONE, "b")))) == (
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."
    )


def test_the_first_of_a_group_may_go_anywhere_with_the_label() -> None:
    core = Core(*zoned("x"), node("nozone"))
    assert core.schedule(pod("p", labels=A, affinity=together(term(ZONE)))) == "n0"


def test_all_terms_must_be_matched_by_one_pod() -> None:
    core = Core(*zoned("x"))
    core.place(pod("q", labels={"app": "a"}), "n0")
    core.place(pod("r", labels={"app": "b"}), "n0")
    assert "pod affinity rules" in why(core, pod("p", affinity=together(term(ZONE), term(ZONE, "b"))))


def test_anti_affinity_both_ways() -> None:
    core = Core(*zoned("x", "x", "y"))
    core.place(pod("q", labels=A, affinity=apart(term(ZONE, "b"))), "n0")
    assert core.decide(pod("p", labels={"app": "b"})).node == "n2"  # the existing pod's term
    assert core.decide(pod("p", affinity=apart(term(ZONE)))).node == "n2"  # its own
    core.place(pod("r", labels=A), "n2")
    assert why(core, pod("p", labels={"app": "b"}, affinity=apart(term(HOST)))) == (
        "0/3 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules, "
        "2 node(s) didn't match pod anti-affinity rules."
    )


def test_one_per_host() -> None:
    core = Core(*zoned("x", "x", "x"))
    placed = {core.schedule(pod(f"p{i}", labels=A, affinity=apart(term()))) for i in range(3)}
    assert len(placed) == 3
    core.snapshot.remove_pod(next(iter(core.snapshot.pods[core.snapshot.rows["n1"]])))
    assert core.decide(pod("p3", labels=A, affinity=apart(term()))).node == "n1"


def test_namespace_selectors_follow_namespace_labels() -> None:
    core = Core(*zoned("x", "y"))
    core.snapshot.counters.set_namespace("blue", {"team": "blue"})
    core.place(pod("q", labels=A, namespace="blue"), "n1")
    near = term(ZONE, namespaceSelector={"matchLabels": {"team": "blue"}})
    assert core.decide(pod("p", affinity=together(near))).node == "n1"
    core.snapshot.counters.set_namespace("blue", {"team": "red"})
    assert "affinity rules" in why(core, pod("p", affinity=together(near)))


def test_preferred_terms_of_both_sides() -> None:
    core = Core(*zoned("x", "y", "z"))
    core.place(pod("q", labels=A), "n1")
    like = {"podAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": term(ZONE)}]}}
    assert core.decide(pod("p", affinity=like)).node == "n1"
    dislike = {"podAntiAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": term(ZONE)}]}}
    assert core.decide(pod("p", affinity=dislike)).node != "n1"
    magnet = {"podAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": term(ZONE, "b")}]}}
    core.place(pod("m", affinity=magnet), "n2")
    assert core.decide(pod("p", labels={"app": "b"})).node == "n2"


def test_counts_follow_a_node_that_changes_its_zone() -> None:
    core = Core(*zoned("x", "y"))
    core.place(pod("q", labels=A), "n0")
    assert core.decide(pod("p", affinity=together(term(ZONE)))).node == "n0"
    core.snapshot.set_node(node("n1", labels={ZONE: "x"}))
    core.snapshot.set_node(node("n0", labels={ZONE: "y"}, unschedulable=True))
    assert "affinity rules" in why(core, pod("p", affinity=together(term(ZONE))))
