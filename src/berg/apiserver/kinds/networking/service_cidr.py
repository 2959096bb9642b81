"""ServiceCIDRs: the ranges of cluster IPs.

Source: KEP-1880; kubernetes pkg/apis/networking/validation ValidateServiceCIDR.
"""

from __future__ import annotations

from berg.apiserver.kinds import addresses, cells
from berg.apiserver.kinds.immutable import MESSAGE
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj, invalid_value, required


@strategy_for("networking.k8s.io", "servicecidrs")
class ServiceCIDRStrategy(Strategy):
    status_metadata = ()
    namespaced = False
    generation = False
    columns = [
        cells.NAME,
        Column("CIDRs", lambda o: ",".join((o.get("spec") or {}).get("cidrs") or ())),
        cells.AGE,
    ]

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        cidrs = spec.get("cidrs") or []
        if not cidrs:
            return [required("spec.cidrs", "at least one CIDR required")]
        if len(cidrs) > 2:
            return [invalid_value("spec.cidrs", spec, "may only hold up to 2 values")]
        errors = [e for i, text in enumerate(cidrs) for e in addresses.strict_cidr(f"spec.cidrs[{i}]", text)]
        families = [n.version for n in map(addresses.parse_cidr, cidrs) if n is not None]
        if len(families) == 2 and not addresses.dual_stack(families):
            why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            errors.append(invalid_value("spec.cidrs", cidrs, why))
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        """Only a second family may be added."""
        new, before = (obj.get("spec") or {}).get("cidrs") or [], (old.get("spec") or {}).get("cidrs") or []
        if len(new) != len(before) and not (len(before) == 1 and len(new) == 2):
            return [invalid_value("spec.cidrs", new or None, MESSAGE)]
        errors = [invalid_value(f"spec.cidrs[{i}]", new[i], MESSAGE) for i, cidr in enumerate(before) if new[i] != cidr]
        return errors if len(new) == len(before) else errors + self.validate(ctx, obj)
