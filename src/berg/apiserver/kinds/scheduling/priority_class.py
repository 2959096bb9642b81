"""PriorityClasses.

Source: kubernetes pkg/apis/scheduling/validation, pkg/apis/scheduling/v1/defaults.go.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj, forbidden_field, not_supported, required

HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_PREFIX = "system-"
SYSTEM_CRITICAL = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


@strategy_for("scheduling.k8s.io", "priorityclasses")
class PriorityClassStrategy(Strategy):
    namespaced = False
    has_status = False
    generation = False
    """it is 1 and stays so"""
    columns = [
        cells.NAME,
        Column("Value", lambda o: o.get("value") or 0, "integer"),
        Column("Global-Default", lambda o: bool(o.get("globalDefault")), "boolean"),
        cells.AGE,
        Column("PreemptionPolicy", cells.at("preemptionPolicy")),
    ]

    def default(self, obj: Obj) -> None:
        if obj.get("preemptionPolicy") is None:
            obj["preemptionPolicy"] = "PreemptLowerPriority"
        obj.setdefault("value", 0)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["metadata"]["generation"] = 1

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        name, value = obj["metadata"].get("name") or "", obj.get("value") or 0
        errors: list[FieldError] = []
        if name.startswith(SYSTEM_PREFIX):
            if SYSTEM_CRITICAL.get(name) != value or obj.get("globalDefault"):
                errors.append(
                    forbidden_field(
                        "metadata.name",
                        "priority class names with 'system-' prefix are reserved for system use only. error: "
                        + self._system_fault(name, value, bool(obj.get("globalDefault"))),
                    )
                )
        elif value > HIGHEST_USER_PRIORITY:
            errors.append(
                forbidden_field("value", f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}")
            )
        policy = obj.get("preemptionPolicy")
        if policy is not None and policy not in ("Never", "PreemptLowerPriority"):
            if policy == "":
                errors.append(required("preemptionPolicy"))
            else:
                errors.append(not_supported("preemptionPolicy", policy, ["PreemptLowerPriority", "Never"]))
        return errors

    def _system_fault(self, name: str, value: int, default: bool) -> str:
        if name not in SYSTEM_CRITICAL:
            return f"{name} is not a known system priority class"
        if value != SYSTEM_CRITICAL[name]:
            return f"value of {name} PriorityClass must be {SYSTEM_CRITICAL[name]}"
        return f"globalDefault of {name} PriorityClass must be {str(not default).lower()}"

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        if (obj.get("value") or 0) != (old.get("value") or 0):
            errors.append(forbidden_field("value", "may not be changed in an update."))
        return errors + immutable(obj, old, "preemptionPolicy")
