"""PersistentVolumeClaims.

Source: kubernetes pkg/registry/core/persistentvolumeclaim, pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.persistent_volume import BETA_CLASS, phase, storage_class
from berg.apiserver.kinds.core.pod_spec.defaults import claim_spec_defaults
from berg.apiserver.kinds.core.pod_spec.resources import canonical_list
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj


def _when_bound(obj: Obj, key: str) -> Obj | list[str] | None:
    if not (obj.get("spec") or {}).get("volumeName"):
        return None
    return (obj.get("status") or {}).get(key) or {}


def _capacity(obj: Obj) -> str:
    capacity = _when_bound(obj, "capacity")
    return "" if capacity is None else capacity.get("storage", "0") if isinstance(capacity, dict) else ""


@strategy_for("", "persistentvolumeclaims")
class PersistentVolumeClaimStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    generation = False
    columns = [
        cells.NAME,
        Column("Status", phase),
        Column("Volume", cells.at("spec.volumeName")),
        Column("Capacity", _capacity),
        Column("Access Modes", lambda o: cells.access_modes(_when_bound(o, "accessModes"))),
        Column("StorageClass", storage_class),
        Column("VolumeAttributesClass", cells.at("spec.volumeAttributesClassName", "<unset>")),
        cells.AGE,
        Column("VolumeMode", cells.at("spec.volumeMode", "<unset>"), priority=1),
    ]

    def default(self, obj: Obj) -> None:
        if obj.get("spec") is None:
            obj["spec"] = {}
        claim_spec_defaults(obj["spec"])
        if (status := obj.get("status")) is not None:
            if not status.get("phase"):
                status["phase"] = "Pending"
            for key in ("capacity", "allocatedResources"):
                if amounts := status.get(key):
                    canonical_list(amounts)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {"phase": "Pending"}
        _data_source(obj["spec"], None, ctx.enabled("CrossNamespaceVolumeDataSource"))

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        _data_source(obj["spec"], old.get("spec") or {}, ctx.enabled("CrossNamespaceVolumeDataSource"))

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.volume_validation import validate_claim

        return validate_claim(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.volume_validation import validate_claim_update

        return validate_claim_update(obj, old)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.volume_validation import validate_claim_status_update

        return validate_claim_status_update(obj, old)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds.core.volume_validation import claim_spec_warnings

        found: list[str] = []
        if BETA_CLASS in (obj["metadata"].get("annotations") or {}):
            found.append(
                f'metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead'
            )
        return [*found, *claim_spec_warnings(obj.get("spec") or {}, "spec")]


_SOURCES = (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))


def _data_source(spec: Obj, before: Obj | None, crossing: bool) -> None:
    """`dataSource` and `dataSourceRef` say the same unless the latter names another namespace. Sources that only
    the latter can name are silently dropped from the former, as ever."""
    source, ref = spec.get("dataSource"), spec.get("dataSourceRef")
    crossed = (before or {}).get("dataSourceRef") is not None
    if ref and ref.get("namespace") and not crossing and not crossed:
        ref = spec.pop("dataSourceRef") and None  # claims that reach into other namespaces wait for their feature gate
    in_use = bool(before and (before.get("dataSource") or before.get("dataSourceRef")))
    if source and not ref and not in_use and ((source.get("apiGroup") or "", source.get("kind")) not in _SOURCES):
        del spec["dataSource"]
        source = None
    if source and not ref:
        spec["dataSourceRef"] = dict(source)
    elif ref and not source and not ref.get("namespace"):
        spec["dataSource"] = {k: v for k, v in ref.items() if k != "namespace"}
