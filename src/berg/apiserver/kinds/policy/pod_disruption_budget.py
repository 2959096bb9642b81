"""PodDisruptionBudgets.

Source: kubernetes pkg/registry/policy/poddisruptionbudget, pkg/apis/policy/validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj


def _bound(key: str) -> Callable[[Obj], str]:
    def value(obj: Obj) -> str:
        found = (obj.get("spec") or {}).get(key)
        return "N/A" if found is None else str(found)

    return value


@strategy_for("policy", "poddisruptionbudgets")
class PodDisruptionBudgetStrategy(Strategy):
    metadata_checks = (0, 0, 1)
    allow_unconditional_update = False
    columns = [
        cells.NAME,
        Column("Min Available", _bound("minAvailable")),
        Column("Max Unavailable", _bound("maxUnavailable")),
        Column("Allowed Disruptions", cells.at("status.disruptionsAllowed", 0), "integer"),
        cells.AGE,
    ]

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {
            "disruptionsAllowed": 0,
            "currentHealthy": 0,
            "desiredHealthy": 0,
            "expectedPods": 0,
        }

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        """Anything that fits into a path."""
        return names.path_segment(name)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.policy.validation import validate_budget

        return validate_budget(obj)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.policy.validation import validate_budget_status

        return validate_budget_status(obj)
