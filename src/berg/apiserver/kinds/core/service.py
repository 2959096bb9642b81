"""Services.

Source: kubernetes pkg/registry/core/service, pkg/apis/core/validation ValidateService.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core import service_fields
from berg.apiserver.kinds.core.service_allocation import ServiceAllocation, ports_of
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj


def _spec(obj: Obj) -> Obj:
    return obj.get("spec") or {}


def load_balancer_addresses(obj: Obj) -> str:
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return ",".join(sorted({i.get("ip") or i.get("hostname") or "" for i in ingress} - {""}))


def _external_ip(obj: Obj) -> str:
    spec = _spec(obj)
    external = ",".join(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ClusterIP" | "NodePort":
            return external or "<none>"
        case "LoadBalancer":
            return ",".join(filter(None, (load_balancer_addresses(obj), external))) or "<pending>"
        case "ExternalName":
            return spec.get("externalName") or ""
    return "<unknown>"


def _ports(obj: Obj) -> str:
    return ",".join(
        f"{p.get('port')}:{p['nodePort']}/{p.get('protocol')}"
        if p.get("nodePort")
        else f"{p.get('port')}/{p.get('protocol')}"
        for p in _spec(obj).get("ports") or ()
    )


@strategy_for("", "services")
class ServiceStrategy(Strategy):
    generation = False
    allow_create_on_update = True
    field_labels = ("spec.clusterIP", "spec.type")
    columns = [
        cells.NAME,
        Column("Type", cells.at("spec.type")),
        Column("Cluster-IP", lambda o: (_spec(o).get("clusterIPs") or [_spec(o).get("clusterIP") or "<none>"])[0]),
        Column("External-IP", _external_ip),
        Column("Port(s)", lambda o: _ports(o) or "<none>"),
        cells.AGE,
        Column("Selector", lambda o: cells.labels(_spec(o).get("selector")), priority=1),
    ]

    def default(self, obj: Obj) -> None:
        if obj.get("spec") is None:
            obj["spec"] = {}
        service_fields.default(obj)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {"loadBalancer": {}}
        service_fields.plural_cluster_ips(obj, None)

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        service_fields.drop_type_dependent(obj, old)
        service_fields.adopt_allocated(obj, old)
        service_fields.plural_cluster_ips(obj, old)
        service_fields.default(obj)

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        return names.dns1123_label(name.rstrip("-") + "a" if prefix and name.endswith("-") else name)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.service_validation import validate_service

        return validate_service(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.service_validation import validate_service_update

        return validate_service_update(obj, old)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.service_validation import validate_service_status

        return validate_service_status(obj, old)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds.core.service_validation import service_warnings

        return [] if ctx.subresource == "status" else service_warnings(obj, old)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        spec = _spec(obj)
        return {"spec.clusterIP": spec.get("clusterIP") or "", "spec.type": spec.get("type") or ""}

    async def begin_create(self, ctx: Context, obj: Obj) -> Callable[[bool], None] | None:
        from berg.apiserver.kinds.core import service_addresses

        allocation = _allocation(ctx)
        return None if allocation is None else await service_addresses.begin(allocation, obj, None, ctx.dry_run)

    async def begin_update(self, ctx: Context, obj: Obj, old: Obj) -> Callable[[bool], None] | None:
        from berg.apiserver.kinds.core import service_addresses

        allocation = _allocation(ctx)
        if allocation is None or ctx.subresource:
            return None
        return await service_addresses.begin(allocation, obj, old, ctx.dry_run)

    async def after_delete(self, ctx: Context, obj: Obj) -> None:
        allocation = _allocation(ctx)
        if allocation is None or ctx.dry_run:
            return
        spec = _spec(obj)
        allocation.release_ports(ports_of(obj))
        if spec.get("type") != "ExternalName":
            allocation.release_ips(ip for ip in spec.get("clusterIPs") or () if ip and ip != "None")
            await allocation.settle()


def _allocation(ctx: Context) -> ServiceAllocation | None:
    """The server's; none where services are handled without one (tests of the strategy alone)."""
    return getattr(ctx.services, "service_allocation", None)
