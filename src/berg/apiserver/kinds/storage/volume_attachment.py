"""VolumeAttachments.

Source: kubernetes pkg/registry/storage/volumeattachment, pkg/apis/storage/validation.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells, checks
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, required, too_long


@strategy_for("storage.k8s.io", "volumeattachments")
class VolumeAttachmentStrategy(Strategy):
    status_metadata = ()
    namespaced = False
    generation = False
    allow_unconditional_update = False
    columns = [
        cells.NAME,
        Column("Attacher", cells.at("spec.attacher"), format="name"),
        Column("PV", cells.at("spec.source.persistentVolumeName")),
        Column("Node", cells.at("spec.nodeName")),
        Column("Attached", cells.at("status.attached", False), "boolean"),
        cells.AGE,
    ]

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {"attached": False}

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        source = spec.get("source") or {}
        errors: list[FieldError] = []
        attacher = spec.get("attacher") or ""
        if not attacher:
            errors.append(required("spec.attacher"))
        else:
            if len(attacher) > 63:
                errors.append(too_long("spec.attacher", attacher, 63))
            errors += [invalid_value("spec.attacher", attacher, t) for t in names.dns1123_subdomain(attacher.lower())]
        inline, name = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
        if inline is None and name is None:
            why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            errors.append(required("spec.source", why))
        elif inline is not None and name is not None:
            why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            errors.append(forbidden_field("spec.source", why))
        elif name is not None:
            if not name:
                errors.append(
                    required("spec.source.persistentVolumeName", "must specify non empty persistentVolumeName")
                )
            errors += [
                invalid_value("spec.source.persistentVolumeName", name, t) for t in names.dns1123_subdomain(name)
            ]
        else:
            from berg.apiserver.kinds.core.volume_validation import validate_volume_spec

            errors += validate_volume_spec(inline or {}, "spec.source.inlineVolumeSpec", "", inline=True)
        errors += [
            invalid_value("spec.nodeName", spec.get("nodeName") or "", t)
            for t in names.dns1123_subdomain(spec.get("nodeName") or "")
        ]
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return self.validate(ctx, obj) + immutable(obj, old, "spec")

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        for key in ("attachError", "detachError"):
            code = ((obj.get("status") or {}).get(key) or {}).get("errorCode")
            if code is not None:
                errors += checks.between(f"status.{key}.errorCode", code, 0, checks.MAX_INT32)
        return errors
