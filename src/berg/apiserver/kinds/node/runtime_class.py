"""RuntimeClasses.

Source: kubernetes pkg/apis/node/validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells, checks
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.kinds.label_selectors import validate_labels
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate


@strategy_for("node.k8s.io", "runtimeclasses")
class RuntimeClassStrategy(Strategy):
    metadata_checks = (0, 0, 1)
    namespaced = False
    has_status = False
    generation = False
    allow_create_on_update = True
    allow_unconditional_update = False
    columns = [cells.NAME, Column("Handler", cells.at("handler")), cells.AGE]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        errors = checks.required_name("handler", obj.get("handler"), names.dns1123_label)
        if (overhead := obj.get("overhead")) is not None:
            from berg.apiserver.kinds.core.pod_spec.resource_checks import validate_requirements

            errors += validate_requirements({"limits": overhead.get("podFixed") or {}}, "overhead")
        if scheduling := obj.get("scheduling"):
            from berg.apiserver.kinds.core.pod_spec.scheduling import validate_tolerations

            errors += validate_labels(scheduling.get("nodeSelector"), "scheduling.nodeSelector")
            seen: list[Obj] = []
            for i, toleration in enumerate(scheduling.get("tolerations") or ()):
                at = f"scheduling.tolerations[{i}]"
                errors += [duplicate(at, toleration)] if toleration in seen else []
                seen.append(toleration)
            errors += validate_tolerations(scheduling.get("tolerations"), "scheduling.tolerations")
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return immutable(obj, old, "handler")

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds.deprecated_labels import LABELS

        selector = (obj.get("scheduling") or {}).get("nodeSelector") or {}
        return [f"scheduling.nodeSelector: {LABELS[key]}" for key in selector if key in LABELS]
