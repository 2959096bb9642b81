"""`/metrics`: the requests of this server, under upstream's names, in Prometheus' text format.

Counting costs two dictionary look-ups per request; everything else happens when somebody asks.

Source: k8s.io/apiserver pkg/endpoints/metrics.
"""

from __future__ import annotations

import resource as rlimits
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from berg.apiserver import version
from berg.apiserver.histogram import Histogram
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


class Metrics:
    def __init__(self) -> None:
        self._requests: dict[tuple[Labels, str, int], int] = {}
        self._durations: dict[tuple[Labels, str], Histogram] = {}
        self._sizes: dict[Labels, Histogram] = {}
        self._inflight = {"readOnly": 0, "mutating": 0}
        self._streams: WeakKeyDictionary[Any, Labels] = WeakKeyDictionary()
        """answers under way that may never end; gone from here when they are over, without anybody counting"""
        self._started = time.time()
        self.gauges: dict[str, tuple[str, str, Gauge]] = {}
        """name → (type, help, samples as (label text, value)), from other parts of the server"""
        self.histograms: dict[str, tuple[str, Callable[[], Iterable[tuple[str, Histogram]]]]] = {}
        """name → (help, histograms as (label text, histogram)), from other parts of the server"""

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
        if response.stream is not None or response.upgrade is not None:
            self._streams[response.stream or response.upgrade] = labels
            return
        histogram = self._durations.get((labels, dry_run))
        if histogram is None:
            histogram = self._durations[labels, dry_run] = Histogram(_BUCKETS)
            self._sizes.setdefault(labels, Histogram(_SIZES))
        histogram.observe(time.perf_counter() - started)
        self._sizes[labels].observe(len(response.body))

    # ---- telling

    def handle(self, request: Request) -> Response:
        headers = {"Process-Start-Time-Unix": str(int(self._started))}
        return Response(200, "".join(self._lines()).encode(), "text/plain; version=0.0.4; charset=utf-8", headers)

    def _lines(self) -> Iterator[str]:
        yield _head("apiserver_request_total", "counter", "[STABLE] Requests by verb, group, resource and code.")
        for ((verb, group, ver, plural, sub, scope), dry_run, code), count in list(self._requests.items()):
            text = _labels(verb, group, ver, plural, sub, scope)
            yield f'apiserver_request_total{{code="{code}",{text},dry_run="{dry_run}"}} {count}\n'
        durations = ((f'{_labels(*k)},dry_run="{d}"', h) for (k, d), h in list(self._durations.items()))
        text = "[STABLE] Response latency by verb, group and resource."
        yield from _histograms("apiserver_request_duration_seconds", text, durations)
        sizes = ((_labels(*k), h) for k, h in list(self._sizes.items()))
        yield from _histograms("apiserver_response_sizes", "[STABLE] Response sizes in bytes.", sizes)
        for name, (text, found) in self.histograms.items():
            yield from _histograms(name, text, found())
        yield _head("apiserver_longrunning_requests", "gauge", "[STABLE] Watches, logs and streams under way now.")
        for labels, count in Counter(self._streams.values()).items():
            yield f"apiserver_longrunning_requests{{{_labels(*labels)}}} {count}\n"
        text = "[STABLE] Requests under way now, by kind."
        yield _head("apiserver_current_inflight_requests", "gauge", text)
        for kind, value in self._inflight.items():
            yield f'apiserver_current_inflight_requests{{request_kind="{kind}"}} {value}\n'
        for name, (type_, text, samples) in self.gauges.items():
            yield _head(name, type_, text)
            for shown, sample in samples():
                yield f"{name}{shown} {sample}\n"
        yield _head("kubernetes_build_info", "gauge", "[BETA] A metric of 1 with the version in its labels.")
        info = version.info()
        yield (
            f'kubernetes_build_info{{git_version="{info["gitVersion"]}",major="{info["major"]}",'
            f'minor="{info["minor"]}",platform="{info["platform"]}"}} 1\n'
        )
        yield from self._process()

    def _process(self) -> Iterator[str]:
        usage = rlimits.getrusage(rlimits.RUSAGE_SELF)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * rlimits.getpagesize()
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        virtual = int(Path("/proc/self/statm").read_text().split()[0]) * rlimits.getpagesize()
        for name, type_, text, value in (
            ("process_open_fds", "gauge", "Open file descriptors.", float(descriptors)),
            ("process_max_fds", "gauge", "Most that may be open.", float(rlimits.getrlimit(rlimits.RLIMIT_NOFILE)[0])),
            ("process_virtual_memory_bytes", "gauge", "Virtual memory.", float(virtual)),
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


def _histograms(name: str, text: str, found: Iterable[tuple[str, Histogram]]) -> Iterator[str]:
    first = True
    for labels, histogram in found:
        if first:
            yield _head(name, "histogram", text)
            first = False
        yield from histogram.lines(name, labels)
