"""StorageClasses.

Source: kubernetes pkg/apis/storage/v1/defaults.go, pkg/apis/storage/validation ValidateStorageClass.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj

DEFAULT_ANNOTATIONS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def _name(obj: Obj) -> str:
    return f"{cells.name(obj)} (default)" if cells.is_default(obj, *DEFAULT_ANNOTATIONS) else cells.name(obj)


@strategy_for("storage.k8s.io", "storageclasses")
class StorageClassStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    namespaced = False
    has_status = False
    generation = False
    columns = [
        Column("Name", _name, format="name"),
        Column("Provisioner", cells.at("provisioner")),
        Column("ReclaimPolicy", cells.at("reclaimPolicy", "Delete")),
        Column("VolumeBindingMode", cells.at("volumeBindingMode", "Immediate")),
        Column("AllowVolumeExpansion", cells.at("allowVolumeExpansion", False)),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        if obj.get("reclaimPolicy") is None:
            obj["reclaimPolicy"] = "Delete"
        if obj.get("volumeBindingMode") is None:
            obj["volumeBindingMode"] = "Immediate"

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.storage.validation import validate_storage_class

        return validate_storage_class(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        kept = ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode")
        return self.validate(ctx, obj) + immutable(obj, old, *kept)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds.deprecated_labels import LABELS

        return [
            f"allowedTopologies[{i}].matchLabelExpressions[{j}].key: {LABELS[e['key']]}"
            for i, term in enumerate(obj.get("allowedTopologies") or ())
            for j, e in enumerate(term.get("matchLabelExpressions") or ())
            if e.get("key") in LABELS
        ]
