"""In which order groups are listed, and which version each of them prefers."""

from __future__ import annotations

import asyncio

from berg.apiserver.aggregation.priorities import default, ordered
from berg.machinery import bundle
from tests.unit.apiserver.served_api import Served

APISERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def test_built_in_groups_stand_as_upstream_lists_them() -> None:
    listed = [
        (group, version) for group, versions in bundle.group_versions(disabled=True).items() for version in versions
    ]
    found = ordered(reversed(listed), {})
    assert list(found)[:6] == [
        "apiregistration.k8s.io",
        "",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
    ]
    assert found["autoscaling"] == ["v2", "v1"] and found["resource.k8s.io"][0] == "v1"
    assert list(found.items())[2:] == list(bundle.group_versions(disabled=True).items())[2:]
    assert default("autoscaling", "v2") == (17500, 30) and default("policy", "v1beta1") == (17100, 9)


def test_versions_go_by_priority_then_by_age() -> None:
    listed = [("example.com", v) for v in ("v1alpha1", "v1beta1", "v1", "v2")]
    assert ordered(listed, {})["example.com"] == ["v2", "v1", "v1beta1", "v1alpha1"]
    said = {("example.com", "v1beta1"): (1000, 200)}
    assert ordered(listed, said)["example.com"] == ["v1beta1", "v2", "v1", "v1alpha1"]


def test_groups_that_are_alike_go_by_name() -> None:
    listed = [("b.com", "v1"), ("a.com", "v2")]
    assert list(ordered(listed, {})) == ["b.com", "a.com"], "v1.b.com comes before v2.a.com"
    assert list(ordered(listed, {}, aggregated=True)) == ["a.com", "b.com"]
    assert list(ordered(listed, {("a.com", "v2"): (1001, 1)})) == ["a.com", "b.com"]


async def test_an_apiservice_changes_the_order(served: Served) -> None:
    async def groups() -> list[str]:
        return [g["name"] for g in (await served.get("/apis"))["groups"]]

    async with asyncio.timeout(30):
        while (await served.raw("GET", f"{APISERVICES}/v1.batch")).status == 404:
            await served.clock.advance(0, settle=5)
    found = await served.get(f"{APISERVICES}/v1.batch")
    assert (found["spec"]["groupPriorityMinimum"], found["spec"]["versionPriority"]) == (17400, 15)
    assert (await served.raw("GET", f"{APISERVICES}/v1.apiregistration.k8s.io")).status == 404
    before = await groups()
    assert before.index("apps") < before.index("batch")
    found["spec"]["groupPriorityMinimum"] = 17900
    code, _ = await served.ask("PUT", f"{APISERVICES}/v1.batch", found)
    assert code == 200
    async with asyncio.timeout(30):
        while (after := await groups()).index("batch") > after.index("apps"):
            await served.clock.advance(0, settle=5)


async def test_aggregated_discovery_in_every_encoding(served: Served) -> None:
    for media in ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf"):
        answer = await served.raw("GET", "/apis", accept=V2.replace("application/json", media))
        assert answer.content_type == V2.replace("application/json", media) and answer.headers["ETag"]
    old = await served.raw("GET", "/apis", accept=V2.replace("v=v2", "v=v2beta1"))
    assert old.status == 406, "v1.36 took it away"
    either = await served.raw("GET", "/apis", accept=f"{V2.replace('v=v2', 'v=v2beta1')},{V2}")
    assert either.content_type == V2


async def test_hashes_are_of_the_version_that_is_stored(served: Served) -> None:
    def hashes(listed: dict[str, list[dict[str, str]]]) -> dict[str, str]:
        return {r["name"]: r.get("storageVersionHash", "") for r in listed["resources"]}

    core = hashes(await served.get("/api/v1"))
    assert (core["pods"], core["componentstatuses"], core["bindings"]) == ("xPOwRZ+Yhw8=", "", "")
    assert hashes(await served.get("/apis/events.k8s.io/v1"))["events"] == core["events"] == "r2yiGXH7wu8="
    older = hashes(await served.get("/apis/autoscaling/v1"))["horizontalpodautoscalers"]
    assert older == "qwQve8ut294=", "of autoscaling/v2"
