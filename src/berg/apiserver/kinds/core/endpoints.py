"""Endpoints (the old kind; EndpointSlices are what the proxy reads).

Source: kubernetes pkg/registry/core/endpoint, pkg/apis/core/validation ValidateEndpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj


def _endpoints(obj: Obj) -> str:
    subsets = obj.get("subsets") or ()
    if not subsets:
        return "<none>"
    found: list[str] = []
    for subset in subsets:
        ips = [a.get("ip") or "" for a in subset.get("addresses") or ()]
        ports = subset.get("ports")
        if not ports:
            found += ips
        for port in ports or ():
            found += [f"[{ip}]:{port.get('port')}" if ":" in ip else f"{ip}:{port.get('port')}" for ip in ips]
    return cells.some(found, none="")


@strategy_for("", "endpoints")
class EndpointsStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    has_status = False
    generation = False
    allow_create_on_update = True
    columns = [cells.NAME, Column("Endpoints", _endpoints), cells.AGE]

    def default(self, obj: Obj) -> None:
        for subset in obj.get("subsets") or ():
            for port in subset.get("ports") or ():
                if not port.get("protocol"):
                    port["protocol"] = "TCP"

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.endpoints_validation import validate_endpoints

        return validate_endpoints(obj)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        return ("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",)
