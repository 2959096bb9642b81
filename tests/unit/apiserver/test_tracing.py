"""What a collector gets to see of a request: nested spans over OTLP, from a real exporter."""

from __future__ import annotations

import base64
import json
import re
import ssl
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from berg import storage
from berg.apiserver import tracing
from berg.apiserver.config import Config
from berg.apiserver.http.message import User
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock
from berg.machinery.pki import CertificateAuthority
from berg.machinery.tracing import NotInstalled, TracingConfiguration, provider
from tests.unit.apiserver.served_api import Served

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
MAPS = "/api/v1/namespaces/default/configmaps"


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    spans: list[Any] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)

    def Export(self, request: Any, context: Any) -> Any:
        for of_resource in request.resource_spans:
            self.resources.append({a.key: a.value.string_value for a in of_resource.resource.attributes})
            for scope in of_resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def way(self, name: str) -> list[str]:
        """The span's name and those it lies in, outermost first; last the id that the outermost hangs on."""
        by_id = {s.span_id: s for s in self.spans}
        (span,) = [s for s in self.spans if s.name == name]
        found: list[str] = []
        while span is not None:
            found.append(span.name)
            above = span.parent_span_id
            span = by_id.get(above)
        return [above.hex(), *reversed(found)]

    def names(self) -> set[str]:
        return {s.name for s in self.spans}


@pytest.fixture
def collector() -> Any:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.port = server.add_insecure_port("127.0.0.1:0")  # type: ignore[attr-defined]
    server.start()
    yield collector
    server.stop(None).wait()


def written(tmp_path: Path, **fields: Any) -> str:
    path = tmp_path / "tracing.yaml"
    body = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "TracingConfiguration", **fields}
    path.write_text(json.dumps(body))
    return str(path)


@pytest.fixture
async def traced(collector: Any, tmp_path: Path) -> AsyncIterator[Served]:
    clock = FakeClock()
    store = storage.open("memory:", clock=clock, compaction_interval_s=0)
    await store.start()
    path = written(tmp_path, endpoint=f"127.0.0.1:{collector.port}")
    server = APIServer(Config(secure_port=-1, store=store, clock=clock, tracing_config_file=path))
    await server.start()
    yield Served(server, clock)
    await server.stop()
    await store.close()


async def sent(traced: Served) -> None:
    """Everything that has ended is with the collector."""
    await traced.server.services.tracing.close()


async def test_spans_nest_from_the_request_to_the_store(traced: Served, collector: Collector) -> None:
    await traced.create(MAPS, {"metadata": {"name": "a"}}, traceparent=TRACEPARENT)
    await sent(traced)
    request = f"POST {MAPS.replace('default', '{:namespace}')}"
    stages = [PARENT, request, "priorityandfairness", "authorization", "Create"]
    assert collector.way("etcdserverpb.KV/Txn") == [*stages, "Create etcd3", "etcdserverpb.KV/Txn"]
    assert collector.way("mutating admission") == [*stages, "mutating admission"]
    assert collector.way("validating admission") == [*stages, "validating admission"]
    assert collector.way("authentication") == [PARENT, request, "authentication"]
    assert {s.trace_id.hex() for s in collector.spans} == {TRACE}
    assert collector.resources[0]["service.name"] == "apiserver"
    (span,) = [s for s in collector.spans if s.name == request]
    shown = {a.key: a.value.int_value or a.value.string_value for a in span.attributes}
    assert (shown["http.response.status_code"], shown["http.target"]) == (201, MAPS)


async def test_the_other_verbs_and_a_refusal(traced: Served, collector: Collector) -> None:
    await traced.create(MAPS, {"metadata": {"name": "a"}})
    await traced.patch(f"{MAPS}/a", {"data": {"k": "v"}}, traceparent=TRACEPARENT)
    await traced.ask("DELETE", f"{MAPS}/a", traceparent=TRACEPARENT)
    code, _ = await traced.ask("GET", f"{MAPS}/a", traceparent=TRACEPARENT)
    response = await traced.raw("GET", "/api/v1/namespaces?watch=1", traceparent=TRACEPARENT)
    assert response.stream is not None
    await anext(response.stream)
    await response.stream.aclose()  # type: ignore[attr-defined]
    await sent(traced)
    assert {"Patch", "GuaranteedUpdate etcd3", "Delete", "Delete etcd3", "Get"} <= collector.names()
    gets = [s for s in collector.spans if s.name.startswith("GET ") and s.name.endswith("{:name}")]
    assert [a.value.int_value for a in gets[0].attributes if a.key == "http.response.status_code"] == [code] == [404]
    assert [s.name for s in collector.spans if s.name == "GET /api/v1/namespaces"], "a watch ends with its stream"


async def test_only_who_is_trusted_decides_what_is_traced(traced: Served, collector: Collector) -> None:
    someone = User("jane", groups=("system:authenticated",))
    await traced.ask("GET", f"{MAPS}/a", user=someone, traceparent=TRACEPARENT)
    await traced.ask("GET", f"{MAPS}/a")
    await sent(traced)
    assert collector.spans == []


async def test_webhooks_are_told(traced: Served, collector: Collector, tmp_path: Path) -> None:
    heard: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(request.headers["traceparent"])
        review = await request.json()
        return web.json_response(
            {**review, "request": None, "response": {"uid": review["request"]["uid"], "allowed": True}}
        )

    authority = CertificateAuthority.create("hooks")
    certificate, key = authority.issue("hook", names=("127.0.0.1",), server=True).write(tmp_path, "hook")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    hook = {
        "name": "h.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {
            "url": f"https://127.0.0.1:{runner.addresses[0][1]}/",
            "caBundle": base64.b64encode(authority.certificate).decode(),
        },
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}],
    }
    where = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    await traced.create(where, {"metadata": {"name": "c"}, "webhooks": [hook]})
    await traced.create(MAPS, {"metadata": {"name": "a"}}, traceparent=TRACEPARENT)
    await runner.cleanup()
    await sent(traced)
    (span,) = [s for s in collector.spans if s.name == "Call mutating webhook"]
    assert collector.way("Call mutating webhook")[-2] == "mutating admission"
    assert heard == [f"00-{TRACE}-{span.span_id.hex()}-01"]
    assert {a.key: a.value.string_value for a in span.attributes}["webhook"] == "h.example.com"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"samplingRatePerMillion": -1}, "sampling rate must be positive"),
        ({"samplingRatePerMillion": 1_000_001}, "must be less than or equal to one million"),
        ({"endpoint": "http://localhost:4317"}, "unsupported scheme: http"),
        ({"endpiont": "localhost:4317"}, 'strict decoding error: unknown field "endpiont"'),
        ({"apiVersion": "v1"}, 'is registered for version "v1"'),
    ],
)
def test_bad_configuration(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        tracing.load(written(tmp_path, **fields))


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(NotInstalled, match=r"pip install \"berg\[tracing\]\""):
        provider(TracingConfiguration(), "apiserver")
