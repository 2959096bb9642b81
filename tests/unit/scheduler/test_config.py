"""KubeSchedulerConfiguration: merging with the defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from berg.scheduler.config import ConfigError, SchedulerConfig, duration_s, parse
from berg.scheduler.framework.diagnosis import FitError
from berg.scheduler.framework.interface import Cycle
from berg.scheduler.framework.pernode import NodeFilter, NodeScore
from berg.scheduler.framework.status import Status, unschedulable

from .objects import Core, node, pod

HEAD = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}


def profile(**plugins: Any) -> SchedulerConfig:
    return parse({**HEAD, "profiles": [{"plugins": plugins}]})


def test_defaults_are_upstreams() -> None:
    points = SchedulerConfig().profiles[0].plugins.points
    assert points["queueSort"] == [("PrioritySort", 0)]
    assert points["preEnqueue"] == [("SchedulingGates", 0), ("DynamicResources", 2), ("DefaultPreemption", 0)]
    assert [name for name, _ in points["filter"]] == [
        "NodeUnschedulable",
        "NodeName",
        "TaintToleration",
        "NodeAffinity",
        "NodePorts",
        "NodeResourcesFit",
        "VolumeRestrictions",
        "NodeVolumeLimits",
        "VolumeBinding",
        "VolumeZone",
        "PodTopologySpread",
        "InterPodAffinity",
        "DynamicResources",
        "NodeDeclaredFeatures",
    ]
    assert points["score"] == [
        ("TaintToleration", 3),
        ("NodeAffinity", 2),
        ("NodeResourcesFit", 1),
        ("PodTopologySpread", 2),
        ("InterPodAffinity", 2),
        ("NodeResourcesBalancedAllocation", 1),
        ("ImageLocality", 1),
    ]
    assert points["postFilter"] == [("DefaultPreemption", 0)]
    assert points["bind"] == [("DefaultBinder", 0)]


def test_disable_and_reweigh() -> None:
    c = profile(
        score={"disabled": [{"name": "ImageLocality"}], "enabled": [{"name": "NodeResourcesFit", "weight": 5}]},
        multiPoint={"disabled": [{"name": "InterPodAffinity"}]},
    )
    points = c.profiles[0].plugins.points
    assert dict(points["score"])["NodeResourcesFit"] == 5
    assert "ImageLocality" not in dict(points["score"])
    assert all("InterPodAffinity" not in dict(enabled) for enabled in points.values())


def test_disable_all() -> None:
    assert profile(score={"disabled": [{"name": "*"}]}).profiles[0].plugins.points["score"] == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"apiVersion": "kubescheduler.config.k8s.io/v1beta3", "kind": "KubeSchedulerConfiguration"}, "v1beta3"),
        ({**HEAD, "percentageOfNodesToScore": 101}, "not in valid range"),
        ({**HEAD, "podInitialBackoffSeconds": 0}, "must be greater than 0"),
        ({**HEAD, "podInitialBackoffSeconds": 5, "podMaxBackoffSeconds": 4}, "greater than or equal"),
        ({**HEAD, "profiles": [{}, {"schedulerName": "b"}]}, r"profiles\[0\].schedulerName: Required value"),
        ({**HEAD, "profiles": [{"schedulerName": "a"}] * 2}, 'Duplicate value: "a"'),
        ({**HEAD, "profiles": [{"plugins": {"filter": {"enabled": [{"name": "Nope"}]}}}]}, '"Nope" does not exist'),
    ],
)
def test_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(document)


def test_durations() -> None:
    assert duration_s("1m30s") == 90
    with pytest.raises(ConfigError):
        duration_s("90")


def test_most_allocated_packs() -> None:
    args = {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}]}}
    config = {"profiles": [{"pluginConfig": [{"name": "NodeResourcesFit", "args": args}]}]}
    core = Core(node("a"), node("b"), config=config)
    core.place(pod("x", cpu="2", memory="4Gi"), "b")
    assert core.decide(pod("p", cpu="1", memory="2Gi")).node == "b"


class EvenOnly(NodeFilter, NodeScore):
    """As a third party would write it: one node at a time."""

    name = "EvenOnly"

    def filter_node(self, cycle: Cycle, node: Any) -> Status | None:
        return None if int(node["metadata"]["name"][1:]) % 2 == 0 else unschedulable("node is odd")

    def score_node(self, cycle: Cycle, node: Any) -> int:
        return int(node["metadata"]["name"][1:])


def test_a_plugin_in_plain_python() -> None:
    registry = {"EvenOnly": EvenOnly}
    plugins = {"multiPoint": {"enabled": [{"name": "EvenOnly", "weight": 100}]}}
    core = Core(*(node(f"n{i}") for i in range(6)), config={"profiles": [{"plugins": plugins}]}, registry=registry)
    assert core.decide(pod("p")).node == "n4"
    odd = Core(node("n1"), node("n3"), config={"profiles": [{"plugins": plugins}]}, registry=registry)
    with pytest.raises(FitError, match=r"0/2 nodes are available: 2 node is odd\."):
        odd.decide(pod("q"))
