"""Pods with resource claims."""

from __future__ import annotations

from typing import Any

import pytest

from berg.scheduler.framework.diagnosis import FitError

from .objects import Core, node, pod

Obj = dict[str, Any]


def claim(core: Core, name: str, allocation: Obj | None = None, **status: Any) -> None:
    if allocation is not None:
        status["allocation"] = allocation
    meta = {"name": name, "namespace": "default"}
    core.objects.set("ResourceClaim", {"metadata": meta, "spec": {}, "status": status})


def using(name: str) -> Obj:
    return pod(name, resourceClaims=[{"name": "gpu", "resourceClaimName": "c"}])


def on(name: str) -> Obj:
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [name]}
    return {"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}


def why(core: Core, obj: Obj) -> str:
    with pytest.raises(FitError) as e:
        core.decide(obj)
    return str(e.value)


def test_goes_where_the_devices_are() -> None:
    core = Core(node("a"), node("b"))
    claim(core, "c", on("b"))
    assert core.decide(using("p")).node == "b"
    core.snapshot.delete_node("b")
    assert why(core, using("p")) == "0/1 nodes are available: 1 resourceclaim not available on the node."


def test_waits_for_what_is_not_there() -> None:
    core = Core(node("a"))
    gate = next(p for p in core.profile.pre_enqueue if p.name == "DynamicResources")
    status = gate.pre_enqueue(core.parser.parse(using("p")))
    assert status is not None and status.message == 'resourceclaim.resource.k8s.io "c" not found'
    claim(core, "c")
    assert gate.pre_enqueue(core.parser.parse(using("p"))) is None
    assert why(core, using("p")) == "0/1 nodes are available: 1 cannot allocate all claims."


def test_a_claim_has_only_so_many_users() -> None:
    core = Core(node("a"))
    claim(core, "c", {}, reservedFor=[{"resource": "pods", "name": str(i), "uid": str(i)} for i in range(256)])
    assert "resourceclaim in use" in why(core, using("p"))
