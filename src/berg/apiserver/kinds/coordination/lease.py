"""Leases and LeaseCandidates.

Source: kubernetes pkg/registry/coordination, pkg/apis/coordination/validation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from berg.apiserver.kinds import cells, checks
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, required


@strategy_for("coordination.k8s.io", "leases")
class LeaseStrategy(Strategy):
    metadata_checks = (0, 0, 1)
    has_status = False
    generation = False
    allow_create_on_update = True
    allow_unconditional_update = False
    columns = [cells.NAME, Column("Holder", cells.at("spec.holderIdentity")), cells.AGE]

    def default(self, obj: Obj) -> None:
        if obj.get("spec") is None:
            obj["spec"] = {}

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        _drop_coordination(ctx, obj["spec"], {})

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        _drop_coordination(ctx, obj["spec"], old.get("spec") or {})

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


def _drop_coordination(ctx: Context, spec: Obj, before: Obj) -> None:
    """What only coordinated leader election knows is not stored without it, but stays where it is."""
    if not ctx.enabled("CoordinatedLeaderElection"):
        for key in ("strategy", "preferredHolder"):
            if before.get(key) is None:
                spec.pop(key, None)


OLDEST = "OldestEmulationVersion"
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


def version_order(version: str) -> tuple[Any, ...]:
    """By what semantic versions are compared; what is none comes first."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return (0, 0, 0, 1)
    before = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in (found[4] or "-")[1:].split(".") if p)
    return (*(int(found[i]) for i in (1, 2, 3)), 0 if before else 1, before)


@strategy_for("coordination.k8s.io", "leasecandidates")
class LeaseCandidateStrategy(Strategy):
    metadata_checks = (0, 0, 1)
    has_status = False
    generation = False
    allow_create_on_update = True
    allow_unconditional_update = False
    columns = [
        cells.NAME,
        Column("LeaseName", cells.at("spec.leaseName")),
        Column("BinaryVersion", cells.at("spec.binaryVersion")),
        Column("EmulationVersion", cells.at("spec.emulationVersion")),
        cells.AGE,
    ]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        binary, emulated = spec.get("binaryVersion") or "", spec.get("emulationVersion") or ""
        errors = [] if spec.get("leaseName") else [required("spec.leaseName")]
        for key, text in (("emulationVersion", emulated), ("binaryVersion", binary)):
            if text and not _VERSION.fullmatch(text):
                errors.append(invalid_value(f"spec.{key}", text, "must be a valid semantic version"))
            elif not text and key == "binaryVersion":
                errors.append(required("spec.binaryVersion"))
        if binary and emulated and version_order(binary) < version_order(emulated):
            why = "must be greater than or equal to `emulationVersion`"
            errors.append(invalid_value("spec.binaryVersion", binary, why))
        strategy = spec.get("strategy") or ""
        if not strategy:
            return [*errors, required("spec.strategy")]
        if strategy == OLDEST and not any(version_order(emulated)[:3]):
            why = "must be specified when `strategy` is 'OldestEmulationVersion'"
            errors.append(required("spec.emulationVersion", why))
        at = "spec.strategy.strategy"
        if "/" in strategy:
            return errors + checks.named(at, strategy, names.qualified_name)
        return errors + checks.one_of(at, strategy, [OLDEST])

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return self.validate(ctx, obj) + immutable(obj, old, "spec.leaseName")

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        return names.config_map_key(name)
