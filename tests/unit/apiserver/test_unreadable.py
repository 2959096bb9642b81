"""Objects whose bytes in the store nobody can read: told by a list, deleted only by who may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from berg import storage
from berg.apiserver.config import Config
from berg.apiserver.http.message import User
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock
from berg.machinery.resources import resource
from berg.storage.interface import PutRequest

from .served_api import Served

MAPS = "/api/v1/namespaces/default/configmaps"
UNSAFE = "ignoreStoreReadErrorWithClusterBreakingPotential"


@pytest.fixture
async def spoilt() -> AsyncIterator[Served]:
    """A ConfigMap `good`, and one that is `bad`."""
    clock = FakeClock()
    store = storage.open("memory:", clock=clock, compaction_interval_s=0)
    await store.start()
    server = APIServer(Config(secure_port=-1, store=store, clock=clock))
    try:
        await server.start()
        served = Served(server, clock)
        for name in ("good", "bad"):
            await served.create(MAPS, {"metadata": {"name": name, "finalizers": ["x.org/keep"]}})
        await store.put(PutRequest(b"/registry/configmaps/default/bad", b"\x00nonsense"))
        cacher = server.services.registry(resource("configmaps")).cacher
        assert cacher is not None
        await cacher.consistent()
        yield served
    finally:
        await server.stop()
        await store.close()


async def test_a_list_names_them(spoilt: Served) -> None:
    code, told = await spoilt.ask("GET", MAPS)
    assert (code, told["reason"]) == (500, "StorageReadError")
    assert told["message"] == "failed to read one or more configmaps from the storage"
    (cause,) = told["details"]["causes"]
    assert cause["field"] == "/registry/configmaps/default/bad"
    assert cause["reason"] == "UnexpectedServerResponse" and "corrupt object" in cause["message"]
    assert (await spoilt.raw("GET", f"{MAPS}/good")).status == 200


async def test_they_can_be_deleted_by_who_may(spoilt: Served) -> None:
    assert (await spoilt.raw("DELETE", f"{MAPS}/bad")).status == 500
    code, told = await spoilt.ask("DELETE", f"{MAPS}/bad", {UNSAFE: True})
    assert (code, told["status"], told["details"]) == (200, "Success", {"name": "bad", "kind": "ConfigMap"})
    assert (await spoilt.raw("GET", f"{MAPS}/bad")).status == 404
    assert [o["metadata"]["name"] for o in (await spoilt.get(MAPS))["items"]] == ["good"]


async def test_nobody_else_and_nothing_else(spoilt: Served) -> None:
    role = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["delete"]}
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    await spoilt.create(f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": [role]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}
    binding = {"metadata": {"name": "b"}, "roleRef": reference, "subjects": [subject]}
    await spoilt.create(f"{rbac}/rolebindings", binding)
    eve = User("eve", groups=("system:authenticated",))
    code, told = await spoilt.ask("DELETE", f"{MAPS}/bad?{UNSAFE}=true", user=eve)
    assert code == 403 and 'not permitted to do "unsafe-delete-ignore-read-errors"' in told["message"]
    code, told = await spoilt.ask("DELETE", f"{MAPS}/good", {UNSAFE: True})
    assert code == 422 and "is exclusively used to delete corrupt object(s)" in told["message"]
    code, told = await spoilt.ask("DELETE", f"{MAPS}/bad", {UNSAFE: True, "gracePeriodSeconds": 1, "dryRun": ["All"]})
    assert [c["message"].partition(": ")[2] for c in told["details"]["causes"]] == [
        "true: cannot be set together with .dryRun",
        "true: cannot be set together with .gracePeriodSeconds",
    ]
    code, told = await spoilt.ask("DELETE", MAPS, {UNSAFE: True})
    assert code == 422 and "is not allowed with DELETECOLLECTION" in told["message"]


async def test_a_watch_of_the_rest_goes_on_after_it(spoilt: Served) -> None:
    await spoilt.ask("DELETE", f"{MAPS}/bad", {UNSAFE: True})
    version = (await spoilt.get(MAPS))["metadata"]["resourceVersion"]
    await spoilt.create(MAPS, {"metadata": {"name": "new"}})
    async with asyncio.timeout(30):
        (event,) = await spoilt.watch(f"{MAPS}?watch=1&resourceVersion={version}", 1)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "new")
