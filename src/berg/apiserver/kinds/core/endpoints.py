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
    has_status = False
    generation = False
    allow_create_on_update = True
    columns = [cells.NAME, Column("Endpoints", _endpoints), cells.AGE]

    def default(self, obj: Obj) -> None:
        for subset in obj.get("subsets") or ():
            for port in subset.get("ports") or ():
                if not port.get("protocol"):
                    port["protocol"] = "TCP"

    def canonicalize(self, obj: Obj) -> None:
        """The same endpoints are always written the same way: one subset for each set of ports, all sorted."""
        if subsets := obj.get("subsets"):
            obj["subsets"] = repacked(subsets)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.endpoints_validation import validate_endpoints

        return validate_endpoints(obj)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        return ("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",)


def repacked(subsets: Sequence[Obj]) -> list[Obj]:
    """Source: kubernetes pkg/api/v1/endpoints RepackSubsets (same result, not the same order of hashing)."""
    by_address: dict[tuple[str, str], tuple[Obj, bool, dict[tuple, Obj]]] = {}
    bare: list[Obj] = []
    for subset in subsets:
        ports = subset.get("ports") or [None]
        for key in ("addresses", "notReadyAddresses"):
            for address in subset.get(key) or ():
                target = (address.get("targetRef") or {}).get("uid") or ""
                identity = (address.get("ip") or "", target)
                _, ready, known = by_address.setdefault(identity, (address, True, {}))
                by_address[identity] = (address, ready and key == "addresses", known)
                for port in ports:
                    if port is not None:
                        known[(port.get("name") or "", port.get("protocol") or "", port.get("port"))] = port
        if not subset.get("addresses") and not subset.get("notReadyAddresses") and subset.get("ports"):
            bare.append(subset)
    packed: dict[tuple, Obj] = {}
    for identity in sorted(by_address):
        address, ready, known = by_address[identity]
        order = tuple(sorted(known, key=lambda k: (k[0], str(k[2]), k[1])))
        entry = packed.setdefault(order, {"addresses": [], "notReadyAddresses": [], "ports": [known[k] for k in order]})
        entry["addresses" if ready else "notReadyAddresses"].append(address)
    result = [{k: v for k, v in packed[order].items() if v} for order in sorted(packed, key=str)]
    return result + bare
