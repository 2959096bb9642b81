"""Feature gates. The refusals are those of kube-apiserver v1.36.2 for the same flags."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import berg
from berg.machinery.features import HEEDED, FeatureError, FeatureGates, parse


def test_what_is_on_by_default_and_what_was_asked_for() -> None:
    gates = FeatureGates(parse(["CoordinatedLeaderElection=true,WatchList=0"]))
    assert gates.enabled("CoordinatedLeaderElection")
    assert not gates.enabled("WatchList")
    assert gates.enabled("APIServerIdentity")
    assert not gates.enabled("StorageVersionAPI")
    assert not gates.enabled("AllAlpha")


def test_the_prefix_of_the_component() -> None:
    assert parse(["kube:WatchList=false", "kube:StorageVersionAPI=T"]) == {
        "WatchList": False,
        "StorageVersionAPI": True,
    }


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("WatchList", "missing bool value for WatchList"),
        ("WatchList=x", 'invalid value of WatchList=x, err: strconv.ParseBool: parsing "x": invalid syntax'),
        ("bar:WatchList=true", "component not registered: bar"),
        (
            "kube:WatchList=true,CoordinatedLeaderElection=true",
            "set kube feature gates with default empty prefix or kube: prefix consistently, do not mix use",
        ),
        ("APIServerTracing=false", "cannot set feature gate APIServerTracing to false, feature is locked to true"),
        ("Flying=true", "unrecognized feature gate: Flying"),
        (
            "PodLevelResourceManagers=true,PodLevelResources=false,InPlacePodLevelResourcesVerticalScaling=false",
            "PodLevelResourceManagers is enabled, but depends on features that are disabled: [PodLevelResources]",
        ),
        (
            "GangScheduling=true",
            "GangScheduling is enabled, but depends on features that are disabled: [GenericWorkload]",
        ),
    ],
)
def test_refused(given: str, why: str) -> None:
    with pytest.raises(FeatureError) as refused:
        FeatureGates(parse([given]))
    assert str(refused.value) == why


def test_several_faults_are_told_together() -> None:
    with pytest.raises(
        FeatureError, match=r"^\[cannot set feature gate APIServerTracing .*, cannot set feature gate K"
    ):
        FeatureGates({"APIServerTracing": False, "KubeletTracing": False})


def test_all_beta_leaves_alone_what_was_named_and_what_is_stable() -> None:
    gates = FeatureGates(parse(["AllBeta=false,WatchList=true"]))
    assert gates.enabled("WatchList")
    assert not gates.enabled("OpenAPIEnums")
    assert gates.enabled("MutatingAdmissionPolicy")
    assert not gates.enabled("CBORServingAndStorage")


def test_a_stable_gate_may_still_be_set_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert not FeatureGates({"StorageVersionMigrator": False}).enabled("StorageVersionMigrator")
    assert "setting GA feature gate StorageVersionMigrator=false" in caplog.text


def test_what_changes_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    FeatureGates({"MutatingAdmissionPolicy": False, "OpenAPIEnums": True})
    assert caplog.messages == ["feature gate MutatingAdmissionPolicy=false changes nothing here"]


def test_it_is_known_what_changes_something() -> None:
    from berg.apiserver import server
    from berg.apiserver.hooks import gated_roles
    from berg.apiserver.registry import unreadable
    from berg.controllers import manager

    found = {gate for *_, gate in server.HOOKS if gate} | set(manager.GATES.values()) | set(gated_roles.NODE_RULES)
    found.add(unreadable.GATE)
    for file in Path(berg.__file__).parent.rglob("*.py"):
        found |= set(re.findall(r"enabled\(\s*\"(\w+)\"", file.read_text()))
    assert found == HEEDED


def test_metric() -> None:
    lines = FeatureGates({"CBORServingAndStorage": True}).text().splitlines()
    assert lines[1] == "# TYPE kubernetes_feature_enabled gauge"
    assert 'kubernetes_feature_enabled{name="CBORServingAndStorage",stage="ALPHA"} 1' in lines
    assert 'kubernetes_feature_enabled{name="StorageVersionAPI",stage="ALPHA"} 0' in lines
    assert 'kubernetes_feature_enabled{name="APIServerTracing",stage=""} 1' in lines


def test_no_gate_that_is_on_needs_one_that_is_off() -> None:
    FeatureGates({"AllBeta": False, "WatchList": True})
    on = FeatureGates()
    from berg.machinery.features import _known

    for name, (_, _, _, needs) in _known().items():
        if on.enabled(name):
            assert all(map(on.enabled, needs)), name
