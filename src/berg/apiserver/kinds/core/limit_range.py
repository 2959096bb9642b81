"""LimitRanges.

Source: kubernetes pkg/apis/core/v1/defaults.go SetDefaults_LimitRangeItem.
"""

from __future__ import annotations

import uuid

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.pod_spec.resources import canonical_list
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj


@strategy_for("", "limitranges")
class LimitRangeStrategy(Strategy):
    metadata_checks = (1, 1, 0)
    has_status = False
    generation = False
    allow_create_on_update = True
    columns = [cells.NAME, Column("Created At", cells.at("metadata.creationTimestamp"), "date")]

    def default(self, obj: Obj) -> None:
        for item in (obj.get("spec") or {}).get("limits") or ():
            for key in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio"):
                if amounts := item.get(key):
                    canonical_list(amounts)
            if item.get("type") != "Container":
                continue
            limit = item.get("default") or {}
            request = item.get("defaultRequest") or {}
            limit = {**(item.get("max") or {}), **limit}
            request = {**(item.get("min") or {}), **limit, **request}
            if limit:
                item["default"] = limit
            if request:
                item["defaultRequest"] = request

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        if not obj["metadata"].get("name"):
            obj["metadata"]["name"] = str(uuid.uuid4())

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.quota_validation import validate_limit_range

        return validate_limit_range(obj)
