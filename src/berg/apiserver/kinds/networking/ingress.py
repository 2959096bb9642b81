"""Ingresses.

Source: kubernetes pkg/registry/networking/ingress, pkg/apis/networking/validation ValidateIngress.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.service import load_balancer_addresses
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj

CLASS_ANNOTATION = "kubernetes.io/ingress.class"


def _hosts(obj: Obj) -> str:
    rules = (obj.get("spec") or {}).get("rules") or ()
    hosts: list[str] = []
    more = False
    for rule in rules:
        more = more or len(hosts) == 3
        if not more and rule.get("host"):
            hosts.append(rule["host"])
    if not hosts:
        return "*"
    return ",".join(hosts) + (f" + {len(rules) - 3} more..." if more else "")


@strategy_for("networking.k8s.io", "ingresses")
class IngressStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    columns = [
        cells.NAME,
        Column("Class", cells.at("spec.ingressClassName", "<none>")),
        Column("Hosts", _hosts),
        Column("Address", load_balancer_addresses),
        Column("Ports", lambda o: "80, 443" if (o.get("spec") or {}).get("tls") else "80"),
        cells.AGE,
    ]

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {"loadBalancer": {}}

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.networking.ingress_validation import validate_ingress_create

        return validate_ingress_create(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.networking.ingress_validation import validate_ingress_update

        return validate_ingress_update(obj, old)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.networking.ingress_validation import validate_ingress_status

        return validate_ingress_status(obj, old)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        annotated = CLASS_ANNOTATION in (obj["metadata"].get("annotations") or {})
        if old is None and annotated and (obj.get("spec") or {}).get("ingressClassName") is None:
            return (f"annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead",)
        return ()
