"""Requests that end somewhere else: pods, services, aggregated servers; and logs and streams of kubelets."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from berg.apiserver.http.forward import Target, Unreachable, forward
from berg.apiserver.http.message import Request, Response, Stream
from berg.apiserver.http.server import HTTPServer
from berg.apiserver.http.tls import server_context
from berg.machinery import pki
from tests.unit.apiserver.served_api import ADMIN, Served

NAMESPACE = "/api/v1/namespaces/default"


async def backend(request: Request) -> Response:
    if "upgrade" in request.headers:

        async def echo(stream: Stream) -> None:
            while data := await stream.reader.read(100):
                stream.write(data.upper())
                await stream.drain()

        return Response(101, headers={"Connection": "Upgrade", "Upgrade": request.headers["upgrade"]}, upgrade=echo)
    if request.path == "/slow":

        async def lines() -> AsyncIterator[bytes]:
            yield b"one\n"
            yield b"two\n"

        return Response(stream=lines(), content_type="text/plain")
    if request.path == "/apis/metrics.example.com/v1":
        resource = {"name": "things", "singularName": "thing", "namespaced": True, "kind": "Thing", "verbs": ["get"]}
        listed = {"kind": "APIResourceList", "groupVersion": "metrics.example.com/v1", "resources": [resource]}
        return Response(200, orjson.dumps(listed))
    seen = {
        "path": request.path,
        "query": request.raw_query,
        "method": request.method,
        "body": request.body.decode(),
        "user": request.headers.get("x-remote-user", ""),
        "groups": request.headers.get("x-remote-group", "").split("\n"),
        "authorization": request.headers.get("authorization", ""),
    }
    return Response(200, orjson.dumps(seen), headers={"X-Backend": "yes"})


@pytest.fixture
async def plain() -> AsyncIterator[HTTPServer]:
    server = HTTPServer(backend, host="127.0.0.1")
    await server.start()
    yield server
    await server.stop()


async def test_bodies_and_streams(plain: HTTPServer) -> None:
    request = Request("POST", "/x", headers={"authorization": "secret"}, body=b"hi")
    answer = await forward(request, Target("127.0.0.1", plain.port, "/x", "a=b"))
    seen = orjson.loads(answer.body)
    assert (seen["path"], seen["query"], seen["body"], seen["authorization"]) == ("/x", "a=b", "hi", "")
    assert answer.headers["X-Backend"] == "yes"
    answer = await forward(Request("GET", "/slow"), Target("127.0.0.1", plain.port, "/slow"))
    assert answer.stream is not None
    assert b"".join([c async for c in answer.stream]) == b"one\ntwo\n"
    with pytest.raises(Unreachable):
        await forward(Request("GET", "/"), Target("127.0.0.1", 1, "/"))


async def test_an_upgrade_joins_both_ends(plain: HTTPServer) -> None:
    async def handle(request: Request) -> Response:
        return await forward(request, Target("127.0.0.1", plain.port, "/"))

    front = HTTPServer(handle, host="127.0.0.1")
    await front.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"101 " in head and b"Upgrade: SPDY/3.1" in head
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"HELLO"
    writer.close()
    await front.stop()


async def pod(served: Served) -> None:
    await served.create(f"{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}})
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
    await served.create(f"{NAMESPACE}/pods", {"metadata": {"name": "proxy-p"}, "spec": spec})
    state = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "phase": "Running"}
    code, _ = await served.patch(f"{NAMESPACE}/pods/proxy-p/status", {"status": state})
    assert code == 200


async def test_pods_and_services_are_reached(
    served: Served, plain: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pod(served)
    code, refused = await served.ask("GET", f"{NAMESPACE}/pods/proxy-p:{plain.port}/proxy/a")
    assert code == 400 and refused["message"] == "address not allowed"
    monkeypatch.setattr("berg.apiserver.subresources.proxy.check_address", lambda host: None)
    code, seen = await served.ask("GET", f"{NAMESPACE}/pods/proxy-p:{plain.port}/proxy/a/b?c=d")
    assert code == 200 and (seen["path"], seen["query"]) == ("/a/b", "c=d")
    redirected = await served.raw("GET", f"{NAMESPACE}/pods/proxy-p:{plain.port}/proxy")
    assert redirected.status == 301 and redirected.headers["Location"].endswith("/proxy/")
    ports = [{"name": "web", "port": 80, "targetPort": plain.port}]
    await served.create(f"{NAMESPACE}/services", {"metadata": {"name": "s"}, "spec": {"ports": ports}})
    code, refused = await served.ask("GET", f"{NAMESPACE}/services/s:web/proxy/x")
    assert code == 503 and refused["message"] == 'no endpoints available for service "s"'
    await slice_of(served, "s", "default", "web", "127.0.0.2", plain.port)
    code, refused = await served.ask("GET", f"{NAMESPACE}/services/s:other/proxy/x")
    assert code == 503 and 'no service port "other" found' in refused["message"]


async def slice_of(served: Served, name: str, namespace: str, port: str, address: str, number: int) -> None:
    made = {
        "metadata": {"name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": port, "port": number, "protocol": "TCP"}],
    }
    # Past validation: endpoints on loopback are refused to clients, and loopback is all that a test has.
    from berg.machinery.resources import resource

    registry = served.server.services.registry(resource("endpointslices.discovery.k8s.io"))
    cacher = await registry.open()
    made["metadata"] |= {"namespace": namespace, "uid": "u"}
    await cacher.create(f"{namespace}/{name}-x", {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", **made})


async def test_an_aggregated_server(served: Served, tmp_path: Path) -> None:
    authority = pki.CertificateAuthority.create("aggregated")
    pair = authority.issue("server", names=["ext.default.svc"], server=True)
    cert, key = pair.write(tmp_path, "server")
    remote = HTTPServer(backend, host="127.0.0.1", tls=server_context(str(cert), str(key)))
    await remote.start()
    ports = [{"name": "https", "port": 443, "targetPort": remote.port}]
    await served.create(f"{NAMESPACE}/services", {"metadata": {"name": "ext"}, "spec": {"ports": ports}})
    await slice_of(served, "ext", "default", "https", "127.0.0.1", remote.port)
    spec = {
        "group": "metrics.example.com",
        "version": "v1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "caBundle": base64.b64encode(authority.certificate).decode(),
        "service": {"name": "ext", "namespace": "default"},
    }
    path = "/apis/apiregistration.k8s.io/v1/apiservices"
    await served.create(path, {"metadata": {"name": "v1.metrics.example.com"}, "spec": spec})
    async with asyncio.timeout(5):
        while True:
            state = (await served.get(f"{path}/v1.metrics.example.com")).get("status") or {}
            conditions = {c["type"]: (c["status"], c["reason"]) for c in state.get("conditions") or ()}
            if conditions.get("Available") == ("True", "Passed"):
                break
            await asyncio.sleep(0.01)
    things = "/apis/metrics.example.com/v1/namespaces/default/things/x"
    _, seen = await served.ask("GET", things, x_remote_group="system:masters\nothers")
    assert (seen["path"], seen["user"], seen["groups"]) == (things, "admin", list(ADMIN.groups))
    groups = [g["name"] for g in (await served.get("/apis"))["groups"]]
    assert "metrics.example.com" in groups
    await remote.stop()
    refused = await served.raw("GET", things)
    assert refused.status == 503 and refused.body.startswith(b"error trying to reach service: dial tcp ")


async def test_logs_and_exec_need_a_node(served: Served) -> None:
    await pod(served)
    code, refused = await served.ask("GET", f"{NAMESPACE}/pods/proxy-p/log?container=nope")
    assert code == 400 and refused["message"] == "container nope is not valid for pod proxy-p"
    code, refused = await served.ask("GET", f"{NAMESPACE}/pods/proxy-p/log?tailLines=-1")
    assert code == 422
    code, refused = await served.ask("GET", f"{NAMESPACE}/pods/proxy-p/log")
    assert code == 404 and refused["message"] == 'nodes "n1" not found'
    code, refused = await served.ask("POST", f"{NAMESPACE}/pods/proxy-p/exec?command=ls")
    assert code == 400 and refused["message"] == "you must specify at least 1 of stdin, stdout, stderr"


async def test_logs_come_from_the_kubelet(served: Served, tmp_path: Path) -> None:
    asked: list[str] = []

    async def kubelet(request: Request) -> Response:
        asked.append(f"{request.path}?{request.raw_query}")
        return Response(200, b"line\n", "text/plain")

    authority = pki.CertificateAuthority.create("kubelet")
    cert, key = authority.issue("n1", names=["127.0.0.1"], server=True).write(tmp_path, "kubelet")
    server = HTTPServer(kubelet, host="127.0.0.1", tls=server_context(str(cert), str(key)))
    await server.start()
    await pod(served)
    await served.create("/api/v1/nodes", {"metadata": {"name": "n1"}})
    state = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": server.port}},
    }
    assert (await served.patch("/api/v1/nodes/n1/status", {"status": state}))[0] == 200
    answer = await served.raw("GET", f"{NAMESPACE}/pods/proxy-p/log?tailLines=3&follow=true")
    assert (answer.status, answer.body, answer.content_type) == (200, b"line\n", "text/plain")
    assert asked == ["/containerLogs/default/proxy-p/c?tailLines=3&follow=true"]
    await server.stop()
