"""Controllers of certificates for pods and of storage versions, on a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from berg.controllers.storageversiongc import STORAGE_VERSIONS
from berg.controllers.trustbundles import SIGNER, bundle_name
from berg.machinery.clock import FakeClock, RealClock
from berg.machinery.resources import resource
from berg.machinery.status import ApiError
from berg.testing import Cluster

MIGRATIONS = resource("storageversionmigrations.storagemigration.k8s.io")
CONTROLLERS = (
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "podcertificaterequest-cleaner-controller",
    "storage-version-migrator-controller",
    "storageversion-garbage-collector-controller",
)


@pytest.fixture(params=[RealClock])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    api = {
        "feature_gates": {"StorageVersionAPI": True},
        "runtime_config": {"internal.apiserver.k8s.io/v1alpha1": "true"},
    }
    made = Cluster(nodes=0, controllers=CONTROLLERS, scheduler=False, https=False, clock=request.param(), api=api)
    async with made as started:
        yield started


async def until(found: Callable[[], Any]) -> Any:
    """What `found` gives, once that is something."""
    async with asyncio.timeout(30):
        while True:
            if value := await found():
                return value
            await asyncio.sleep(0.01)


async def test_the_servers_own_bundle_is_published_and_the_only_one_of_its_signer(cluster: Cluster) -> None:
    bundles = resource("clustertrustbundles.certificates.k8s.io")
    assert cluster.controllers is not None
    ca = cluster.controllers.config.root_ca().decode()
    name = bundle_name(SIGNER, ca.encode())
    assert name.startswith("kubernetes.io:kube-apiserver-serving:")

    async def names() -> list[str]:
        return [b["metadata"]["name"] for b in (await cluster.client.list(bundles))["items"]]

    await until(lambda: _is(names(), [name]))
    other = {"metadata": {"name": f"{name[:-1]}x"}, "spec": {"signerName": SIGNER, "trustBundle": ca}}
    await cluster.client.create(bundles, other)
    await until(lambda: _is(names(), [name]))
    await cluster.client.delete(bundles, None, name)
    await until(lambda: _is(names(), [name]))
    assert (await cluster.client.get(bundles, None, name))["spec"]["trustBundle"] == ca


async def _is(found: Any, wanted: Any) -> bool:
    return await found == wanted


async def test_every_resource_says_in_which_version_it_is_stored(cluster: Cluster) -> None:
    found = await cluster.client.get(STORAGE_VERSIONS, None, "autoscaling.horizontalpodautoscalers")
    (server,) = found["status"]["storageVersions"]
    assert server["encodingVersion"] == "autoscaling/v2"
    assert set(server["servedVersions"]) == {"autoscaling/v1", "autoscaling/v2"}
    assert found["status"]["commonEncodingVersion"] == "autoscaling/v2"
    assert found["status"]["conditions"][0]["reason"] == "CommonEncodingVersionSet"
    leases = resource("leases.coordination.k8s.io")
    assert await cluster.client.get(leases, "kube-system", server["apiServerID"])
    assert await cluster.client.get(STORAGE_VERSIONS, None, "core.pods")


async def test_a_server_that_is_gone_is_taken_out(cluster: Cluster) -> None:
    pods = await cluster.client.get(STORAGE_VERSIONS, None, "core.pods")
    gone = {"apiServerID": "gone", "encodingVersion": "v2", "decodableVersions": ["v1", "v2"]}
    pods["status"]["storageVersions"].append(gone)
    del pods["status"]["commonEncodingVersion"]
    await cluster.client.update(STORAGE_VERSIONS, pods, subresource="status")

    async def common() -> Any:
        status = (await cluster.client.get(STORAGE_VERSIONS, None, "core.pods"))["status"]
        return status.get("commonEncodingVersion") == "v1" and len(status["storageVersions"]) == 1

    await until(common)
    made = await cluster.client.create(STORAGE_VERSIONS, {"metadata": {"generateName": "x.org.foos"}, "spec": {}})
    alone = {**gone, "encodingVersion": "v1"}
    status = {"storageVersions": [alone], "commonEncodingVersion": "v1"}
    await cluster.client.update(STORAGE_VERSIONS, {**made, "status": status}, subresource="status")
    await until(lambda: _gone(cluster, made["metadata"]["name"]))


async def _gone(cluster: Cluster, name: str) -> bool:
    try:
        await cluster.client.get(STORAGE_VERSIONS, None, name)
    except ApiError as e:
        return e.code == 404
    return False


async def test_the_status_of_a_storage_version_must_be_true(cluster: Cluster) -> None:
    made = await cluster.client.create(STORAGE_VERSIONS, {"metadata": {"name": "x.org.bars"}, "spec": {}})
    wrong = {"apiServerID": "a", "encodingVersion": "v1", "decodableVersions": ["v2"], "servedVersions": ["v3"]}
    with pytest.raises(ApiError) as refused:
        status = {"storageVersions": [wrong, wrong], "commonEncodingVersion": "v2"}
        await cluster.client.update(STORAGE_VERSIONS, {**made, "status": status}, subresource="status")
    fields = [c["field"] for c in (refused.value.details or {})["causes"]]
    assert fields == [
        "status.storageVersions[0].decodableVersions",
        "status.storageVersions[0].servedVersions[0]",
        "status.storageVersions[1].apiServerID",
        "status.storageVersions[1].decodableVersions",
        "status.storageVersions[1].servedVersions[0]",
        "status.commonEncodingVersion",
    ]
    with pytest.raises(ApiError, match=r"name must be in the form of <group>\.<resource>"):
        await cluster.client.create(STORAGE_VERSIONS, {"metadata": {"name": "bars"}, "spec": {}})


def definition(storage: str) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": v, "served": True, "storage": v == storage, "schema": schema} for v in ("v1", "v2")]
    names = {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"}
    spec = {"group": "x.org", "scope": "Namespaced", "names": names, "versions": versions}
    return {"metadata": {"name": "foos.x.org"}, "spec": spec}


async def test_a_migration_writes_every_object_anew(cluster: Cluster) -> None:
    crds = resource("customresourcedefinitions.apiextensions.k8s.io")
    client = cluster.client
    await client.create(crds, definition("v1"))
    foos = crds.__class__("x.org", "v1", "foos", "Foo", True)

    async def served() -> Any:
        try:
            return await client.list(foos, "default")
        except ApiError:
            return None

    await until(served)
    for name in ("a", "b"):
        await client.create(foos, {"apiVersion": "x.org/v1", "kind": "Foo", "metadata": {"name": name}}, "default")
    before = {f["metadata"]["name"]: f["metadata"]["resourceVersion"] for f in (await client.list(foos))["items"]}
    await client.patch(crds, None, "foos.x.org", {"spec": definition("v2")["spec"]})

    async def both() -> Any:
        return (await client.get(crds, None, "foos.x.org"))["status"]["storedVersions"] == ["v1", "v2"]

    await until(both)
    wanted = {"resource": {"group": "x.org", "resource": "foos"}}
    await client.create(MIGRATIONS, {"metadata": {"name": "m"}, "spec": wanted})
    await client.create(MIGRATIONS, {"metadata": {"name": "n"}, "spec": wanted})

    async def conditions(name: str) -> dict[str, str]:
        status = (await client.get(MIGRATIONS, None, name)).get("status") or {}
        return {c["type"]: c["status"] for c in status.get("conditions") or ()}

    for name in ("m", "n"):
        await until(lambda name=name: _is(conditions(name), {"Running": "False", "Succeeded": "True"}))  # type: ignore[misc]
    after = {f["metadata"]["name"]: f["metadata"]["resourceVersion"] for f in (await client.list(foos))["items"]}
    assert all(int(after[name]) > int(before[name]) for name in before)
    status = (await client.get(crds, None, "foos.x.org"))["status"]
    assert status["storedVersions"] == ["v2"]
    migrating = next(c for c in status["conditions"] if c["type"] == "StorageMigrating")
    assert (migrating["status"], migrating["reason"]) == ("False", "MigrationSucceeded")


async def test_what_cannot_be_migrated_fails(cluster: Cluster) -> None:
    spec = {"resource": {"group": "authorization.k8s.io", "resource": "subjectaccessreviews"}}
    await cluster.client.create(MIGRATIONS, {"metadata": {"name": "m"}, "spec": spec})

    async def failed() -> Any:
        status = (await cluster.client.get(MIGRATIONS, None, "m")).get("status") or {}
        return next((c for c in status.get("conditions") or () if c["type"] == "Failed"), None)

    assert "does not support discovery operations: [update patch list]" in (await until(failed))["message"]


@pytest.mark.parametrize("cluster", [FakeClock], indirect=True)
async def test_requests_are_deleted_when_they_are_old(cluster: Cluster) -> None:
    requests = resource("podcertificaterequests.certificates.k8s.io")
    import base64

    from berg.kubelet.volumes.certificates import key_and_request

    spec = dict.fromkeys(("podName", "podUID", "serviceAccountName", "serviceAccountUID", "nodeName", "nodeUID"), "x")
    stub = base64.b64encode(key_and_request("ED25519")[1]).decode()
    spec |= {"signerName": "x.org/y", "stubPKCS10Request": stub}
    made = await cluster.client.create(requests, {"metadata": {"name": "r", "namespace": "default"}, "spec": spec})
    clock = cluster.clock
    assert isinstance(clock, FakeClock)
    await clock.advance(14 * 60)
    assert (await cluster.client.get(requests, "default", "r"))["metadata"]["uid"] == made["metadata"]["uid"]
    async with asyncio.timeout(30):
        while (await cluster.client.list(requests, "default"))["items"]:
            await clock.advance(30)
