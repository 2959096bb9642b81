"""Spans of a request: around the whole of it, its stages, admission, webhooks, and every write to the store.

    HTTP request (a client's `traceparent` honoured)
      authentication
      priorityandfairness > authorization > Create | Update | Patch | Delete | Get | List
        mutating admission > Call mutating webhook (which gets `traceparent`), validating admission > …
        Create etcd3 | GuaranteedUpdate etcd3 | Delete etcd3 > etcdserverpb.KV/Txn

Nothing of this is in the way of a server that does not trace: `install` puts a traced chain, and traced bodies of the
seams below it, in the places of the plain ones. Only `Services.tracing` is asked for, by who calls a webhook.

Names and attributes are upstream's, but for `mutating admission` and `validating admission`, which it does not have.
A client who is not system:masters or system:monitoring does not decide what is traced: its request starts a trace of
its own, linked to the client's.

Source: k8s.io/apiserver pkg/endpoints/filters/traces.go, pkg/server/options/tracing.go.
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from berg.apiserver.chain import Chain
from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry.registry import Registry
from berg.apiserver.requestinfo import RequestInfo
from berg.apiserver.rest import NotServed
from berg.machinery import tracing
from berg.machinery.codec import yaml
from berg.machinery.status import ApiError
from berg.machinery.tracing import TracingConfiguration

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from berg.apiserver.registry.services import Services

SCOPE = "k8s.io/component-base/tracing"
_VERSIONS = tuple(f"apiserver.config.k8s.io/{v}" for v in ("v1alpha1", "v1beta1", "v1"))
_TRUSTED = ("system:masters", "system:monitoring")
"""whose `traceparent` says whether a request is traced"""
_VERBS = {
    "get": "Get",
    "list": "List",
    "create": "Create",
    "update": "Update",
    "patch": "Patch",
    "delete": "Delete",
    "deletecollection": "Delete",
}
_WRITES = {"create": "Create etcd3", "update": "GuaranteedUpdate etcd3", "delete": "Delete etcd3"}
_PROPAGATOR = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])

Attributes = dict[str, Any]


def load(path: str) -> TracingConfiguration:
    """Raises ValueError."""
    try:
        body, faults = yaml.loads_strict(Path(path).read_bytes())
    except FileNotFoundError:
        raise ValueError(f"tracing-config-file {path} does not exist") from None
    except (OSError, ValueError) as e:
        raise ValueError(f'unable to read tracing configuration from "{path}": {e}') from None
    head = "failed to read tracing config: unable to decode tracing configuration data: "
    if not isinstance(body, dict) or body.get("kind") != "TracingConfiguration":
        raise ValueError(f"{head}no TracingConfiguration")
    if body.get("apiVersion") not in _VERSIONS:
        raise ValueError(f'{head}no kind "TracingConfiguration" is registered for version "{body.get("apiVersion")}"')
    known = ("kind", "apiVersion", "endpoint", "samplingRatePerMillion")
    faults += [f'unknown field "{field}"' for field in body if field not in known]
    if faults:
        raise ValueError(f"{head}strict decoding error: {', '.join(faults)}")
    try:
        return TracingConfiguration.of(body)
    except ValueError as e:
        raise ValueError(f"failed to validate tracing configuration: {e}") from None


class Tracing:
    """What everybody who makes spans needs. Spans below a request nest by the context of its task."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self.tracer = provider.get_tracer(SCOPE)

    def span(self, name: str, attributes: Attributes | None = None, *, client: bool = False) -> AbstractContextManager:
        """Around a piece of the current request; outside of one that is traced, nothing."""
        if not trace.get_current_span().is_recording():
            return trace.use_span(trace.INVALID_SPAN)
        kind = SpanKind.CLIENT if client else SpanKind.INTERNAL
        return self.tracer.start_as_current_span(name, kind=kind, attributes=attributes)

    def headers(self) -> dict[str, str]:
        """What tells another server of the current span."""
        found: dict[str, str] = {}
        _PROPAGATOR.inject(found)
        return found

    async def close(self) -> None:
        await tracing.close(self._provider)


class TracedChain(Chain):
    @property
    def tracing(self) -> Tracing:
        found: Tracing = self.resources.services.tracing
        return found

    async def _identified(self, request: Request) -> Response:
        request.attributes["received_ns"] = time.time_ns()
        try:
            response = await super()._identified(request)
        except BaseException as e:
            _end(request, e.code if isinstance(e, ApiError) else 404 if isinstance(e, NotServed) else 500, error=e)
            raise
        if response.stream is not None:
            response.stream = _until_read(request, response, response.stream)
        else:
            _end(request, response.status, len(response.body))
        return response

    async def _admitted_by_flow_control(self, request: Request) -> Response:
        """Who asks is known only now, and with that, who decides whether this is traced."""
        span = request.attributes["span"] = self._open(request)
        with trace.use_span(span):
            now = time.time_ns()
            authenticated = self.tracing.tracer.start_span("authentication", start_time=_received(request))
            authenticated.end(now)
            with self.tracing.span("priorityandfairness"):
                return await super()._admitted_by_flow_control(request)

    async def _authorized(self, request: Request) -> Response:
        with self.tracing.span("authorization"):
            return await super()._authorized(request)

    async def _dispatched(self, request: Request) -> Response:
        info: RequestInfo = request.info
        name = _VERBS.get(info.verb)
        if not info.is_resource or name is None or not trace.get_current_span().is_recording():
            return await super()._dispatched(request)
        with self.tracing.span(name, _fields(request, info)):
            return await super()._dispatched(request)

    def _open(self, request: Request) -> Span:
        user = request.user
        context: Context | None = _PROPAGATOR.extract(request.headers, Context())
        links: list[Link] = []
        if user is None or not any(group in _TRUSTED for group in user.groups):
            theirs = trace.get_current_span(context).get_span_context()
            links = [Link(theirs)] if theirs.is_valid else []
            context = Context()
        span = self.tracing.tracer.start_span(
            _name(request), context, SpanKind.SERVER, links=links, start_time=_received(request)
        )
        if span.is_recording():
            identity = request.attributes.setdefault("audit_id", self._new_id())
            span.set_attributes(_http(request, identity))
        return span


def _received(request: Request) -> int:
    return int(request.attributes["received_ns"])


def _end(request: Request, code: int, size: int | None = None, error: BaseException | None = None) -> None:
    span: Span | None = request.attributes.get("span")
    if span is None:
        return
    span.set_attribute("http.response.status_code", code)
    if size is not None:
        span.set_attribute("http.response.body.size", size)
    if code >= 500:
        span.set_status(Status(StatusCode.ERROR, str(error) if error is not None else None))
    span.end()


async def _until_read(request: Request, response: Response, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    try:
        async for chunk in stream:
            size += len(chunk)
            yield chunk
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
        _end(request, response.status, size)


def _name(request: Request) -> str:
    info: RequestInfo = request.info
    if not info.is_resource:
        return request.method
    parts = [request.path.split("/", 2)[1], info.api_group, info.api_version]
    if info.namespace:
        parts += ["namespaces", "{:namespace}"]
    parts += [info.resource, "{:name}" if info.name else "", info.subresource]
    return f"{request.method} /" + "/".join(p for p in parts if p)


def _http(request: Request, audit_id: str) -> Attributes:
    query = f"?{request.raw_query}" if request.raw_query else ""
    host, _, port = request.headers.get("host", "").rpartition(":")
    peer, _, peer_port = request.remote.rpartition(":")
    return {
        "http.request.method": request.method,
        "url.scheme": "https",
        "url.path": request.path,
        "http.target": request.path + query,
        "server.address": host,
        "server.port": int(port) if port.isdigit() else 0,
        "client.address": peer,
        "network.peer.address": peer,
        "network.peer.port": int(peer_port) if peer_port.isdigit() else 0,
        "network.protocol.version": "2" if request.protocol == "HTTP/2.0" else "1.1",
        "user_agent.original": request.headers.get("user-agent", ""),
        "http.request.body.size": len(request.body),
        "audit-id": audit_id,
    }


def _fields(request: Request, info: RequestInfo) -> Attributes:
    return {
        "accept": request.headers.get("accept", ""),
        "audit-id": request.attributes.get("audit_id", ""),
        "client": request.remote.rpartition(":")[0],
        "api-group": info.api_group,
        "api-version": info.api_version,
        "name": info.name,
        "subresource": info.subresource,
        "namespace": info.namespace,
        "protocol": request.protocol,
        "resource": info.resource,
        "scope": "resource" if info.name or info.verb == "create" else "namespace" if info.namespace else "cluster",
        "url": request.path,
        "user-agent": request.headers.get("user-agent", ""),
        "verb": info.verb.upper(),
    }


# ---- below the chain


class TracedAdmission:
    """The admission chain, a span around each of its two runs."""

    def __init__(self, inner: Any, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def run_mutating(self, a: Any) -> None:
        with self._tracing.span("mutating admission", {"operation": a.operation}):
            await self._inner.run_mutating(a)

    async def run_validating(self, a: Any) -> None:
        with self._tracing.span("validating admission", {"operation": a.operation}):
            await self._inner.run_validating(a)


Call = Callable[..., Awaitable[Any]]


def _write(tracing: Tracing, call: Call, name: str, registry: Registry) -> Call:
    group, plural = registry.storage.group, registry.storage.plural

    @functools.wraps(call)
    async def traced(key: str, *args: Any, **named: Any) -> Any:
        attributes = {"key": f"/{plural}/{key}", "type": registry.storage.kind, "group": group, "resource": plural}
        with tracing.span(name, attributes):
            return await call(key, *args, **named)

    return traced


def install(services: Services) -> None:
    """Before any cacher is opened. Raises ValueError, tracing.NotInstalled."""
    configuration = load(services.config.tracing_config_file)
    made = services.tracing = Tracing(tracing.provider(configuration, "apiserver", services.instance))
    open_cacher = services.open_cacher

    async def opened(registry: Registry) -> Any:
        cacher = await open_cacher(registry)
        for name, shown in _WRITES.items():
            setattr(cacher, name, _write(made, getattr(cacher, name), shown, registry))
        return cacher

    def transacted(call: Call) -> Call:
        async def traced(*args: Any) -> Any:
            with made.span("etcdserverpb.KV/Txn", client=True):
                return await call(*args)

        return traced

    services.open_cacher = opened  # type: ignore[method-assign]
    for store in {services.store, *services.store_of.values()}:
        for name in ("txn", "swap"):
            if hasattr(store, name):
                setattr(store, name, transacted(getattr(store, name)))
