"""What cachers have counted, and what watchers were sent, as metrics: by resource, read when somebody asks.

The store is told of under etcd's names, whichever it is.

Source: k8s.io/apiserver pkg/storage/{cacher,etcd3}/metrics, pkg/endpoints/metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from berg.apiserver.registry.sent import SIZES
from berg.machinery.metrics import Cell, Labels, Registry, Samples
from berg.storage.figures import LEASES, SECONDS, WAITS

if TYPE_CHECKING:
    from berg.apiserver.registry.registry import Registry as Resources
    from berg.apiserver.registry.services import Services
    from berg.storage.cacher import Cacher

_RESOURCE = ("group", "resource")


def describe(services: Services, r: Registry) -> None:
    def cachers() -> Iterator[tuple[Resources, Cacher]]:
        for found in dict.fromkeys(services.registries.values()):
            if found.cacher is not None:
                yield found, found.cacher

    def of(found: Resources) -> Labels:
        return found.storage.group, found.storage.plural

    def each(read: Callable[[Cacher], float]) -> Callable[[], Samples]:
        return lambda: [(of(found), read(cacher)) for found, cacher in cachers()]

    def kept(read: Callable[[Cacher], float]) -> Callable[[], Samples]:
        """Of what has counted anything."""
        return lambda: [(of(found), count) for found, cacher in cachers() if (count := read(cacher))]

    def by(read: Callable[[Cacher], dict[str, int]]) -> Callable[[], Samples]:
        return lambda: [((*of(f), key), count) for f, cacher in cachers() for key, count in read(cacher).items()]

    def asked() -> Iterable[tuple[Labels, Cell]]:
        return (((*of(f), op), cell) for f, cacher in cachers() for op, cell in cacher.figures.asked.items())

    def leases() -> Iterable[tuple[Labels, Cell]]:
        return {id(c.lease_objects): ((), c.lease_objects) for _, c in cachers()}.values()

    def consistent() -> Samples:
        for found, _ in cachers():
            for (fallback, success), count in found.consistent_reads.items():
                yield (*of(found), fallback, success), count

    def sent() -> Iterator[tuple[Labels, Cell]]:
        for found, _ in cachers():
            for version, cell in found.sent.cells().items():
                yield (*of(found), version), cell

    total, gauge = r.total, r.gauge
    cache, store = "apiserver_watch_cache", "apiserver_storage"
    total("apiserver_storage_events_received_total", "[BETA] Events that came from the store.", _RESOURCE,
          kept(lambda c: c.figures.received))  # fmt: skip
    total(f"{cache}_events_received_total", "[ALPHA] Events that came to the watch cache.", _RESOURCE,
          kept(lambda c: c.figures.received))  # fmt: skip
    total(f"{cache}_events_dispatched_total", "[ALPHA] Events that the watch cache passed on.", _RESOURCE,
          kept(lambda c: c.figures.dispatched))  # fmt: skip
    total(f"{cache}_initializations_total", "[ALPHA] How often the watch cache was filled.", _RESOURCE,
          each(lambda c: c.figures.loads))  # fmt: skip
    gauge(f"{cache}_resource_version", "[ALPHA] How new the watch cache is.", _RESOURCE, each(lambda c: c.revision))
    gauge("watch_cache_capacity", "[ALPHA] Events that the watch cache keeps.", _RESOURCE,
          each(lambda c: c.capacity))  # fmt: skip
    help = "[ALPHA] Waits for the watch cache to be new enough."
    r.distribution(f"{cache}_read_wait_seconds", help, WAITS, _RESOURCE,
                   lambda: ((of(f), c.figures.waits) for f, c in cachers() if c.figures.waits.count))  # fmt: skip
    total(f"{cache}_consistent_read_total", "[ALPHA] Lists that had to be as new as the store.",
          (*_RESOURCE, "fallback", "success"), consistent)  # fmt: skip
    index = (*_RESOURCE, "index")
    total("apiserver_cache_list_total", "[ALPHA] Lists from the watch cache.", index, by(lambda c: c.figures.listed))
    total("apiserver_cache_list_fetched_objects_total", "[ALPHA] Objects that such lists went through.", index,
          by(lambda c: c.figures.fetched))  # fmt: skip
    total("apiserver_cache_list_returned_objects_total", "[ALPHA] Objects that such lists gave.", _RESOURCE,
          kept(lambda c: c.figures.returned))  # fmt: skip
    for i, (name, help) in enumerate((
        ("list_total", "Lists from the store."),
        ("list_fetched_objects_total", "Objects that the store gave to lists."),
        ("list_evaluated_objects_total", "Objects of such lists that were looked at."),
        ("list_returned_objects_total", "Objects that such lists gave."),
    )):  # fmt: skip
        total(f"{store}_{name}", f"[ALPHA] {help}", _RESOURCE, each(lambda c, i=i: c.figures.from_store[i]))  # type: ignore[misc]
    gauge("apiserver_resource_size_estimate_bytes", "[ALPHA] What the objects of a resource take.", _RESOURCE,
          each(lambda c: c.size_bytes))  # fmt: skip
    operation = (*_RESOURCE, "operation")
    r.distribution("etcd_request_duration_seconds", "[ALPHA] How long the store took.", SECONDS, operation, asked)
    total("etcd_requests_total", "[ALPHA] What the store was asked for.", operation,
          by(lambda c: {op: cell.count for op, cell in c.figures.asked.items()}))  # fmt: skip
    total("etcd_request_errors_total", "[ALPHA] What the store could not do.", operation,
          by(lambda c: c.figures.refused))  # fmt: skip
    r.distribution("etcd_lease_object_counts", "[ALPHA] Objects that shared a lease.", LEASES, (), leases)
    version = (*_RESOURCE, "version")
    total("apiserver_watch_events_total", "[ALPHA] Events that watchers were sent.", version,
          lambda: [(labels, cell.count) for labels, cell in sent()])  # fmt: skip
    r.distribution("apiserver_watch_events_sizes", "[ALPHA] Sizes of events that watchers were sent.", SIZES,
                   version, sent)  # fmt: skip
    total("apiserver_init_events_total", "[ALPHA] Objects that watchers were sent to begin with.", _RESOURCE,
          lambda: [(of(f), f.sent.initial) for f, _ in cachers() if f.sent.initial])  # fmt: skip
