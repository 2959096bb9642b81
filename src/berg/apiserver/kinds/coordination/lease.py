"""Leases and LeaseCandidates.

Source: kubernetes pkg/registry/coordination, pkg/apis/coordination/validation.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, required


@strategy_for("coordination.k8s.io", "leases")
class LeaseStrategy(Strategy):
    has_status = False
    generation = False
    allow_create_on_update = True
    allow_unconditional_update = False
    columns = [cells.NAME, Column("Holder", cells.at("spec.holderIdentity")), cells.AGE]

    def default(self, obj: Obj) -> None:
        if obj.get("spec") is None:
            obj["spec"] = {}

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors: list[FieldError] = []
        duration = spec.get("leaseDurationSeconds")
        if duration is not None and duration <= 0:
            errors.append(invalid_value("spec.leaseDurationSeconds", duration, "must be greater than 0"))
        transitions = spec.get("leaseTransitions")
        if transitions is not None and transitions < 0:
            errors.append(invalid_value("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
        if spec.get("preferredHolder") and not spec.get("strategy"):
            errors.append(forbidden_field("spec.preferredHolder", "may only be specified if `strategy` is defined"))
        return errors


@strategy_for("coordination.k8s.io", "leasecandidates")
class LeaseCandidateStrategy(Strategy):
    has_status = False
    generation = False
    allow_create_on_update = True
    allow_unconditional_update = False
    field_labels = ("spec.leaseName",)
    columns = [
        cells.NAME,
        Column("LeaseName", cells.at("spec.leaseName")),
        Column("BinaryVersion", cells.at("spec.binaryVersion")),
        Column("EmulationVersion", cells.at("spec.emulationVersion")),
        cells.AGE,
    ]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        return [required(f"spec.{k}") for k in ("leaseName", "binaryVersion", "strategy") if not spec.get(k)]

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"spec.leaseName": (obj.get("spec") or {}).get("leaseName") or ""}
