"""PersistentVolumes.

Source: kubernetes pkg/registry/core/persistentvolume, pkg/apis/core/validation ValidatePersistentVolume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.pod_spec.defaults import source_defaults
from berg.apiserver.kinds.core.pod_spec.resources import canonical_list
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.clock import rfc3339
from berg.machinery.status import FieldError, Obj

BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


def storage_class(obj: Obj) -> str:
    """Of a volume or a claim; the old annotation still counts."""
    annotation = (obj["metadata"].get("annotations") or {}).get(BETA_CLASS)
    return annotation if annotation is not None else (obj.get("spec") or {}).get("storageClassName") or ""


def phase(obj: Obj) -> str:
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else (obj.get("status") or {}).get("phase") or ""


def _claim(obj: Obj) -> str:
    ref = (obj.get("spec") or {}).get("claimRef")
    return f"{ref.get('namespace') or ''}/{ref.get('name') or ''}" if ref else ""


@strategy_for("", "persistentvolumes")
class PersistentVolumeStrategy(Strategy):
    metadata_checks = (1, 2, 0)
    namespaced = False
    generation = False
    columns = [
        cells.NAME,
        Column("Capacity", lambda o: ((o.get("spec") or {}).get("capacity") or {}).get("storage", "0")),
        Column("Access Modes", lambda o: cells.access_modes((o.get("spec") or {}).get("accessModes"))),
        Column("Reclaim Policy", cells.at("spec.persistentVolumeReclaimPolicy")),
        Column("Status", phase),
        Column("Claim", _claim),
        Column("StorageClass", storage_class),
        Column("VolumeAttributesClass", cells.at("spec.volumeAttributesClassName", "<unset>")),
        Column("Reason", cells.at("status.reason")),
        cells.AGE,
        Column("VolumeMode", cells.at("spec.volumeMode", "<unset>"), priority=1),
    ]

    def default(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec is None:
            spec = obj["spec"] = {}
        if not spec.get("persistentVolumeReclaimPolicy"):
            spec["persistentVolumeReclaimPolicy"] = "Retain"
        if spec.get("volumeMode") is None:
            spec["volumeMode"] = "Filesystem"
        if capacity := spec.get("capacity"):
            canonical_list(capacity)
        for source, body in spec.items():
            if isinstance(body, dict) and source not in ("capacity", "claimRef", "nodeAffinity"):
                source_defaults(source, body)
        if (status := obj.get("status")) is not None and not status.get("phase"):
            status["phase"] = "Pending"

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {"phase": "Pending", "lastPhaseTransitionTime": rfc3339(ctx.clock.now())}

    def prepare_status_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        status, before = obj.setdefault("status", {}), old.get("status") or {}
        told, known = status.get("lastPhaseTransitionTime"), before.get("lastPhaseTransitionTime")
        if status.get("phase") == before.get("phase"):
            if told is None and known is not None:
                status["lastPhaseTransitionTime"] = known
        elif told is None or told == known:
            status["lastPhaseTransitionTime"] = rfc3339(ctx.clock.now())

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.volume_validation import validate_persistent_volume

        return validate_persistent_volume(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.volume_validation import validate_persistent_volume_update

        return self.validate(ctx, obj) + validate_persistent_volume_update(obj, old)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        found = []
        if BETA_CLASS in (obj["metadata"].get("annotations") or {}):
            found.append(
                f'metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead'
            )
        if (obj.get("spec") or {}).get("persistentVolumeReclaimPolicy") == "Recycle":
            found.append(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the "
                "recommended approach is to use dynamic provisioning."
            )
        return [*found, *_deprecated(obj.get("spec") or {})]


def _deprecated(spec: Obj) -> Iterator[str]:
    from berg.apiserver.kinds.core.pod_spec.warnings import SHOWN, VOLUMES
    from berg.apiserver.kinds.deprecated_labels import in_term

    required = (spec.get("nodeAffinity") or {}).get("required") or {}
    for i, term in enumerate(required.get("nodeSelectorTerms") or ()):
        yield from in_term(term, f"spec.nodeAffinity.required.nodeSelectorTerms[{i}]")
    for key in ("cephfs", "photonPersistentDisk", "scaleIO", "storageos", "glusterfs", "rbd"):
        if spec.get(key) is not None:
            yield f"spec.{SHOWN.get(key, key)}: {VOLUMES[key]}"
