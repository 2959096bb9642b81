"""EndpointSlices.

Source: kubernetes pkg/registry/discovery/endpointslice, pkg/apis/discovery.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj


def _ports(obj: Obj) -> str:
    return cells.some(
        [
            str(p["port"]) if p.get("port") is not None else p["name"] if p.get("name") is not None else "*"
            for p in obj.get("ports") or ()
        ]
    )


def _endpoints(obj: Obj) -> str:
    return cells.some([a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()])


def _drop_topology(obj: Obj) -> None:
    """What an earlier version of the API wrote stays until it is written again."""
    for endpoint in obj.get("endpoints") or ():
        endpoint.pop("deprecatedTopology", None)


@strategy_for("discovery.k8s.io", "endpointslices")
class EndpointSliceStrategy(Strategy):
    metadata_checks = (1, 1, 0)
    has_status = False
    columns = [
        cells.NAME,
        Column("AddressType", cells.at("addressType")),
        Column("Ports", _ports),
        Column("Endpoints", _endpoints),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        for port in obj.get("ports") or ():
            if port.get("name") is None:
                port["name"] = ""
            if port.get("protocol") is None:
                port["protocol"] = "TCP"
        obj.setdefault("endpoints", None)
        obj.setdefault("ports", None)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        _drop_topology(obj)

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        """Labels raise the generation too, and so does what is then dropped."""
        new, before = obj["metadata"], old["metadata"]
        changed = any(obj.get(key) != old.get(key) for key in ("addressType", "endpoints", "ports"))
        if changed or (new.get("labels") or {}) != (before.get("labels") or {}):
            new["generation"] = (before.get("generation") or 0) + 1
        if obj.get("endpoints") != old.get("endpoints"):
            _drop_topology(obj)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.discovery.validation import validate_endpoint_slice

        return validate_endpoint_slice(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.discovery.validation import validate_endpoint_slice_update

        return validate_endpoint_slice_update(obj, old)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds.discovery.validation import endpoint_slice_warnings

        return endpoint_slice_warnings(obj, new=old is None)
