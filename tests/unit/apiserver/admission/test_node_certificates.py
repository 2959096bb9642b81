"""A node asks for certificates of its own pods, and of none else."""

from __future__ import annotations

from typing import Any

import pytest

from berg.apiserver.admission import node_restriction
from berg.apiserver.admission.interface import CREATE, UPDATE
from berg.apiserver.http.message import User
from berg.machinery.status import ApiError

from .fakes import FakeApi, attributes

NODE = User("system:node:n1", groups=("system:nodes",))


def api() -> FakeApi:
    pod = {"metadata": {"name": "p", "namespace": "ns", "uid": "p1"}}
    elsewhere = {"metadata": {"name": "q", "namespace": "ns", "uid": "q1"}}
    mirror = {
        "metadata": {"name": "m", "namespace": "ns", "uid": "m1", "annotations": {"kubernetes.io/config.mirror": ""}}
    }
    return FakeApi(
        ("nodes", {"metadata": {"name": "n1", "uid": "u1"}}),
        ("serviceaccounts", {"metadata": {"name": "sa", "namespace": "ns", "uid": "s1"}}),
        ("pods", pod | {"spec": {"nodeName": "n1", "serviceAccountName": "sa"}}),
        ("pods", elsewhere | {"spec": {"nodeName": "n2", "serviceAccountName": "sa"}}),
        ("pods", mirror | {"spec": {"nodeName": "n1"}}),
    )


RIGHT = {
    "nodeName": "n1",
    "nodeUID": "u1",
    "podName": "p",
    "podUID": "p1",
    "serviceAccountName": "sa",
    "serviceAccountUID": "s1",
}


async def ask(operation: str = CREATE, **spec: str) -> None:
    plugin = node_restriction.NodeRestriction(api())
    obj: dict[str, Any] = {"metadata": {"name": "r", "namespace": "ns"}, "spec": RIGHT | spec}
    a = attributes("podcertificaterequests.certificates.k8s.io", obj, user=NODE, operation=operation)
    assert plugin.handles(a)
    await plugin.admit(a)


async def test_for_a_pod_of_its_own() -> None:
    await ask()


@pytest.mark.parametrize(
    ("spec", "code", "why"),
    [
        ({"nodeName": "n2"}, 403, 'NodeName="n2", which is not the requesting node "n1"'),
        ({"podName": "q", "podUID": "q1"}, 403, 'pod "ns/q" is not running on node "n1"'),
        ({"podName": "m", "podUID": "m1"}, 403, 'pod "ns/m" is a mirror pod'),
        ({"serviceAccountName": "other"}, 403, '("other") that differs from running pod ("sa")'),
        ({"nodeUID": "u0"}, 500, 'names node UID "u0", inconsistent with the running node ("u1")'),
        ({"podName": "gone"}, 500, 'while retrieving pod "ns/gone"'),
        ({"podUID": "p0"}, 500, 'contains pod UID ("p0") which differs from running pod "p1"'),
        ({"serviceAccountUID": "s0"}, 500, 'names service account UID "s0", which differs'),
    ],
)
async def test_for_nothing_else(spec: dict[str, str], code: int, why: str) -> None:
    with pytest.raises(ApiError) as refused:
        await ask(**spec)
    assert (refused.value.code, why in refused.value.message) == (code, True), refused.value.message


async def test_it_only_creates_them() -> None:
    with pytest.raises(ApiError, match="unexpected operation UPDATE"):
        await ask(UPDATE)
