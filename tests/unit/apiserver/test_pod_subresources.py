"""What may be written of a pod through its subresources, and of others through their scale, in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from berg.machinery.status import Obj
from tests.unit.apiserver.served_api import Served

PODS = "/api/v1/namespaces/default/pods"
AMOUNTS = {"requests": {"cpu": "100m", "memory": "10Mi"}}


async def pod(served: Served) -> Obj:
    await served.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    containers = [{"name": "c", "image": "i", "resources": AMOUNTS}, {"name": "d", "image": "i"}]
    spec = {"containers": containers, "automountServiceAccountToken": False}
    return await served.create(PODS, {"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": spec})


def causes(answer: Obj) -> list[str]:
    return [f"{c['field']}: {c['message']}" for c in answer["details"]["causes"]]


async def resized(served: Served, made: Obj, change: Obj) -> tuple[int, Obj]:
    made["spec"]["containers"][0] |= change
    return await served.ask("PUT", f"{PODS}/p/resize", made)


async def test_resize_changes_cpu_and_memory_and_nothing_else(served: Served) -> None:
    made = await pod(served)
    made["metadata"]["labels"] = {"x": "y"}
    more = {"requests": {"cpu": "200m", "memory": "10Mi"}}
    code, found = await resized(served, made, {"resources": more, "image": "other"})
    assert code == 200
    assert found["spec"]["containers"][0]["resources"] == more
    assert found["spec"]["containers"][0]["image"] == "i" and found["metadata"]["labels"] == {"a": "b"}
    assert found["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"resources": {"requests": {"cpu": "1"}}},
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
        (
            {"resources": {"requests": {**AMOUNTS["requests"], "ephemeral-storage": "1"}}},
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        ({"name": "d2"}, "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"),
    ],
)
async def test_resize_refuses(served: Served, change: Obj, said: str) -> None:
    code, answer = await resized(served, await pod(served), change)
    assert (code, causes(answer)) == (422, [said])


async def test_no_resize_without_a_kubelet_that_tells_resources(served: Served) -> None:
    made = await pod(served)
    running: Obj = {"name": "c", "image": "i", "imageID": "", "ready": True, "restartCount": 0}
    running["state"] = {"running": {}}
    state: Obj = {"containerStatuses": [running]}
    assert (await served.patch(f"{PODS}/p/status", {"status": state}))[0] == 200
    del made["metadata"]["resourceVersion"]
    code, answer = await resized(served, made, {})
    assert (code, causes(answer)) == (422, ["spec: Forbidden: Pod running on node without support for resize"])
    running["resources"] = {}
    assert (await served.patch(f"{PODS}/p/status", {"status": state}))[0] == 200
    assert (await resized(served, made, {}))[0] == 200


async def test_ephemeral_containers_are_added_and_stay(served: Served) -> None:
    made = await pod(served)
    made["spec"] |= {"ephemeralContainers": [{"name": "e", "image": "i"}], "hostname": "x"}
    code, made = await served.ask("PUT", f"{PODS}/p/ephemeralcontainers", made)
    assert code == 200 and "hostname" not in made["spec"]
    made["spec"]["ephemeralContainers"][0] |= {"image": "j", "lifecycle": {}}
    code, answer = await served.ask("PUT", f"{PODS}/p/ephemeralcontainers", made)
    lifecycle, changed = causes(answer)
    assert code == 422
    assert lifecycle == "spec.ephemeralContainers[0].lifecycle: Forbidden: cannot be set for an Ephemeral Container"
    assert changed.startswith('spec.ephemeralContainers: Forbidden: existing ephemeral containers "e" may not be chang')
    assert '\n- "Image": "i",\n+ "Image": "j",\n' in changed


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ({}, 500, "target.name: Required value"),
        (
            {"kind": "Pod"},
            500,
            '[target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>", target.name: Required value]',
        ),
    ],
)
async def test_bindings(served: Served, target: Any, code: int, said: str) -> None:
    await pod(served)
    answer = await served.ask("POST", f"{PODS}/p/binding", {"metadata": {"name": "p"}, "target": target})
    assert (answer[0], answer[1]["message"]) == (code, said)


async def test_evictions_do_not_mix_dry_runs(served: Served) -> None:
    await pod(served)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    given = {**eviction, "deleteOptions": {"dryRun": ["All", "All"]}}
    code, answer = await served.ask("POST", f"{PODS}/p/eviction?dryRun=All", given)
    said = "Non-matching dry-run options in request and content: [All] and [All All]"
    assert (code, answer["message"]) == (500, said)


async def test_the_metadata_of_a_scale_is_checked(served: Served) -> None:
    path = "/api/v1/namespaces/default/replicationcontrollers"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await served.create(path, {"metadata": {"name": "r"}, "spec": {"template": template}})
    scale = {"metadata": {"name": "r", "finalizers": ["str"]}, "spec": {"replicas": -1}}
    code, answer = await served.ask("PUT", f"{path}/r/scale", scale)
    assert (code, causes(answer)) == (
        422,
        [
            'metadata.finalizers[0]: Invalid value: "str": name is neither a standard finalizer name nor is it fully '
            "qualified",
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ],
    )


@pytest.mark.parametrize(("kind", "times"), [("configmaps", 2), ("resourcequotas", 1), ("limitranges", 1)])
async def test_metadata_is_told_as_often_as_it_is_looked_at(served: Served, kind: str, times: int) -> None:
    path = f"/api/v1/namespaces/default/{kind}"
    await served.create(path, {"metadata": {"name": "x"}, **({"spec": {}} if kind != "configmaps" else {})})
    code, answer = await served.patch(f"{path}/x", {"metadata": {"finalizers": ["str"]}})
    assert (code, [c["field"] for c in answer["details"]["causes"]]) == (422, ["metadata.finalizers[0]"] * times)
