"""Another API server behind this one: its state, its resources and its OpenAPI as part of ours."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from berg.apiserver.aggregation import specs
from berg.apiserver.http.message import Request, Response
from berg.apiserver.http.server import HTTPServer
from berg.apiserver.http.tls import server_context
from berg.machinery import pki
from berg.machinery.resources import resource
from tests.unit.apiserver.served_api import Served

GV = "metrics.example.com/v1"
SERVICES, APISERVICES = "/api/v1/namespaces/default/services", "/apis/apiregistration.k8s.io/v1/apiservices"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
REF = "#/definitions/"


def v2(*, title: str = "Thing") -> dict[str, Any]:
    answer = {"200": {"description": "OK", "schema": {"$ref": f"{REF}Thing"}}}
    failed = {"401": {"description": "no", "schema": {"$ref": f"{REF}{STATUS}"}}}
    get = {
        "parameters": [{"$ref": "#/parameters/pretty"}],
        "produces": ["application/json"],
        "responses": answer | failed,
    }
    return {
        "swagger": "2.0",
        "info": {"title": title, "version": "1"},
        "paths": {f"/apis/{GV}/things": {"get": get}, "/elsewhere/": {"get": {"responses": {}}}},
        "parameters": {"pretty": {"name": "pretty", "in": "query", "type": "string"}},
        "definitions": {
            "Thing": {"type": "object", "properties": {"status": {"$ref": f"{REF}{STATUS}"}}},
            STATUS: {
                "type": "object",
                "description": "not the one you know",
                "properties": {"own": {"type": "string"}},
            },
            "Unused": {"type": "object"},
        },
    }


@dataclass
class Extension:
    """A small aggregated server."""

    v3: bool = True
    ready: bool = True
    asked: list[str] = field(default_factory=list)
    url: str = f"/openapi/v3/apis/{GV}?hash=ABC"

    async def handle(self, request: Request) -> Response:
        self.asked.append(request.path)
        if request.path == f"/apis/{GV}":
            thing = {"name": "things", "singularName": "thing", "namespaced": True, "kind": "Thing", "verbs": ["get"]}
            return Response(200 if self.ready else 500, orjson.dumps({"groupVersion": GV, "resources": [thing]}))
        if request.path == "/openapi/v2":
            if request.headers.get("if-none-match") == '"tag"':
                return Response(304)
            return Response(200, orjson.dumps(v2()), headers={"ETag": '"tag"'})
        if self.v3 and request.path == "/openapi/v3":
            return Response(200, orjson.dumps({"paths": {f"apis/{GV}": {"serverRelativeURL": self.url}}}))
        if self.v3 and request.path == f"/openapi/v3/apis/{GV}":
            return Response(200, b'{"openapi":"3.0.0","asked":"' + request.raw_query.encode() + b'"}')
        return Response(404, b"404 page not found\n", "text/plain")


@dataclass
class Aggregated:
    served: Served
    extension: Extension
    server: HTTPServer

    async def until(self, status: str, reason: str) -> str:
        """The condition's message."""
        async with asyncio.timeout(5):
            while True:
                state = (await self.served.get(f"{APISERVICES}/v1.metrics.example.com")).get("status") or {}
                for c in state.get("conditions") or ():
                    if (c["status"], c["reason"]) == (status, reason):
                        return str(c["message"])
                await self.served.clock.advance(0, settle=5)
                await asyncio.sleep(0.005)

    async def endpoints(self, *addresses: str) -> None:
        """Not by a request: no endpoint may be on loopback."""
        registry = self.served.server.services.registry(resource("endpointslices.discovery.k8s.io"))
        cacher = await registry.open()
        obj = {
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {
                "name": "ext-x",
                "namespace": "default",
                "uid": "u",
                "labels": {"kubernetes.io/service-name": "ext"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": self.server.port}],
            "endpoints": [{"addresses": list(addresses)}] if addresses else [],
        }
        known = cacher.get("default/ext-x")
        if known is None:
            await cacher.create("default/ext-x", obj)
        else:
            await cacher.update("default/ext-x", obj, expected=known.revision)


@pytest.fixture
async def aggregated(served: Served, tmp_path: Path) -> AsyncIterator[Aggregated]:
    authority = pki.CertificateAuthority.create("aggregated")
    cert, key = authority.issue("server", names=["ext.default.svc"], server=True).write(tmp_path, "server")
    extension = Extension()
    server = HTTPServer(extension.handle, host="127.0.0.1", tls=server_context(str(cert), str(key)))
    await server.start()
    spec = {
        "group": "metrics.example.com",
        "version": "v1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "caBundle": base64.b64encode(authority.certificate).decode(),
        "service": {"name": "ext", "namespace": "default"},
    }
    await served.create(APISERVICES, {"metadata": {"name": "v1.metrics.example.com"}, "spec": spec})
    yield Aggregated(served, extension, server)
    await server.stop()


async def up(a: Aggregated) -> None:
    ports = [{"name": "https", "port": 443, "targetPort": a.server.port}]
    await a.served.create(SERVICES, {"metadata": {"name": "ext"}, "spec": {"ports": ports}})
    await a.endpoints("127.0.0.1")
    assert await a.until("True", "Passed") == "all checks passed"


async def test_conditions_follow_the_service(aggregated: Aggregated) -> None:
    a = aggregated
    assert await a.until("False", "ServiceNotFound") == 'service/ext in "default" is not present'
    await a.served.create(SERVICES, {"metadata": {"name": "ext"}, "spec": {"ports": [{"name": "https", "port": 80}]}})
    assert await a.until("False", "ServicePortError") == 'service/ext in "default" is not listening on port 443'
    await a.served.patch(f"{SERVICES}/ext", {"spec": {"ports": [{"name": "https", "port": 443}]}})
    wanted = 'cannot find endpointslices for service/ext in "default"'
    assert await a.until("False", "EndpointsNotFound") == wanted
    await a.endpoints()
    assert 'have no addresses with port name "https"' in await a.until("False", "MissingEndpoints")
    a.extension.ready = False
    await a.endpoints("127.0.0.1")
    url = f"https://127.0.0.1:{a.server.port}/apis/{GV}"
    wanted = f"failing or missing response from {url}: bad status from {url}: 500"
    assert await a.until("False", "FailedDiscoveryCheck") == wanted
    refused = await a.served.raw("GET", f"/apis/{GV}/things")
    assert (refused.status, refused.body) == (503, b"service unavailable\n")
    a.extension.ready = True
    await a.served.clock.advance(2, settle=20)
    await a.until("True", "Passed")


async def test_discovery_remembers_who_is_away(aggregated: Aggregated) -> None:
    await up(aggregated)

    async def listed() -> Any:
        body = (await aggregated.served.raw("GET", "/apis", accept=AGGREGATED)).body
        (group,) = [g for g in orjson.loads(body)["items"] if g["metadata"]["name"] == "metrics.example.com"]
        return group["versions"][0]

    now = await listed()
    assert now["freshness"] == "Current"
    assert now["resources"][0]["responseKind"] == {"group": "", "version": "", "kind": "Thing"}
    await aggregated.endpoints()
    await aggregated.until("False", "MissingEndpoints")
    assert await listed() == {**now, "freshness": "Stale"}


async def test_openapi_v2_is_merged(aggregated: Aggregated) -> None:
    await up(aggregated)
    document = await aggregated.served.get("/openapi/v2")
    get = document["paths"][f"/apis/{GV}/things"]["get"]
    assert get["parameters"] == [{"$ref": "#/parameters/pretty"}]
    assert document["parameters"]["pretty"] == {"name": "pretty", "in": "query", "type": "string"}
    assert "/elsewhere/" not in document["paths"] and "Unused" not in document["definitions"]
    assert "code" in document["definitions"][STATUS]["properties"], "ours is still called so"
    renamed = f"{STATUS}_v2"
    assert document["definitions"][renamed]["properties"] == {"own": {"type": "string"}}
    assert document["definitions"]["Thing"]["properties"]["status"] == {"$ref": REF + renamed}
    assert get["responses"]["401"]["schema"] == {"$ref": REF + renamed}
    code, _ = await aggregated.served.ask("DELETE", f"{APISERVICES}/v1.metrics.example.com")
    assert code == 200
    await aggregated.served.clock.advance(0, settle=5)
    assert f"/apis/{GV}/things" not in (await aggregated.served.get("/openapi/v2"))["paths"]


async def test_openapi_v3_is_passed_on(aggregated: Aggregated) -> None:
    await up(aggregated)
    served = aggregated.served
    url = (await served.get("/openapi/v3"))["paths"][f"apis/{GV}"]["serverRelativeURL"]
    assert url == aggregated.extension.url
    response = await served.raw("GET", url)
    assert orjson.loads(response.body)["asked"] == "hash=ABC"
    assert response.headers["Cache-Control"] == "public, immutable"
    moved = await served.raw("GET", f"/openapi/v3/apis/{GV}?hash=OLD")
    assert (moved.status, moved.headers["Location"]) == (301, url)
    aggregated.extension.url = f"/openapi/v3/apis/{GV}?hash=DEF"
    await served.clock.advance(30, settle=50)
    for _ in range(1000):
        if (await served.get("/openapi/v3"))["paths"][f"apis/{GV}"]["serverRelativeURL"] != url:
            break
        await asyncio.sleep(0.005)
    assert orjson.loads((await served.raw("GET", f"/openapi/v3/apis/{GV}")).body)["asked"] == "hash=DEF"


async def test_a_server_with_v2_only(aggregated: Aggregated) -> None:
    aggregated.extension.v3 = False
    await up(aggregated)
    url = (await aggregated.served.get("/openapi/v3"))["paths"][f"apis/{GV}"]["serverRelativeURL"]
    document = await aggregated.served.get(url)
    get = document["paths"][f"/apis/{GV}/things"]["get"]
    shown = {"schema": {"$ref": "#/components/schemas/Thing"}}
    assert get["responses"]["200"] == {"description": "OK", "content": {"application/json": shown}}
    assert get["parameters"] == [{"name": "pretty", "in": "query", "schema": {"type": "string"}}]


async def test_a_documents_hash_is_its_own(served: Served) -> None:
    async def urls() -> dict[str, str]:
        return {n: p["serverRelativeURL"] for n, p in (await served.get("/openapi/v3"))["paths"].items()}

    before = await urls()
    served.server.surface_changed()
    assert await urls() == before, "what did not change is not to be read again"


def test_merging_twice_changes_nothing() -> None:
    into: dict[str, Any] = {"paths": {}, "definitions": {STATUS: {"type": "object"}}}
    part = specs.filtered(v2(), f"/apis/{GV}/")
    specs.merge(into, part)
    once = orjson.dumps(into)
    specs.merge(into, part)
    assert orjson.dumps(into) == once
    other = {"get": {"responses": {"200": {"schema": {"$ref": REF + STATUS}}}}}
    specs.merge(into, {"paths": {"/other": other}, "definitions": {STATUS: part["definitions"][STATUS]}})
    assert sorted(into["definitions"]) == ["Thing", STATUS, f"{STATUS}_v2"]
