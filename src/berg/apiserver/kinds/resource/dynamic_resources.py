"""Dynamic resource allocation: classes, claims, templates, slices, taints.

Source: kubernetes pkg/apis/resource/v1/defaults.go, pkg/printers.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.apiserver.kinds import cells, gated, label_selectors
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.clock import rfc3339
from berg.machinery.status import FieldError, Obj, too_many

GROUP = "resource.k8s.io"
MAX_CONDITIONS = 8


def _exact(request: Obj) -> None:
    if request.get("allocationMode") is None:
        request["allocationMode"] = "ExactCount"
    if request["allocationMode"] == "ExactCount" and not request.get("count"):
        request["count"] = 1
    _tolerations(request)


def _tolerations(holder: Obj) -> None:
    for toleration in holder.get("tolerations") or ():
        toleration["operator"] = toleration.get("operator") or "Equal"


def claim_defaults(spec: Obj | None) -> None:
    for request in ((spec or {}).get("devices") or {}).get("requests") or ():
        if (exactly := request.get("exactly")) is not None:
            _exact(exactly)
        for alternative in request.get("firstAvailable") or ():
            _exact(alternative)


def _derived(spec: str) -> tuple[str, str]:
    requests = f"{spec}.devices.requests.*"
    return f"{requests}.exactly.derivedAttributes", f"{requests}.firstAvailable.*.derivedAttributes"


_LISTED = tuple(f"spec.devices.*.attributes.*.{key}" for key in ("bools", "ints", "strings", "versions"))


def _state(obj: Obj) -> str:
    deleting = bool(obj["metadata"].get("deletionTimestamp"))
    status = obj.get("status") or {}
    words = ["deleted"] if deleting else []
    if status.get("allocation") is None:
        words += [] if deleting else ["pending"]
    else:
        words.append("allocated")
        words += ["reserved"] if status.get("reservedFor") else []
    return ",".join(words)


@strategy_for(GROUP, "deviceclasses")
class DeviceClassStrategy(Strategy):
    namespaced = False
    has_status = False
    columns = [cells.NAME, cells.AGE]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.resource.claim_validation import validate_device_class

        return validate_device_class(obj)


@strategy_for(GROUP, "resourceclaims")
class ResourceClaimStrategy(Strategy):
    status_metadata = ()
    generation = False
    columns = [cells.NAME, Column("State", _state), cells.AGE]

    def default(self, obj: Obj) -> None:
        claim_defaults(obj.get("spec"))
        allocation = (obj.get("status") or {}).get("allocation") or {}
        for result in (allocation.get("devices") or {}).get("results") or ():
            _tolerations(result)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}
        gated.drop_disabled(ctx, "DRADerivedAttributes", obj, None, *_derived("spec"))

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        gated.drop_disabled(ctx, "DRADerivedAttributes", obj, old, *_derived("spec"))

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return immutable(obj, old, "spec")

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.resource import claim_access
        from berg.apiserver.kinds.resource.claim_validation import validate_claim

        return claim_access.may_administer(ctx, claim_access.administered(obj.get("spec") or {})) + validate_claim(obj)

    def prepare_status_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        from berg.apiserver.kinds.resource.claim_status import drop_deallocated

        path = "status.allocation.devices.results.*.skipNodeOperations"
        gated.drop_disabled(ctx, "DRAOptionalNodeOperations", obj, old, path)
        drop_deallocated(obj.get("status") or {}, old.get("status") or {})

    async def authorize_status(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.resource import claim_access

        return await claim_access.may_write_status(ctx, obj.get("status") or {}, old.get("status") or {})

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.resource.claim_status import validate_claim_status

        return validate_claim_status(obj, old)


@strategy_for(GROUP, "resourceclaimtemplates")
class ResourceClaimTemplateStrategy(Strategy):
    has_status = False
    generation = False
    columns = [cells.NAME, cells.AGE]

    def default(self, obj: Obj) -> None:
        claim_defaults((obj.get("spec") or {}).get("spec"))

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        gated.drop_disabled(ctx, "DRADerivedAttributes", obj, None, *_derived("spec.spec"))

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        gated.drop_disabled(ctx, "DRADerivedAttributes", obj, old, *_derived("spec.spec"))

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.resource.claim_validation import validate_template

        return validate_template(obj) + immutable(obj, old, "spec")

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.resource import claim_access
        from berg.apiserver.kinds.resource.claim_validation import validate_template

        wanted = claim_access.administered((obj.get("spec") or {}).get("spec") or {})
        return claim_access.may_administer(ctx, wanted) + validate_template(obj)


@strategy_for(GROUP, "resourceslices")
class ResourceSliceStrategy(Strategy):
    namespaced = False
    has_status = False
    field_labels = ("spec.nodeName", "spec.driver")
    columns = [
        cells.NAME,
        Column("Node", cells.at("spec.nodeName")),
        Column("Driver", cells.at("spec.driver")),
        Column("Pool", cells.at("spec.pool.name")),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        for device in (obj.get("spec") or {}).get("devices") or ():
            for taint in device.get("taints") or ():
                _taint(taint)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        gated.drop_disabled(ctx, "DRAListTypeAttributes", obj, None, *_LISTED)
        gated.drop_disabled(ctx, "DRAOptionalNodeOperations", obj, None, "spec.skipNodeOperations")

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        gated.drop_disabled(ctx, "DRAListTypeAttributes", obj, old, *_LISTED)
        gated.drop_disabled(ctx, "DRAOptionalNodeOperations", obj, old, "spec.skipNodeOperations")

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.resource.slice_validation import validate_slice

        return validate_slice(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.resource.slice_validation import validate_slice

        return validate_slice(obj, old)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        spec = obj.get("spec") or {}
        return {"spec.nodeName": spec.get("nodeName") or "", "spec.driver": spec.get("driver") or ""}


def _taint(taint: Obj) -> None:
    if taint.get("timeAdded") is None:
        taint["timeAdded"] = rfc3339(cells.now())


def _of_taint(key: str) -> Callable[[Obj], str]:
    def value(obj: Obj) -> str:
        taint = (obj.get("spec") or {}).get("taint") or {}
        found = taint.get(key)
        if key == "timeAdded":
            return cells.since(found) if found else ""
        return found or ""

    return value


@strategy_for(GROUP, "devicetaintrules")
class DeviceTaintRuleStrategy(Strategy):
    status_metadata = ()
    namespaced = False
    columns = [
        cells.NAME,
        Column("Key", _of_taint("key")),
        Column("Value", _of_taint("value")),
        Column("Effect", _of_taint("effect")),
        Column("TimeAdded", _of_taint("timeAdded")),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        if taint := (obj.get("spec") or {}).get("taint"):
            _taint(taint)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.resource.slice_validation import validate_taint_rule

        return validate_taint_rule(obj)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        conditions = (obj.get("status") or {}).get("conditions")
        errors = label_selectors.validate_conditions(conditions, "status.conditions")
        if conditions and len(conditions) > MAX_CONDITIONS:
            errors.append(too_many("status.conditions", len(conditions), MAX_CONDITIONS))
        return errors
