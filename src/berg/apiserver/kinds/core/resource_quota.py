"""ResourceQuotas.

Source: kubernetes pkg/registry/core/resourcequota, pkg/printers printResourceQuota.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.pod_spec.resources import canonical_list
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj


def _amounts(limits: bool) -> Callable[[Obj], str]:
    def value(obj: Obj) -> str:
        status = obj.get("status") or {}
        used = status.get("used") or {}
        return ", ".join(
            f"{name}: {used.get(name, '0')}/{hard}"
            for name, hard in sorted((status.get("hard") or {}).items())
            if name.startswith("limits.") == limits
        )

    return value


@strategy_for("", "resourcequotas")
class ResourceQuotaStrategy(Strategy):
    generation = False
    columns = [cells.NAME, Column("Request", _amounts(False)), Column("Limit", _amounts(True)), cells.AGE]

    def default(self, obj: Obj) -> None:
        for holder, keys in ((obj.get("spec"), ("hard",)), (obj.get("status"), ("hard", "used"))):
            for key in keys:
                if amounts := (holder or {}).get(key):
                    canonical_list(amounts)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.quota_validation import validate_resource_quota

        return validate_resource_quota(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.quota_validation import validate_resource_quota_update

        return validate_resource_quota_update(obj, old)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.quota_validation import validate_resource_quota_status

        return validate_resource_quota_status(obj)
