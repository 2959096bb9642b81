"""Figures that are read off the parts of a server when somebody asks for its metrics; nobody counts them.

Source: k8s.io/apiserver pkg/storage/etcd3/metrics, pkg/endpoints/metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from berg.apiserver.histogram import Histogram
from berg.apiserver.metrics import Gauge
from berg.machinery import features

if TYPE_CHECKING:
    from berg.apiserver.server import APIServer


def gauges(server: APIServer) -> dict[str, tuple[str, str, Gauge]]:
    """name → (type, help, samples)."""
    services = server.services

    def objects() -> Iterator[tuple[str, str, int]]:
        for registry in dict.fromkeys(services.registries.values()):
            if registry.cacher is not None:
                yield registry.storage.group, registry.storage.plural, len(registry.cacher)

    def size() -> Iterator[tuple[str, float]]:
        path = getattr(services.store, "path", None)
        if path and Path(path).exists():
            yield '{storage_cluster_id=""}', Path(path).stat().st_size

    def deprecated() -> Iterator[tuple[str, float]]:
        for group, version, plural in sorted(server.resources.deprecated):
            labels = f'group="{group}",removed_release="",resource="{plural}",subresource="",version="{version}"'
            yield f"{{{labels}}}", 1

    def unavailable() -> Iterator[tuple[str, float]]:
        for remote in server.aggregator.remotes.values():
            yield f'{{name="{remote.name}"}}', int(not remote.available)

    def gates() -> Iterator[tuple[str, float]]:
        for (name, stage), on in services.features.samples():
            yield f'{{name="{name}",stage="{stage}"}}', int(on)

    return {
        features.METRIC: ("gauge", features.HELP, gates),
        "apiserver_storage_objects": (
            "gauge",
            "[STABLE] Objects stored, by resource.",
            lambda: ((f'{{resource="{f"{p}.{g}" if g else p}"}}', count) for g, p, count in objects()),
        ),
        "apiserver_resource_objects": (
            "gauge",
            "[ALPHA] Objects stored, by group and resource.",
            lambda: ((f'{{group="{g}",resource="{p}"}}', count) for g, p, count in objects()),
        ),
        "apiserver_storage_size_bytes": ("gauge", "[STABLE] Size of the store's file.", size),
        "apiserver_requested_deprecated_apis": ("gauge", "[STABLE] Deprecated APIs that were asked for.", deprecated),
        "aggregator_unavailable_apiservice": ("gauge", "[ALPHA] Aggregated servers that are away.", unavailable),
        "disabled_metrics_total": ("counter", "[BETA] Metrics that are switched off.", lambda: iter([("", 0)])),
        "hidden_metrics_total": ("counter", "[BETA] Metrics that are hidden.", lambda: iter([("", 0)])),
    }


def histograms(server: APIServer) -> dict[str, tuple[str, Callable[[], Iterable[tuple[str, Histogram]]]]]:
    """name → (help, histograms by their labels)."""
    services = server.services

    def watch_lists() -> Iterator[tuple[str, Histogram]]:
        for registry in dict.fromkeys(services.registries.values()):
            storage = registry.storage
            for (version, scope), histogram in registry.watch_lists.items():
                labels = f'group="{storage.group}",resource="{storage.plural}",scope="{scope}",version="{version}"'
                yield labels, histogram

    return {
        "apiserver_watch_list_duration_seconds": ("[BETA] Until a watcher had everything that was there.", watch_lists)
    }
