"""Pods as the scheduler keeps them decide as whole ones do."""

from __future__ import annotations

import copy

from berg.scheduler.slim import Slimmer
from berg.scheduler.state.podinfo import PodParser

from .objects import pod


def test_siblings_share_and_decide_the_same() -> None:
    whole = pod("a", cpu="1", tolerations=[{"key": "k", "operator": "Exists"}], nodeSelector={"x": "y"})
    whole["spec"]["containers"][0] |= {"env": [{"name": "E", "value": "1"}], "volumeMounts": [{"name": "t-1"}]}
    whole["spec"]["volumes"] = [
        {"name": "t-1", "projected": {}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "c"}},
    ]
    sibling = copy.deepcopy(whole)
    sibling["metadata"]["name"] = "b"
    sibling["spec"]["containers"][0]["volumeMounts"] = [{"name": "t-2"}]
    sibling["spec"]["volumes"][0]["name"] = "t-2"
    slimmer, parser = Slimmer(), PodParser()
    before = parser.parse(copy.deepcopy(whole)).cls
    one, two = slimmer.pod(whole), slimmer.pod(sibling)
    assert one["spec"]["containers"] is two["spec"]["containers"]
    assert "env" not in one["spec"]["containers"][0]
    assert parser.parse(one).cls is parser.parse(two).cls is before


def test_resizes_stay_visible() -> None:
    resized = pod("a", cpu="1", status={"containerStatuses": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]})
    assert PodParser().parse(Slimmer().pod(resized)).cls.requests == {"cpu": 2000}
