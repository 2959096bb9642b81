"""Namespaces.

Source: kubernetes pkg/registry/core/namespace/strategy.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, invalid_value

NAME_LABEL = "kubernetes.io/metadata.name"
FINALIZER = "kubernetes"


@strategy_for("", "namespaces")
class NamespaceStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    namespaced = False
    generation = False
    field_labels = ("status.phase",)
    columns = [cells.NAME, Column("Status", cells.at("status.phase")), cells.AGE]

    def default(self, obj: Obj) -> None:
        metadata = obj["metadata"]
        if name := metadata.get("name"):
            labels = metadata.get("labels")
            if labels is None:
                labels = metadata["labels"] = {}
            labels[NAME_LABEL] = name
        if obj.get("spec") is None:
            obj["spec"] = {}
        if (status := obj.get("status")) is not None and not status.get("phase"):
            status["phase"] = "Active"

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {"phase": "Active"}
        finalizers = obj["spec"].setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        """The finalizers of the spec change only through /finalize."""
        if ctx.subresource == "finalize":
            return
        spec, before = obj.setdefault("spec", {}), old.get("spec") or {}
        if "finalizers" in before:
            spec["finalizers"] = before["finalizers"]
        else:
            spec.pop("finalizers", None)

    def canonicalize(self, obj: Obj) -> None:
        obj["metadata"].setdefault("labels", {})[NAME_LABEL] = obj["metadata"].get("name", "")

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        return names.dns1123_label(name.rstrip("-") + "a" if prefix and name.endswith("-") else name)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        return [
            error
            for finalizer in (obj.get("spec") or {}).get("finalizers") or ()
            for error in validate_finalizer(finalizer, "spec.finalizers")
        ]

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        phase = (obj.get("status") or {}).get("phase")
        if obj["metadata"].get("deletionTimestamp"):
            if phase != "Terminating":
                return [
                    invalid_value(
                        "status.Phase", phase or "", "may only be 'Terminating' if `deletionTimestamp` is not empty"
                    )
                ]
        elif phase != "Active":
            return [invalid_value("status.Phase", phase or "", "may only be 'Active' if `deletionTimestamp` is empty")]
        return []

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"status.phase": (obj.get("status") or {}).get("phase") or ""}


def validate_finalizer(name: str, path: str) -> list[FieldError]:
    errors = [invalid_value(path, name, text) for text in names.qualified_name(name)]
    if "/" not in name and name not in (FINALIZER, "orphan", "foregroundDeletion"):
        errors.append(invalid_value(path, name, "name is neither a standard finalizer name nor is it fully qualified"))
    return errors
