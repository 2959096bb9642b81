"""IngressClasses.

Source: kubernetes pkg/registry/networking/ingressclass, pkg/apis/networking/v1/defaults.go.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj

DEFAULT_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"


def _name(obj: Obj) -> str:
    return f"{cells.name(obj)} (default)" if cells.is_default(obj, DEFAULT_ANNOTATION) else cells.name(obj)


def _parameters(obj: Obj) -> str:
    found = (obj.get("spec") or {}).get("parameters")
    if not found:
        return "<none>"
    group = f".{found['apiGroup']}" if found.get("apiGroup") is not None else ""
    return f"{found.get('kind', '')}{group}/{found.get('name', '')}"


@strategy_for("networking.k8s.io", "ingressclasses")
class IngressClassStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    namespaced = False
    has_status = False
    columns = [
        Column("Name", _name, format="name"),
        Column("Controller", cells.at("spec.controller")),
        Column("Parameters", _parameters),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        parameters = (obj.get("spec") or {}).get("parameters")
        if parameters and parameters.get("scope") is None:
            parameters["scope"] = "Cluster"

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.networking.ingress_validation import validate_ingress_class

        return validate_ingress_class(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return immutable(obj, old, "spec.controller") + self.validate(ctx, obj)
