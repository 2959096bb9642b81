"""What is counted of endpoint slices: how many there are, how many there should be, what each sync changes.

Source: k8s.io/endpointslice metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from berg.controllers.endpointslice_packing import MAX_ENDPOINTS
from berg.machinery.metrics import Registry, exponential

Obj = dict[str, Any]
_BOUNDS = exponential(2, 2, 15)


class Figures:
    def __init__(self, r: Registry, slices: Callable[[], Iterable[Obj]], services: Callable[[], Iterable[Obj]]) -> None:
        """`slices`: those that the controller manages."""
        self._desired: dict[str, tuple[int, int]] = {}
        """service → endpoints and slices that it should have"""
        prefix = "endpoint_slice_controller"
        for name, help, read in (
            ("num_endpoint_slices", "Slices that there are.", lambda: sum(1 for _ in slices())),
            ("endpoints_desired", "Endpoints that there should be.", lambda: sum(d[0] for d in self._desired.values())),
            (
                "desired_endpoint_slices",
                "Slices that there would be if all were full.",
                lambda: sum(d[1] for d in self._desired.values()),
            ),
        ):
            r.gauge(f"{prefix}_{name}", f"[BETA] {help}", (), lambda read=read: [((), read())])  # type: ignore[misc]
        r.gauge(
            f"{prefix}_services_count_by_traffic_distribution",
            "[BETA] Services by where they want their traffic to go.",
            ("traffic_distribution",),
            lambda: [((to,), n) for to, n in Counter(_distribution(s) for s in services()).items() if to],
        )
        help = "[BETA] Endpoints that a sync has added."
        self._added = r.histogram(f"{prefix}_endpoints_added_per_sync", help, _BOUNDS)
        help = "[BETA] Endpoints that a sync has removed."
        self._removed = r.histogram(f"{prefix}_endpoints_removed_per_sync", help, _BOUNDS)

    def synced(self, service: str, before: Iterable[Obj], desired: Iterable[list[Obj]]) -> None:
        """`before`: the slices that there were; `desired`: the endpoints of each set of ports."""
        groups = list(desired)
        old = {_identity(e) for s in before for e in s.get("endpoints") or ()}
        new = {_identity(e) for group in groups for e in group}
        self._added.observe(len(new - old))
        self._removed.observe(len(old - new))
        slices = sum(max(1, -(-len(group) // MAX_ENDPOINTS)) for group in groups)
        self._desired[service] = sum(map(len, groups)), slices

    def gone(self, service: str) -> None:
        self._desired.pop(service, None)


def _identity(endpoint: Obj) -> tuple[str, ...]:
    return tuple(endpoint.get("addresses") or ())


def _distribution(service: Obj) -> str:
    return str((service.get("spec") or {}).get("trafficDistribution") or "")
