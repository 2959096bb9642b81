"""The published OpenAPI documents: schemas, operations, encodings, caching."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import orjson

from berg.apiserver.http.message import Request
from berg.apiserver.openapi import documents, gnostic
from berg.apiserver.openapi.publish import OpenAPI
from berg.apiserver.openapi.schemas import in_v2, references, written
from berg.machinery import bundle
from berg.machinery.resources import Resource, Subresource
from berg.machinery.status import Obj

CORE = "io.k8s.api.core.v1."
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
PROTOBUF = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
SUBS = {n: Subresource(n, "example.com", "v1", "Widget", ("get", "patch", "update")) for n in ("status",)}
WIDGETS = Resource("example.com", "v1", "widgets", "Widget", True, list_kind="Widgetry", subresources=SUBS)
SCHEMAS = ({"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}, {"type": "object"})


def no_custom(r: Resource, v2: bool) -> None:
    return None


def of(*group_versions: tuple[str, str]) -> list[Resource]:
    return [r for r in bundle.resources() if (r.group, r.version) in group_versions]


def parameters(listed: list[Obj]) -> list[str]:
    return [f"{p['in']} {p['name']}" for p in listed]


# ---- schemas


def test_schemas_say_what_the_bundle_alone_does_not() -> None:
    port = written(f"{CORE}ServicePort")["properties"]["protocol"]
    assert (port["enum"], port["default"]) == (["SCTP", "TCP", "UDP"], "TCP")
    profile = written(f"{CORE}SeccompProfile")["x-kubernetes-unions"]
    assert profile == [{"discriminator": "type", "fields-to-discriminateBy": {"localhostProfile": "LocalhostProfile"}}]
    assert written(f"{META}Condition")["required"] == ["type", "status", "lastTransitionTime", "reason", "message"]
    volumes = written(f"{CORE}PodSpec")["properties"]["volumes"]
    assert volumes["x-kubernetes-patch-strategy"] == "merge,retainKeys"
    assert "gitVersion" in written("io.k8s.apimachinery.pkg.version.Info")["properties"]


def test_every_reference_leads_somewhere() -> None:
    for name in bundle.type_index():
        for inner in references(written(name)):
            assert written(inner).get("type") or written(inner).get("oneOf") or "JSON" in inner, (name, inner)


def test_v2_has_references_with_neighbours_and_no_defaults() -> None:
    v2 = documents.v2(of(("", "v1")), no_custom, [])
    service = v2["definitions"][f"{CORE}ServicePort"]["properties"]
    assert "default" not in service["protocol"] and service["protocol"]["enum"]
    assert service["targetPort"]["$ref"] == "#/definitions/io.k8s.apimachinery.pkg.util.intstr.IntOrString"
    assert v2["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"] == "string"
    text = orjson.dumps(v2)
    assert b"components/schemas" not in text and b'"oneOf"' not in text


def test_values_are_not_taken_for_schemas() -> None:
    odd = {"type": "object", "enum": [{"properties": 1, "default": 2}], "items": {"type": "string", "default": "x"}}
    assert in_v2(odd) == {"type": "object", "enum": [{"properties": 1, "default": 2}], "items": {"type": "string"}}


def test_kinds_of_every_group_are_told_for_the_group_of_the_document() -> None:
    def told(document: Obj) -> list[tuple[str, str]]:
        schemas: Obj = document.get("definitions") or document["components"]["schemas"]
        return [(k["group"], k["version"]) for k in schemas[f"{META}DeleteOptions"]["x-kubernetes-group-version-kind"]]

    assert told(documents.v3("apis/apps/v1", of(("apps", "v1")), no_custom)) == [("", "v1"), ("apps", "v1")]
    assert told(documents.v3("api/v1", of(("", "v1")), no_custom)) == [("", "v1")]
    everywhere = told(documents.v2(of(("apps", "v1")), no_custom, []))
    custom = told(documents.v3("apis/example.com/v1", [WIDGETS], lambda r, v2: SCHEMAS))
    assert ("apiextensions.k8s.io", "v1") in everywhere and ("apiextensions.k8s.io", "v1") not in custom
    assert ("batch", "v1") in everywhere and ("batch", "v1") in custom


# ---- operations


def test_parameters_that_all_have_stand_at_the_path() -> None:
    paths = documents.v3("api/v1", of(("", "v1")), no_custom)["paths"]
    pods = paths["/api/v1/namespaces/{namespace}/pods"]
    assert parameters(pods["parameters"]) == ["path namespace", "query pretty"]
    assert "query watch" in parameters(pods["get"]["parameters"])
    one_way = paths["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]
    assert "parameters" not in one_way["post"] and "query dryRun" in parameters(one_way["parameters"])


def test_watches_logs_and_connections() -> None:
    paths = documents.v3("api/v1", of(("", "v1")), no_custom)["paths"]
    ids = {p: item["get"]["operationId"] for p, item in paths.items() if p.startswith("/api/v1/watch/") and "pods" in p}
    assert ids == {
        "/api/v1/watch/namespaces/{namespace}/pods": "watchCoreV1NamespacedPodList",
        "/api/v1/watch/namespaces/{namespace}/pods/{name}": "watchCoreV1NamespacedPod",
        "/api/v1/watch/pods": "watchCoreV1PodListForAllNamespaces",
    }
    pod = "/api/v1/namespaces/{namespace}/pods/{name}"
    assert {"query tailLines", "query follow"} <= set(parameters(paths[f"{pod}/log"]["parameters"]))
    assert "query sinceTime" not in parameters(paths[f"{pod}/log"]["parameters"])
    ports = next(p for p in paths[f"{pod}/portforward"]["parameters"] if p["name"] == "ports")
    assert ports["schema"]["type"] == "integer"
    proxied = paths[f"{pod}/proxy/{{path}}"]
    assert set(proxied) - {"parameters"} == {"get", "put", "post", "delete", "options", "head", "patch"}
    assert proxied["head"]["operationId"] == "connectCoreV1HeadNamespacedPodProxyWithPath"
    assert parameters(proxied["parameters"])[2:] == ["path path", "query path"]


def test_v2_names_shared_parameters_by_what_they_say() -> None:
    document = documents.v2(of(("", "v1")), no_custom, [])
    pods = document["paths"]["/api/v1/namespaces/{namespace}/pods"]
    assert pods["delete"]["parameters"][0] == {"$ref": "#/parameters/body-2Y1dVQaQ"}  # upstream's own name for it
    assert {"name": "dryRun", "in": "query", "type": "string", "uniqueItems": True} in pods["post"]["parameters"]
    assert pods["post"]["parameters"][0]["schema"] == {"$ref": f"#/definitions/{CORE}Pod"}
    used = set(orjson.dumps(document["paths"]).decode().split('"#/parameters/')[1:])
    assert {u.partition('"')[0] for u in used} == set(document["parameters"])


def test_cbor_is_told_where_it_is_offered() -> None:
    one = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    for cbor in (False, True):
        patch = documents.v3("apis/apps/v1", of(("apps", "v1")), no_custom, cbor=cbor)["paths"][one]["patch"]
        assert ("application/apply-patch+cbor" in patch["requestBody"]["content"]) is cbor
        assert ("application/cbor" in patch["responses"]["200"]["content"]) is cbor


def test_discovery_has_documents_of_its_own() -> None:
    group = documents.v3("apis/apps", [], no_custom)
    assert list(group["paths"]) == ["/apis/apps/"]
    assert group["paths"]["/apis/apps/"]["get"]["operationId"] == "getAppsAPIGroup"
    assert f"{META}APIGroup" in group["components"]["schemas"]
    keys = documents.v3("openid/v1/jwks", [], no_custom)
    assert "schemas" not in keys["components"]
    assert "/apis/apps/v1/" in documents.v3("apis/apps/v1", of(("apps", "v1")), no_custom)["paths"]
    paths = documents.v2(of(("apps", "v1")), no_custom, [])["paths"]
    assert {"/api/", "/apis/", "/apis/apps/", "/version/", "/.well-known/openid-configuration/"} <= set(paths)


def test_custom_resources_are_told_as_upstream_tells_them() -> None:
    document = documents.v3("apis/example.com/v1", [WIDGETS], lambda r, v2: SCHEMAS)
    assert document["info"] == {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}
    paths = document["paths"]
    assert not [p for p in paths if "/watch/" in p or p == "/apis/example.com/v1/"]
    within = "/apis/example.com/v1/namespaces/{namespace}/widgets"
    assert set(paths) == {
        "/apis/example.com/v1/widgets",
        within,
        f"{within}/{{name}}",
        f"{within}/{{name}}/status",
    }
    one = paths[f"{within}/{{name}}"]
    assert list(one["patch"]["requestBody"]["content"]) == [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    ]
    assert parameters(one["get"]["parameters"]) == ["query resourceVersion"]
    listed = paths[within]["get"]["responses"]["200"]["content"]
    assert listed["application/yaml"]["schema"] == {"$ref": "#/components/schemas/com.example.v1.Widgetry"}
    in_v2 = documents.v2([WIDGETS], lambda r, v2: SCHEMAS, [])
    assert in_v2["definitions"]["com.example.v1.Widget"]["properties"] == {"a": {"type": "string"}}
    assert "/apis/example.com/" not in in_v2["paths"]


# ---- protobuf: what gnostic's own compiler makes of these documents

V3: Obj = {
    "openapi": "3.0.0",
    "info": {"title": "t", "version": "1"},
    "paths": {
        "/things/{name}": {
            "put": {
                "tags": ["t"],
                "operationId": "put",
                "requestBody": {
                    "content": {"*/*": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                    "required": True,
                },
                "responses": {
                    "200": {"description": "OK", "content": {"application/json": {"schema": {"type": "string"}}}}
                },
            },
            "parameters": [
                {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}},
                {"name": "wait", "in": "query", "schema": {"type": "boolean"}},
            ],
        }
    },
    "components": {
        "schemas": {
            "Thing": {
                "type": "object",
                "required": ["a"],
                "nullable": True,
                "properties": {
                    "a": {"type": "string", "default": "", "maxLength": 3, "pattern": "^a"},
                    "b": {"allOf": [{"$ref": "#/components/schemas/Thing"}], "default": {}},
                    "c": {
                        "type": "integer",
                        "format": "int32",
                        "default": 0,
                        "minimum": -1.5,
                        "exclusiveMinimum": True,
                    },
                    "d": {"type": "boolean", "default": False},
                    "e": {"type": "object", "additionalProperties": {"type": "string"}},
                    "f": {"type": "object", "additionalProperties": True},
                    "g": {"type": "array", "items": {"type": "number"}},
                    "h": {"oneOf": [{"type": "string"}, {"type": "number"}]},
                    "i": {"type": "integer", "default": -3},
                },
            }
        },
        "securitySchemes": {"Token": {"type": "apiKey", "name": "authorization", "in": "header"}},
    },
}
V3_BYTES = """
CgUzLjAuMBIGCgF0MgExIsgBCsUBCg4vdGhpbmdzL3tuYW1lfRKyASpvCgF0KgNwdXQ6LwotEikKJwoDKi8qEiAKHhIcChojL2Nv
bXBvbmVudHMvc2NoZW1hcy9UaGluZxgBQjQSMgoDMjAwEisKKQoCT0saIwohChBhcHBsaWNhdGlvbi9qc29uEg0KCwoJygEGc3Ry
aW5naiAKHgoEbmFtZRIEcGF0aCABUg4KDKABAcoBBnN0cmluZ2odChsKBHdhaXQSBXF1ZXJ5UgwKCsoBB2Jvb2xlYW4qhwMK1gIK
0wIKBVRoaW5nEskCCsYCCAG6AQFhygEGb2JqZWN0+gGzAgocCgFhEhcKFXgDigECXmHKAQZzdHJpbmeKAgIaAAorCgFiEiYKJNIB
HhIcChojL2NvbXBvbmVudHMvc2NoZW1hcy9UaGluZ4oCAAowCgFjEisKKWkAAAAAAAD4v3ABygEHaW50ZWdlcooCCQkAAAAAAAAA
AJoCBWludDMyChYKAWQSEQoPygEHYm9vbGVhbooCAhAACiAKAWUSGwoZygEGb2JqZWN0ggINCgsKCcoBBnN0cmluZwoVCgFmEhAK
DsoBBm9iamVjdIICAhABCh8KAWcSGgoYygEFYXJyYXnyAQ0KCwoJygEGbnVtYmVyCiMKAWgSHgoc2gELCgnKAQZzdHJpbmfaAQsK
CcoBBm51bWJlcgodCgFpEhgKFsoBB2ludGVnZXKKAgkJAAAAAAAACMA6LAoqCgVUb2tlbhIhCh8KBmFwaUtleRoNYXV0aG9yaXph
dGlvbiIGaGVhZGVy
"""
V2: Obj = {
    "swagger": "2.0",
    "info": {"title": "t", "version": "1"},
    "paths": {
        "/things/{name}": {
            "put": {
                "tags": ["t"],
                "operationId": "put",
                "consumes": ["*/*"],
                "produces": ["text/plain"],
                "schemes": ["https"],
                "parameters": [
                    {"name": "body", "in": "body", "required": True, "schema": {"$ref": "#/definitions/Thing"}},
                    {"$ref": "#/parameters/wait-1"},
                ],
                "responses": {"200": {"description": "OK", "schema": {"type": "string"}}, "401": {"description": "no"}},
            },
            "parameters": [{"name": "name", "in": "path", "required": True, "type": "string", "uniqueItems": True}],
        }
    },
    "definitions": {
        "Thing": {
            "type": "object",
            "required": ["a"],
            "properties": {
                "a": {"type": "string", "maxLength": 3, "pattern": "^a"},
                "b": {"$ref": "#/definitions/Thing", "description": "d"},
                "e": {"type": "object", "additionalProperties": {"type": "string"}},
                "f": {"type": "object", "additionalProperties": True},
                "g": {"type": "array", "items": {"type": "number"}},
            },
        }
    },
    "parameters": {"wait-1": {"name": "wait", "in": "query", "type": "boolean", "uniqueItems": True}},
    "securityDefinitions": {"Token": {"type": "apiKey", "name": "authorization", "in": "header"}},
    "security": [{"Token": []}],
}
V2_BYTES = """
CgMyLjASBgoBdBIBMULNARLKAQoOL3RoaW5ncy97bmFtZX0StwEakwEKAXQqA3B1dDIKdGV4dC9wbGFpbjoDKi8qQikKJwolEgRi
b2R5GgRib2R5IAEqFQoTIy9kZWZpbml0aW9ucy9UaGluZ0IXEhUKEyMvcGFyYW1ldGVycy93YWl0LTFKLQocCgMyMDASFQoTCgJP
SxINCguyAQgKBnN0cmluZwoNCgM0MDESBgoECgJub1IFaHR0cHNKHwodEhsiGQgBEgRwYXRoIgRuYW1lKgZzdHJpbmeYAQFKsQEK
rgEKBVRoaW5nEqQBmgEBYbIBCAoGb2JqZWN0ygGRAQoWCgFhEhFYA2oCXmGyAQgKBnN0cmluZwodCgFiEhgKEyMvZGVmaW5pdGlv
bnMvVGhpbmciAWQKIAoBZRIbqgENCguyAQgKBnN0cmluZ7IBCAoGb2JqZWN0ChUKAWYSEKoBAhABsgEICgZvYmplY3QKHwoBZxIa
sgEHCgVhcnJheboBDQoLsgEICgZudW1iZXJSKQonCgZ3YWl0LTESHRIbGhkSBXF1ZXJ5IgR3YWl0Mgdib29sZWFuoAEBYgsKCQoF
VG9rZW4SAGosCioKBVRva2VuEiESHwoGYXBpS2V5Eg1hdXRob3JpemF0aW9uGgZoZWFkZXI=
"""


def test_protobuf_is_what_gnostic_writes() -> None:
    assert gnostic.encode(V3, "v3") == base64.b64decode(V3_BYTES)
    assert gnostic.encode(V2, "v2") == base64.b64decode(V2_BYTES)


def test_extensions_and_enumerations_go_as_text_that_is_json() -> None:
    schema = {"type": "string", "enum": ["a"], "x-kubernetes-list-type": "set"}
    encoded = gnostic.encode({"components": {"schemas": {"S": schema}}}, "v3")
    assert b'\x12\x04"a"\n' in encoded and b'\n\x16x-kubernetes-list-type\x12\x08\x12\x06"set"\n' in encoded


# ---- serving


def served() -> OpenAPI:
    return OpenAPI(lambda: of(("apps", "v1"), ("batch", "v1")))


async def ask(openapi: OpenAPI, path: str, **headers: str) -> Any:
    path, _, query = path.partition("?")
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    response = await openapi.handle(Request("GET", path, raw_query=query, headers=named))
    assert response is not None
    return response


async def test_a_document_stands_under_its_hash() -> None:
    openapi = served()
    listed = orjson.loads((await ask(openapi, "/openapi/v3")).body)["paths"]
    assert {"api", "apis", "apis/apps", "apis/apps/v1", "version", "openid/v1/jwks"} <= set(listed)
    url = listed["apis/apps/v1"]["serverRelativeURL"]
    found = await ask(openapi, url)
    assert found.headers["Cache-Control"] == "public, immutable" and found.headers["Expires"].endswith(" UTC")
    assert "Cache-Control" not in (await ask(openapi, "/openapi/v3/apis/apps/v1")).headers
    wrong = await ask(openapi, "/openapi/v3/apis/apps/v1?hash=OLD")
    assert (wrong.status, wrong.headers["Location"]) == (301, url)
    again = await ask(openapi, url, if_none_match=found.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    assert (await ask(openapi, "/openapi/v3/apis/none/v1")).status == 404


async def test_protobuf_is_asked_for() -> None:
    openapi = served()
    for version, path in (("v3", "/openapi/v3/apis/apps/v1"), ("v2", "/openapi/v2")):
        for sign in "@.":
            asked = f"application/com.github.proto-openapi.spec.{version}{sign}v1.0+protobuf"
            found = await ask(openapi, path, accept=asked)
            assert found.content_type == f"application/com.github.proto-openapi.spec.{version}.v1.0+protobuf"
            plain = await ask(openapi, path, accept=f"{asked};q=0.5, application/json")
            assert plain.content_type == "application/json"
            assert found.body == gnostic.encode(orjson.loads(plain.body), version)
            assert found.headers["ETag"] == plain.headers["ETag"]
        assert (await ask(openapi, path, accept="application/yaml")).status == 406


async def test_what_is_made_is_made_once_and_only_again_when_it_changes() -> None:
    openapi = served()
    made: list[str] = []
    make = openapi._make

    def counted(name: str, protobuf: bool, resources: list[Resource]) -> bytes:
        made.append(name)
        return make(name, protobuf, resources)

    openapi._make = counted  # type: ignore[method-assign]
    paths = ["/openapi/v3/apis/apps/v1", "/openapi/v3/apis/batch/v1", "/openapi/v2"]
    answers = await asyncio.gather(*(ask(openapi, path) for path in (*paths, *paths)))
    assert sorted(made) == ["apis/apps/v1", "apis/batch/v1", "v2"]
    openapi._resources = lambda: [*of(("apps", "v1")), *of(("batch", "v1"))[:1]]
    openapi.changed()
    later = [await ask(openapi, path) for path in paths]
    assert made[3:] == ["apis/batch/v1", "v2"]
    same = [one.headers["ETag"] == other.headers["ETag"] for one, other in zip(answers, later, strict=False)]
    assert same == [True, False, False]


async def test_a_definition_changes_only_its_own_group_version() -> None:
    openapi = served()
    spec: Obj = {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"type": "object"}}}]}
    openapi._resources = lambda: [*of(("apps", "v1")), WIDGETS]
    openapi.definition = lambda r: spec if r is WIDGETS else None
    openapi.custom = lambda r, v2: SCHEMAS if r is WIDGETS else None

    async def urls() -> dict[str, str]:
        openapi.changed()
        listed = orjson.loads((await ask(openapi, "/openapi/v3")).body)["paths"]
        return {name: entry["serverRelativeURL"] for name, entry in listed.items()}

    before = await urls()
    assert "apis/example.com/v1" in before and "apis/example.com" not in before
    assert await urls() == before
    spec["versions"][0]["selectableFields"] = [{"jsonPath": ".a"}]
    after = await urls()
    assert [name for name in after if after[name] != before[name]] == ["apis/example.com/v1"]
