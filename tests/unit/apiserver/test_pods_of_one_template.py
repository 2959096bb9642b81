"""Pods of one template: what is found of the first holds for the others, and what is a pod's own is asked of each."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.unit.apiserver.served_api import Served

PODS = "/api/v1/namespaces/default/pods"
LIMITS = {"limits": {"cpu": 1, "memory": "2e3"}}
SPEC: dict[str, Any] = {"containers": [{"name": "c", "image": "i", "resources": LIMITS}]}


@pytest.fixture(autouse=True)
async def account(served: Served) -> None:
    await served.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": deepcopy({**SPEC, **spec})}


async def test_they_are_the_same_and_apart(served: Served) -> None:
    made = [await served.create(PODS, pod(f"p{n}")) for n in range(3)]
    assert made[0]["spec"] == made[1]["spec"] == made[2]["spec"]
    assert made[0]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "2e3"}
    owned = [p["metadata"]["managedFields"][0]["fieldsV1"] for p in made]
    assert 'k:{"name":"c"}' in owned[0]["f:spec"]["f:containers"] and owned[0] == owned[1] == owned[2]
    container = {"containers": [{"name": "c", "image": "other"}]}
    code, changed = await served.patch(f"{PODS}/p0", {"spec": container}, "application/strategic-merge-patch+json")
    assert code == 200 and changed["spec"]["containers"][0]["image"] == "other"
    for other in ("p1", "p2"):
        assert (await served.get(f"{PODS}/{other}"))["spec"] == made[1]["spec"]


async def test_a_fault_is_told_every_time(served: Served) -> None:
    for n in range(2):
        wrong = pod(f"p{n}", containers=[{"name": "C", "image": "i"}])
        code, answer = await served.ask("POST", PODS, wrong)
        assert code == 422 and answer["details"]["causes"][0]["field"] == "spec.containers[0].name"
        unknown = await served.raw("POST", PODS, pod(f"u{n}", colour="red"))
        assert unknown.headers["Warning"] == '299 - "unknown field \\"spec.colour\\""'
        doubled = await served.raw("POST", PODS, pod(f"d{n}", imagePullSecrets=[{"name": "a"}, {"name": "a"}]))
        assert "duplicate" in doubled.headers["Warning"]


async def test_a_fault_of_one_pod_alone(served: Served) -> None:
    claim = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}
    volumes = [{"name": "v" * 60, "ephemeral": {"volumeClaimTemplate": claim}}]
    assert (await served.ask("POST", PODS, pod("short", volumes=volumes)))[0] == 201
    code, answer = await served.ask("POST", PODS, pod("l" * 200, volumes=volumes))
    assert code == 422 and answer["details"]["causes"][0]["field"] == "spec.volumes[0].name"
    mirror = {"kubernetes.io/config.mirror": "x"}
    assert (await served.ask("POST", PODS, pod("a", nodeName="n")))[0] == 201
    unbound = pod("b")
    unbound["metadata"]["annotations"] = mirror
    assert (await served.ask("POST", PODS, unbound))[0] == 422
