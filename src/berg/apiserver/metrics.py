"""`/metrics`: the requests of this server, under upstream's names, in Prometheus' text format.

Counting costs two dictionary look-ups per request; everything else happens when somebody asks.

Source: k8s.io/apiserver pkg/endpoints/metrics.
"""

from __future__ import annotations

import resource as rlimits
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path

from berg.apiserver import version
from berg.apiserver.http.message import Request, Response
from berg.apiserver.requestinfo import RequestInfo

_BUCKETS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
)  # fmt: skip
_SIZES = tuple(float(10**i) for i in range(3, 10))
_MUTATING = frozenset(("create", "update", "patch", "delete", "deletecollection"))
_VERBS = {"create": "POST", "update": "PUT", "deletecollection": "DELETECOLLECTION"}

Labels = tuple[str, ...]
Gauge = Callable[[], Iterator[tuple[str, float]]]


class _Histogram:
    __slots__ = ("bounds", "buckets", "count", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value


class Metrics:
    def __init__(self) -> None:
        self._requests: dict[tuple[Labels, str, int], int] = {}
        self._durations: dict[Labels, _Histogram] = {}
        self._sizes: dict[Labels, _Histogram] = {}
        self._inflight = {"readOnly": 0, "mutating": 0}
        self._long_running: dict[Labels, int] = {}
        self._started = time.time()
        self.gauges: dict[str, tuple[str, str, Gauge]] = {}
        """name → (type, help, samples as (label text, value)), from other parts of the server"""

    # ---- counting

    def begin(self, request: Request) -> float:
        kind = "mutating" if request.info.verb in _MUTATING else "readOnly"
        self._inflight[kind] += 1
        return time.perf_counter()

    def end(self, request: Request, info: RequestInfo, response: Response, started: float) -> None:
        self._inflight["mutating" if info.verb in _MUTATING else "readOnly"] -= 1
        if info.is_resource:
            scope = "resource" if info.name or info.verb == "create" else "namespace" if info.namespace else "cluster"
            verb = _VERBS.get(info.verb) or info.verb.upper()
            labels = (verb, info.api_group, info.api_version, info.resource, info.subresource, scope)
        else:
            labels = (info.verb.upper(), "", "", "", "", "")
        dry_run = "All" if request.raw_query and "dryRun" in request.raw_query else ""
        key = (labels, dry_run, response.status)
        self._requests[key] = self._requests.get(key, 0) + 1
        if response.stream is not None:
            return
        histogram = self._durations.get(labels)
        if histogram is None:
            histogram = self._durations[labels] = _Histogram(_BUCKETS)
            self._sizes[labels] = _Histogram(_SIZES)
        histogram.observe(time.perf_counter() - started)
        self._sizes[labels].observe(len(response.body))

    # ---- telling

    def handle(self, request: Request) -> Response:
        return Response(200, "".join(self._lines()).encode(), "text/plain; version=0.0.4; charset=utf-8")

    def _lines(self) -> Iterator[str]:
        yield _head("apiserver_request_total", "counter", "Requests by verb, group, resource and code.")
        for ((verb, group, ver, plural, sub, scope), dry_run, code), count in list(self._requests.items()):
            text = _labels(verb, group, ver, plural, sub, scope)
            yield f'apiserver_request_total{{code="{code}",{text},dry_run="{dry_run}"}} {count}\n'
        yield from _histograms(
            "apiserver_request_duration_seconds", "Response latency by verb, group and resource.", self._durations
        )
        yield from _histograms("apiserver_response_sizes", "Response sizes in bytes.", self._sizes)
        yield _head("apiserver_current_inflight_requests", "gauge", "Requests under way now, by kind.")
        for kind, value in self._inflight.items():
            yield f'apiserver_current_inflight_requests{{request_kind="{kind}"}} {value}\n'
        for name, (type_, text, samples) in self.gauges.items():
            yield _head(name, type_, text)
            for shown, sample in samples():
                yield f"{name}{shown} {sample}\n"
        yield _head("kubernetes_build_info", "gauge", "A metric of 1 with the version in its labels.")
        info = version.info()
        yield (
            f'kubernetes_build_info{{git_version="{info["gitVersion"]}",major="{info["major"]}",'
            f'minor="{info["minor"]}",platform="{info["platform"]}"}} 1\n'
        )
        yield from self._process()

    def _process(self) -> Iterator[str]:
        usage = rlimits.getrusage(rlimits.RUSAGE_SELF)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * rlimits.getpagesize()
        for name, type_, text, value in (
            ("process_cpu_seconds_total", "counter", "User and system time.", usage.ru_utime + usage.ru_stime),
            ("process_resident_memory_bytes", "gauge", "Resident memory.", float(resident)),
            ("process_start_time_seconds", "gauge", "When the process started.", self._started),
        ):
            yield _head(name, type_, text) + f"{name} {value}\n"


def _head(name: str, type_: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {type_}\n"


def _labels(verb: str, group: str, ver: str, plural: str, sub: str, scope: str) -> str:
    return (
        f'component="apiserver",group="{group}",resource="{plural}",scope="{scope}",subresource="{sub}",'
        f'verb="{verb}",version="{ver}"'
    )


def _histograms(name: str, text: str, found: dict[Labels, _Histogram]) -> Iterator[str]:
    yield _head(name, "histogram", text)
    for labels, histogram in list(found.items()):
        shown = _labels(*labels)
        running = 0
        for bound, count in zip(histogram.bounds, histogram.buckets, strict=False):
            running += count
            yield f'{name}_bucket{{{shown},le="{bound:g}"}} {running}\n'
        yield f'{name}_bucket{{{shown},le="+Inf"}} {histogram.count}\n'
        yield f"{name}_sum{{{shown}}} {histogram.total}\n{name}_count{{{shown}}} {histogram.count}\n"
