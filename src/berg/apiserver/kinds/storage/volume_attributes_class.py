"""VolumeAttributesClasses.

Source: kubernetes pkg/apis/storage/validation ValidateVolumeAttributesClass.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells, checks
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, forbidden_field, required


@strategy_for("storage.k8s.io", "volumeattributesclasses")
class VolumeAttributesClassStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    namespaced = False
    has_status = False
    generation = False
    columns = [cells.NAME, Column("DriverName", cells.at("driverName")), cells.AGE]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        name = obj.get("driverName") or ""
        errors += checks.named("driverName", name.lower(), names.qualified_name) if name else [required("driverName")]
        if not obj.get("parameters"):
            errors.append(required("parameters", "must contain at least one key/value pair"))
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        if obj.get("driverName") != old.get("driverName"):
            errors.append(forbidden_field("driverName", "updates to driverName are forbidden."))
        if (obj.get("parameters") or {}) != (old.get("parameters") or {}):
            errors.append(forbidden_field("parameters", "updates to parameters are forbidden."))
        return errors + self.validate(ctx, obj)
