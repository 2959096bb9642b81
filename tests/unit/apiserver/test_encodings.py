"""Which encodings are taken and given: CBOR behind its gate, and the words for what is not."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import cbor2
import orjson
import pytest

from berg import storage
from berg.apiserver.config import Config
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock
from berg.machinery.codec import cbor, protobuf, yaml
from tests.unit.apiserver.served_api import Served

CBOR, MAPS = "application/cbor", "/api/v1/namespaces/default/configmaps"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
THINGS = "/apis/example.com/v1/namespaces/default/things"
DEFINITION = {
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture
async def speaking() -> AsyncIterator[Served]:
    clock = FakeClock()
    store = storage.open("memory:", clock=clock, compaction_interval_s=0)
    await store.start()
    gates = {"CBORServingAndStorage": True}
    server = APIServer(Config(secure_port=-1, store=store, clock=clock, feature_gates=gates))
    await server.start()
    yield Served(server, clock)
    await server.stop()
    await store.close()


async def test_cbor_in_and_out(speaking: Served) -> None:
    body = cbor.dumps({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}})
    made = await speaking.raw("POST", MAPS, body, content_type=CBOR, accept=CBOR)
    assert (made.status, made.content_type) == (201, CBOR)
    listed = cbor.loads((await speaking.raw("GET", MAPS, accept=f"application/foo,{CBOR}")).body)
    assert [i["data"] for i in listed["items"]] == [{"k": "v"}]
    gone = await speaking.raw("GET", f"{MAPS}/nope", accept=CBOR)
    assert (gone.status, cbor.loads(gone.body)["reason"]) == (404, "NotFound")
    secret = cbor2.dumps({"metadata": {"name": "s"}, "data": {"k": cbor2.CBORTag(22, b"hi")}})
    _, shown = await speaking.ask("POST", "/api/v1/namespaces/default/secrets", secret, content_type=CBOR)
    assert shown["data"] == {"k": "aGk="}


async def test_cbor_patch_and_watch(speaking: Served) -> None:
    applied = cbor.dumps({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}})
    made = await speaking.raw("PATCH", f"{MAPS}/a?fieldManager=x", applied, content_type="application/apply-patch+cbor")
    assert made.status == 201
    response = await speaking.raw("GET", f"{MAPS}?watch=1", accept=CBOR)
    assert response.content_type == "application/cbor-seq"
    assert response.stream is not None
    event = cbor2.load(io.BytesIO(await anext(response.stream)))
    await response.stream.aclose()  # type: ignore[attr-defined]
    assert event[b"type"] == b"ADDED" and event[b"object"][b"data"] == {b"k": b"v"}


async def test_custom_resources_are_stored_as_cbor(speaking: Served) -> None:
    await speaking.create(CRDS, DEFINITION)
    await speaking.clock.advance(0, settle=50)
    await speaking.create(THINGS, {"kind": "Thing", "apiVersion": "example.com/v1", "metadata": {"name": "t"}, "n": 1})
    store = speaking.server.services.store
    stored = store.events_from(1)
    values = [e.kv.value for e in stored if e.kv.key == b"/registry/example.com/things/default/t"]
    assert values[-1].startswith(cbor.MAGIC) and cbor.loads(values[-1])["n"] == 1
    assert (await speaking.get(f"{THINGS}/t"))["n"] == 1


ROUTED = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, "
HANDLED = "only the following media types are accepted: application/json, application/yaml, "


@pytest.mark.parametrize(
    ("accept", "told"),
    [
        (CBOR, f"{ROUTED}application/vnd.kubernetes.protobuf"),
        ("application/*", f"{ROUTED}application/vnd.kubernetes.protobuf"),
        ("APPLICATION/JSON", f"{ROUTED}application/vnd.kubernetes.protobuf"),
        ("application/json;as=Foo;g=meta.k8s.io;v=v1", f"{HANDLED}application/vnd.kubernetes.protobuf"),
        (
            "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1",
            f"{HANDLED}application/vnd.kubernetes.protobuf",
        ),
    ],
)
async def test_not_acceptable(served: Served, accept: str, told: str) -> None:
    response = await served.raw("GET", f"{MAPS}/a", accept=accept)
    assert (response.status, orjson.loads(response.body)["message"]) == (406, told)
    assert response.body.startswith(b'{\n  "kind"'), "who accepts nothing of ours gets it indented"


async def test_not_taken(served: Served) -> None:
    async def told(method: str, path: str, content_type: str) -> tuple[int, Any]:
        code, shown = await served.ask(method, path, b"\xa0", content_type=content_type)
        return code, shown["message"]

    unknown = "the body of the request was in an unknown format - accepted media types include: application/json, "
    assert await told("POST", MAPS, CBOR) == (
        415,
        f"{unknown}application/yaml, application/vnd.kubernetes.protobuf",
    )
    patch = f"{MAPS}/a?fieldManager=x"
    assert await told("PATCH", patch, "application/apply-patch+cbor") == (415, "415: Unsupported Media Type")


async def test_the_least_liked_is_no_refusal(served: Served) -> None:
    assert (await served.raw("GET", MAPS, accept="*/*;q=0")).status == 200


async def test_discovery_in_every_encoding(served: Served) -> None:
    for path in ("/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"):
        plain = await served.raw("GET", path)
        in_yaml = await served.raw("GET", path, accept="application/yaml")
        packed = await served.raw("GET", path, accept="application/vnd.kubernetes.protobuf")
        told = orjson.loads(plain.body)
        assert yaml.loads(in_yaml.body) == told and in_yaml.content_type == "application/yaml"
        if "apiVersion" in told:  # which the oldest two do not say, in no encoding
            assert protobuf.loads(packed.body)["kind"] == told["kind"]
        assert (
            packed.body.startswith(b"k8s\x00") and f"\x12{chr(len(told['kind']))}{told['kind']}".encode() in packed.body
        )
        assert (await served.raw("GET", path, accept="application/foo")).status == 406
    assert (await served.raw("GET", "/version", accept="application/yaml")).status == 406
    pretty = await served.raw("GET", "/api", user_agent="curl/8")
    assert pretty.body.startswith(b'{\n  "kind"')
