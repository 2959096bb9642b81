"""`berg inspect`: a snapshot with values in protobuf, in JSON of any order, and of kinds nobody knows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from berg.apiserver.http.message import Request, User
from berg.cli.inspect import server_of
from berg.etcd.member import Member
from berg.etcd.snapshot import BadSnapshot, snapshot_of
from berg.machinery.codec import protobuf
from berg.storage.embedded import EmbeddedStore
from berg.storage.interface import PutRequest

ADMIN = User("admin", groups=("system:masters",))
POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}, "uid": "u1"},
    "spec": {"containers": [{"name": "c", "image": "nginx"}], "nodeName": "n1"},
    "status": {"phase": "Running"},
}

CLAIM = {
    "kind": "PersistentVolumeClaim",
    "apiVersion": "v1",
    "metadata": {"name": "data", "namespace": "default", "uid": "u2"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    "status": {},
}
"""as upstream stores it: what a reader fills in is not there"""

DEFINITION = {
    "kind": "CustomResourceDefinition",
    "apiVersion": "apiextensions.k8s.io/v1beta1",
    "metadata": {"name": "widgets.example.com", "uid": "u3"},
    "spec": {
        "group": "example.com",
        "version": "v1",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "scope": "Namespaced",
        "validation": {"openAPIV3Schema": {"type": "object", "properties": {"size": {"type": "integer"}}}},
        "versions": [{"name": "v1", "served": True, "storage": True}],
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "JSONPath": ".size"}],
        "conversion": {"strategy": "None"},
        "preserveUnknownFields": False,
    },
    "status": {
        "conditions": [{"type": t, "status": "True"} for t in ("NamesAccepted", "Established")],
        "acceptedNames": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "storedVersions": ["v1"],
    },
}
"""upstream serves v1, and stores v1beta1"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Any]:
    import hashlib

    store = EmbeddedStore(None)
    await store.start()
    for key, value in (
        (b"/registry/pods/default/web", protobuf.dumps(POD)),
        (b"/registry/namespaces/default", b'{"metadata":{"name":"default"},"apiVersion":"v1","kind":"Namespace"}'),
        (b"/registry/persistentvolumeclaims/default/data", protobuf.dumps(CLAIM)),
        (b"/registry/persistentvolumeclaims/default/json", json.dumps(CLAIM).replace(" ", "").encode() + b"\n"),
        (
            b"/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com",
            json.dumps(DEFINITION).encode(),
        ),
        (
            b"/registry/example.com/widgets/default/w",
            b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w","namespace":"default"},"size":7}\n',
        ),
        (b"/registry/podtemplates/none", b"k8s\x00broken"),
        (b"/registry/example.com/foos/default/x", b'{"kind":"Foo","apiVersion":"example.com/v1","metadata":{}}'),
    ):
        await store.put(PutRequest(key, value))
    member = Member(store)
    await member.load()
    data = bytes(await snapshot_of(member))
    snapshot = tmp_path / "snapshot.db"
    snapshot.write_bytes(data + hashlib.sha256(data).digest())
    await store.close()
    server = await server_of(snapshot, tmp_path / "inspect", port=-1)
    await server.start()
    yield server
    await server.stop()
    await server.config.store.close()


async def ask(server: Any, method: str, path: str) -> tuple[int, Any]:
    response = await server.handle(Request(method, path, user=ADMIN))
    return response.status, json.loads(response.body)


async def test_what_is_stored_is_what_is_shown(server: Any) -> None:
    code, pod = await ask(server, "GET", "/api/v1/namespaces/default/pods/web")
    assert code == 200
    assert (pod["spec"]["nodeName"], pod["status"]["phase"], pod["metadata"]["labels"]) == (
        "n1",
        "Running",
        {"app": "web"},
    )
    _, pods = await ask(server, "GET", "/api/v1/pods")
    assert [p["metadata"]["name"] for p in pods["items"]] == ["web"]
    _, namespaces = await ask(server, "GET", "/api/v1/namespaces")
    assert [n["metadata"]["name"] for n in namespaces["items"]] == ["default"]  # nothing was added
    _, roles = await ask(server, "GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles")
    assert roles["items"] == []


async def test_what_a_reader_fills_in_is_filled_in(server: Any) -> None:
    _, claims = await ask(server, "GET", "/api/v1/persistentvolumeclaims")
    assert [(c["status"], c["spec"]["volumeMode"]) for c in claims["items"]] == [
        ({"phase": "Pending"}, "Filesystem")
    ] * 2


async def test_definitions_that_upstream_stored(server: Any) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    _, definitions = await ask(server, "GET", path)
    (definition,) = definitions["items"]
    assert definition["metadata"]["resourceVersion"] == "6" and "finalizers" not in definition["metadata"]
    assert set(definition["spec"]) == {"group", "names", "scope", "versions", "conversion"}
    (version,) = definition["spec"]["versions"]
    assert version["schema"] == DEFINITION["spec"]["validation"]  # type: ignore[index]
    assert version["additionalPrinterColumns"] == [{"name": "Size", "type": "integer", "jsonPath": ".size"}]
    _, widgets = await ask(server, "GET", "/apis/example.com/v1/widgets")
    assert [w["size"] for w in widgets["items"]] == [7]
    response = await server.handle(Request("GET", "/readyz", user=ADMIN))
    assert response.status == 200


async def test_nothing_can_be_changed(server: Any) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        code, answer = await ask(server, method, "/api/v1/namespaces/default/pods/web")
        assert code == 405 and "snapshot" in answer["message"]


async def test_a_file_that_is_no_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"nothing")
    with pytest.raises(BadSnapshot):
        await server_of(path, tmp_path)
