"""How many devices of each class a ResourceClaim asks for, at the worst: what a quota counts of it.

Source: kubernetes pkg/quota/v1/evaluator/core/resource_claims.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PER_CLASS = ".deviceclass.resource.k8s.io/devices"
"""the end of a quota's name for the devices of a class"""
MOST = 32
"""as many devices as one claim can ever be given"""


def devices(claim: Mapping[str, Any]) -> dict[str, int]:
    """Device class → devices. Of the alternatives of a request, each class counts with its largest."""
    total: dict[str, int] = {}
    for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
        largest: dict[str, int] = {}
        for one in request.get("firstAvailable") or [request.get("exactly") or {}]:
            name = one.get("deviceClassName")
            if name:
                largest[name] = max(largest.get(name, 0), _count(one))
        for name, count in largest.items():
            total[name] = total.get(name, 0) + count
    return total


def _count(request: Mapping[str, Any]) -> int:
    if request.get("allocationMode") == "All":
        return MOST
    return int(request.get("count") or 1)
