"""What requests come to, under upstream's names: one look-up per request, and some additions.

    begin ─► the request's way through the chain ─► end: `Alike` of what has the same labels counts it

What is refused before anybody looks at what it asks for (no credentials, not allowed, no such path) is not counted
here, as upstream does not. A stream is counted when it is over. Families that tell the same with other labels or
coarser bounds are read off the same cells.

Source: k8s.io/apiserver pkg/endpoints/metrics.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any
from weakref import ref

from berg.apiserver.http.message import Request, Response
from berg.apiserver.requestinfo import RequestInfo
from berg.apiserver.traffic import MUTATING, READ, WRITE, Traffic
from berg.machinery.metrics import CONTENT_TYPE, Cell, Labels, Registry, exponential

_SECONDS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
)  # fmt: skip
_COARSE_SECONDS = _SECONDS[2:]
_SIZES = exponential(1000, 10, 7)
_BODIES = tuple(50_000.0 + 100_000 * i for i in range(31))
_LABELS = ("component", "group", "resource", "scope", "subresource", "verb", "version")
_COLLECTIONS = frozenset(("list", "watch", "deletecollection"))
_CONNECT = frozenset(("log", "exec", "portforward", "attach", "proxy"))
_VERBS = {"create": "POST", "update": "PUT", "deletecollection": "DELETE"}
_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "LIST", "WATCH", "APPLY", "CONNECT", "PROXY"))
_VALIDATIONS = frozenset(("Ignore", "Warn", "Strict"))
_TOLD_OF = {
    "/healthz": ("", "/healthz"),
    "/livez": ("", "/livez"),
    "/readyz": ("", "/readyz"),
    "/openapi/v3": ("", "openapi/v3"),
    "/openapi/v3/": ("", "openapi/v3/"),
    "/api": ("apiserver", "api"),
    "/apis": ("apiserver", "apis"),
}
"""what is counted of paths without resources: component, subresource"""

UNCOUNTED = "uncounted"
"""in a request's attributes: it did not come to where upstream counts"""
TERMINATED = "terminated"
"""in a request's attributes: it was given up, to protect the server"""
WAITED_S = "waited_s"
"""in a request's attributes: how long it waited for webhooks and in queues, which no objective blames the server for"""


class Alike:
    """Requests with the same labels, code and all."""

    __slots__ = ("bodies", "code", "corrections", "count", "dry_run", "labels", "latency", "sizes", "validation")

    def __init__(self, labels: Labels, dry_run: str, validation: str, code: int) -> None:
        self.labels = labels
        self.dry_run = dry_run
        self.validation = validation
        self.code = code
        self.count = 0
        self.latency = Cell(_SECONDS)
        self.corrections: Cell | None = None
        """how latency without waits differs"""
        self.sizes = Cell(_SIZES) if labels[5] in ("GET", "LIST") else None
        self.bodies: Cell | None = None


class Metrics:
    def __init__(self, registry: Registry) -> None:
        self._alike: dict[tuple[Any, ...], Alike] = {}
        self.traffic = Traffic()
        self._streams: dict[int, tuple[Any, Labels]] = {}
        """answers under way that may never end: id → weak reference, labels"""
        self._started = time.time()
        self.registry = r = registry
        self._terminations = r.counter(
            "apiserver_request_terminations_total",
            "[ALPHA] Requests that were given up to protect the server.",
            (*_LABELS, "code"),
        )
        self._aborts = r.counter(
            "apiserver_request_aborts_total", "[ALPHA] Requests whose client went away.", _LABELS[1:]
        )
        self._describe(r)

    # ---- counting

    def begin(self, request: Request) -> float:
        now = perf_counter()
        self.traffic.change(WRITE if request.info.verb in MUTATING else READ, now)
        return now

    def end(self, request: Request, info: RequestInfo, response: Response, started: float) -> None:
        now, verb, attributes = perf_counter(), info.verb, request.attributes
        mutating = verb in MUTATING
        self.traffic.change(-WRITE if mutating else -READ, now)
        if attributes and UNCOUNTED in attributes:
            return
        query = request.raw_query
        key = (
            (verb, info.api_group, info.api_version, info.resource, info.subresource, not info.namespace,
             response.status, verb == "patch" and "apply-patch" in request.headers.get("content-type", ""),
             query and _query_labels(request, query))
            if info.is_resource
            else (info.path, request.method, response.status, "Discovery" in response.content_type)
        )  # fmt: skip
        alike = self._alike.get(key)
        if alike is None:
            alike = self._new(key, request, info, response.status)
            if alike is None:
                return
        if response.stream is not None or response.upgrade is not None:
            self._follow(response.stream or response.upgrade, alike, started)
            return
        seconds = now - started
        alike.count += 1
        cell = alike.latency
        cell.buckets[bisect_left(_SECONDS, seconds)] += 1
        cell.count += 1
        cell.total += seconds
        if (cell_ := alike.sizes) is not None:
            size = len(response.body)
            cell_.buckets[bisect_left(_SIZES, size)] += 1
            cell_.count += 1
            cell_.total += size
        elif mutating:
            if alike.bodies is None:
                alike.bodies = Cell(_BODIES)
            alike.bodies.observe(len(request.body))
        if attributes:
            if (waited := attributes.get(WAITED_S)) is not None:
                if alike.corrections is None:
                    alike.corrections = Cell(_SECONDS)
                alike.corrections.moved(seconds, max(seconds - waited, 0.0))
            if TERMINATED in attributes:
                self._terminations.inc(*alike.labels, str(response.status))

    def aborted(self, info: RequestInfo) -> None:
        self.traffic.change(-WRITE if info.verb in MUTATING else -READ, perf_counter())
        if info.is_resource:
            self._aborts.inc(*_labels(info, apply=False)[1:])

    def _new(self, key: tuple[Any, ...], request: Request, info: RequestInfo, code: int) -> Alike | None:
        dry_run = validation = ""
        if info.is_resource:
            labels = _labels(info, apply=bool(key[-2]))
            if key[-1]:
                dry_run, validation = key[-1]
        else:
            path = info.path if info.path in _TOLD_OF else "/openapi/v3/" if info.path[:12] == "/openapi/v3/" else ""
            if not path or (path in ("/api", "/apis") and not key[-1]):
                return None
            component, shown = _TOLD_OF[path]
            verb = request.method if request.method in _METHODS else "GET" if request.method == "HEAD" else "OTHER"
            labels = (component, "", "", "", shown, verb, "")
        found = self._alike[key] = Alike(labels, dry_run, validation, code)
        return found

    def _follow(self, answer: Any, alike: Alike, started: float) -> None:
        """Gone from here, and counted, when nobody holds it any more: it is over."""

        def over(_: object, name: int = id(answer)) -> None:
            del self._streams[name]
            alike.count += 1
            alike.latency.observe(perf_counter() - started)

        self._streams[id(answer)] = ref(answer, over), alike.labels

    # ---- telling

    def handle(self, request: Request) -> Response:
        headers = {"Process-Start-Time-Unix": str(int(self._started))}
        return Response(200, self.registry.text().encode(), CONTENT_TYPE, headers)

    def _describe(self, r: Registry) -> None:
        r.total(
            "apiserver_request_total",
            "[STABLE] Requests by verb, group, resource and code.",
            (*_LABELS, "code", "dry_run"),
            lambda: self._sums(),
        )
        r.distribution(
            "apiserver_request_duration_seconds",
            "[STABLE] Response latency by verb, group and resource.",
            _SECONDS,
            (*_LABELS, "dry_run"),
            lambda: _merged(((*a.labels, a.dry_run), a.latency) for a in self._counted()),
        )
        r.distribution(
            "apiserver_request_sli_duration_seconds",
            "[ALPHA] Response latency without waiting for webhooks and in queues.",
            _COARSE_SECONDS,
            _LABELS,
            lambda: _merged(
                (a.labels, cell)
                for a in self._counted()
                if not a.dry_run and a.labels[5] not in ("WATCH", "CONNECT")
                for cell in (a.latency, a.corrections)
                if cell is not None
            ),
        )
        r.distribution(
            "field_validation_request_duration_seconds",
            "[ALPHA] Response latency by how unknown fields are treated.",
            _COARSE_SECONDS,
            ("field_validation",),
            lambda: _merged(((a.validation,), a.latency) for a in self._counted()),
        )
        r.distribution(
            "apiserver_response_sizes",
            "[STABLE] Response sizes in bytes, of reads.",
            _SIZES,
            _LABELS,
            lambda: _merged((a.labels, a.sizes) for a in self._counted() if a.sizes is not None),
        )
        r.distribution(
            "apiserver_request_body_size_bytes",
            "[ALPHA] Sizes of bodies of writes.",
            _BODIES,
            ("group", "resource", "verb"),
            lambda: _merged((_body_labels(a.labels), a.bodies) for a in self._counted() if a.bodies is not None),
        )
        r.gauge(
            "apiserver_longrunning_requests",
            "[STABLE] Watches, logs and streams under way now.",
            _LABELS,
            lambda: Tally(labels for _, labels in list(self._streams.values())).items(),
        )
        self.traffic.describe(r)

    def _counted(self) -> list[Alike]:
        return [a for a in self._alike.values() if a.count]

    def _sums(self) -> Iterable[tuple[Labels, float]]:
        found: dict[Labels, int] = {}
        for a in self._counted():
            labels = (*a.labels, str(a.code), a.dry_run)
            found[labels] = found.get(labels, 0) + a.count
        return found.items()


def _labels(info: RequestInfo, *, apply: bool) -> Labels:
    """Of a request for a resource. The scope is that of the path, whatever a selector says."""
    verb = _VERBS.get(info.verb) or info.verb.upper()
    if apply:
        verb = "APPLY"
    if info.subresource in _CONNECT:
        verb = "CONNECT"
    scope = "resource" if info.verb not in _COLLECTIONS else "namespace" if info.namespace else "cluster"
    shown = verb if verb in _METHODS else "OTHER"
    return ("apiserver", info.api_group, info.resource, scope, info.subresource, shown, info.api_version)


_BODY_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "APPLY": "patch", "DELETE": "delete"}


def _body_labels(labels: Labels) -> Labels:
    _, group, resource, scope, _, verb, _ = labels
    collection = verb == "DELETE" and scope != "resource"
    return group, resource, "delete_collection" if collection else _BODY_VERBS.get(verb, verb.lower())


def _query_labels(request: Request, query: str) -> tuple[str, str] | None:
    """What is told of a dry run and of field validation."""
    dry_run = validation = ""
    if "dryRun" in query:
        given = set(request.query.get("dryRun", ()))
        dry_run = "All" if given == {"All"} else "invalid" if given else ""
    if "fieldValidation" in query:
        values = request.query.get("fieldValidation", [])
        validation = values[0] if len(values) == 1 and values[0] in _VALIDATIONS else "invalid"
    return (dry_run, validation) if dry_run or validation else None


def _merged(cells: Iterable[tuple[Labels, Cell]]) -> Iterator[tuple[Labels, Cell]]:
    """One cell for each set of labels."""
    found: dict[Labels, Cell] = {}
    for labels, cell in cells:
        found[labels] = found[labels].plus(cell) if labels in found else cell
    yield from found.items()
