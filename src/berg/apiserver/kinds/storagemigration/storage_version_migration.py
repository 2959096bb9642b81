"""StorageVersionMigrations.

Source: kubernetes pkg/registry/storagemigration, pkg/apis/storagemigration/validation.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.cells import has_condition
from berg.apiserver.kinds.immutable import MESSAGE
from berg.apiserver.kinds.label_selectors import validate_conditions
from berg.apiserver.kinds.sameness import same
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, invalid_value, required


def _migrated(obj: Obj) -> str:
    resource = (obj.get("spec") or {}).get("resource") or {}
    name, group = resource.get("resource") or "", resource.get("group") or ""
    return f"{name}.{group}" if group else name


def _state(obj: Obj) -> str:
    state = "Unknown"
    for c in (obj.get("status") or {}).get("conditions") or ():
        if c.get("status") == "True" and c.get("type") in ("Running", "Failed", "Succeeded"):
            state = c["type"]
    return state


@strategy_for("storagemigration.k8s.io", "storageversionmigrations")
class StorageVersionMigrationStrategy(Strategy):
    status_metadata = ()
    namespaced = False
    generation = False
    allow_unconditional_update = False
    columns = [Column("Name", cells.name, format=""), Column("Resource", _migrated), Column("Status", _state)]

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        resource = (obj.get("spec") or {}).get("resource") or {}
        group, plural, at = resource.get("group") or "", resource.get("resource") or "", "spec.resource"
        errors: list[FieldError] = []
        if not plural:
            errors.append(required(f"{at}.resource", "resource is required to be set"))
        elif faults := names.dns1035_label(plural):
            errors.append(invalid_value(f"{at}.resource", plural, ",".join(faults)))
        if group and (faults := names.dns1123_subdomain(group)):
            errors.append(invalid_value(f"{at}.group", group, ",".join(faults)))
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(ctx, obj)
        if not same(obj.get("spec") or {}, old.get("spec") or {}):
            errors.append(invalid_value("spec", obj.get("spec"), MESSAGE))
        return errors

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        status, before = obj.get("status") or {}, old.get("status") or {}
        version, conditions, at = status.get("resourceVersion") or "", status.get("conditions"), "status.conditions"
        errors: list[FieldError] = []
        if version and not (version.isdigit() and version[0] != "0"):
            why = f"resource version is not well formed: {version}"
            errors.append(invalid_value("status.resourceVersion", version, why))
        errors += validate_conditions(conditions, at)
        if before.get("resourceVersion") and before["resourceVersion"] != version:
            errors.append(invalid_value("status.resourceVersion", version, MESSAGE))
        if has_condition(obj, "Succeeded") and has_condition(obj, "Failed"):
            why = "Both success and failed conditions cannot be true at the same time"
            errors.append(invalid_value(at, conditions, why))
        for kind, word in (("Succeeded", "Success"), ("Failed", "Failed")):
            if has_condition(old, kind) and not has_condition(obj, kind):
                why = f"{word} condition cannot be set to false once it is true"
                errors.append(invalid_value(at, conditions, why))
        return errors
