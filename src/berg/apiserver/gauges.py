"""Figures that are read off the parts of a server when somebody asks for its metrics; nobody counts them.

Source: k8s.io/apiserver pkg/storage/etcd3/metrics, pkg/storage/cacher/metrics, pkg/endpoints/metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from berg.apiserver import storage_figures
from berg.apiserver.crd import figures as crd_figures
from berg.apiserver.registry.registry import Registry
from berg.apiserver.registry.watching import WATCH_LIST_S
from berg.machinery import features, process, version
from berg.machinery.metrics import Cell, Labels, Samples

if TYPE_CHECKING:
    from berg.apiserver.server import APIServer

_RESOURCE = ("group", "resource")


def describe(server: APIServer) -> None:
    services, r = server.services, server.services.metrics

    def registries() -> Iterator[Registry]:
        return (found for found in dict.fromkeys(services.registries.values()) if found.cacher is not None)

    def each(read: Callable[[Registry], float]) -> Callable[[], Samples]:
        return lambda: [((g.storage.group, g.storage.plural), read(g)) for g in registries()]

    def objects() -> Samples:
        for g in registries():
            group, plural = g.storage.group, g.storage.plural
            yield (f"{plural}.{group}" if group else plural,), len(g.cacher or ())

    def size() -> Samples:
        path = getattr(services.store, "path", None)
        if path and Path(path).exists():
            yield ("",), Path(path).stat().st_size

    def deprecated() -> Samples:
        for group, ver, plural in sorted(server.resources.deprecated):
            yield (group, ver, plural, "", ""), 1

    def unavailable() -> Samples:
        for remote in server.aggregator.remotes.values():
            yield (remote.name,), int(not remote.available)

    def watch_lists() -> Iterable[tuple[Labels, Cell]]:
        for registry in registries():
            storage = registry.storage
            for (ver, scope), cell in registry.watch_lists.items():
                yield (storage.group, ver, storage.plural, scope), cell

    storage_figures.describe(services, r)
    crd_figures.describe(r)
    services.service_allocation.describe(r)
    process.describe(r, version.info(), "kube-apiserver")
    r.gauge(features.METRIC, features.HELP, ("name", "stage"), services.features.samples)
    r.gauge("apiserver_storage_objects", "[STABLE] Objects stored, by resource.", ("resource",), objects)
    help = "[ALPHA] Objects stored, by group and resource."
    r.gauge("apiserver_resource_objects", help, _RESOURCE, each(lambda g: len(g.cacher or ())))
    help = "[STABLE] Size of the store's file."
    r.gauge("apiserver_storage_size_bytes", help, ("storage_cluster_id",), size)
    r.gauge(
        "apiserver_requested_deprecated_apis",
        "[STABLE] Deprecated APIs that were asked for.",
        ("group", "version", "resource", "subresource", "removed_release"),
        deprecated,
    )
    help = "[ALPHA] Aggregated servers that are away."
    r.gauge("aggregator_unavailable_apiservice", help, ("name",), unavailable)
    r.distribution(
        "apiserver_watch_list_duration_seconds",
        "[BETA] Until a watcher had everything that was there.",
        WATCH_LIST_S,
        ("group", "version", "resource", "scope"),
        watch_lists,
    )
