"""Whether PersistentVolumes and PersistentVolumeClaims are sound.

Source: kubernetes pkg/apis/core/validation ValidatePersistentVolume, ValidatePersistentVolumeClaim.
"""

from __future__ import annotations

import copy
import posixpath
from typing import Any

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.persistent_volume import BETA_CLASS
from berg.apiserver.kinds.core.pod_spec.scheduling import validate_node_selector
from berg.apiserver.kinds.core.pod_spec.volumes import LONG_PORTAL
from berg.apiserver.kinds.core.volume_sources import one_source, validate_storage
from berg.apiserver.kinds.deprecated_labels import SUCCESSORS
from berg.apiserver.kinds.immutable import MESSAGE, immutable
from berg.apiserver.kinds.label_selectors import validate_selector
from berg.apiserver.kinds.sameness import same_field, same_struct
from berg.machinery import names, quantity
from berg.machinery.internal import difference
from berg.machinery.status import (
    FieldError,
    Obj,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from berg.machinery.typedef import type_named

CLAIM_SPEC, VOLUME_SPEC, VOLUME_SOURCE = (
    f"io.k8s.api.core.v1.PersistentVolume{part}" for part in ("ClaimSpec", "Spec", "Source")
)
ACCESS_MODES = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]
SOURCES = (
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
)


def _access_modes(modes: list[str], path: str) -> list[FieldError]:
    if not modes:
        return [required(f"{path}.accessModes")]
    errors = [not_supported(f"{path}.accessModes", m, ACCESS_MODES) for m in modes if m not in ACCESS_MODES]
    if "ReadWriteOncePod" in modes and len(set(modes)) > 1:
        why = "may not use ReadWriteOncePod with other access modes"
        errors.append(forbidden_field(f"{path}.accessModes", why))
    return errors


def validate_persistent_volume(obj: Obj) -> list[FieldError]:
    return validate_volume_spec(obj.get("spec") or {}, "spec", obj["metadata"].get("name") or "")


_INLINE = "may not be specified in the context of inline volumes"


def validate_volume_spec(spec: Obj, path: str, name: str, *, inline: bool = False) -> list[FieldError]:
    """`inline`: it stands in a VolumeAttachment, for a volume of a pod that never was a PersistentVolume."""
    errors: list[FieldError] = []
    if inline:
        errors += [forbidden_field(f"{path}.{key}", _INLINE) for key in ("claimRef", "capacity") if spec.get(key)]
        if spec.get("csi") is None:
            errors.append(required(f"{path}.csi", "has to be specified in the context of inline volumes"))
    errors += _access_modes(spec.get("accessModes") or [], path)
    if not inline:
        errors += _capacity(spec.get("capacity") or {}, f"{path}.capacity")
    policy, at = spec.get("persistentVolumeReclaimPolicy"), f"{path}.persistentVolumeReclaimPolicy"
    if policy and inline:
        if policy != "Retain":
            errors.append(forbidden_field(at, "may only be Retain in the context of inline volumes"))
    elif policy:
        errors += checks.one_of(at, policy, ["Delete", "Recycle", "Retain"])
    affinity = spec.get("nodeAffinity")
    if affinity is not None:
        at = f"{path}.nodeAffinity"
        if inline:
            errors.append(forbidden_field(at, _INLINE))
        elif affinity.get("required") is not None:
            errors += validate_node_selector(affinity["required"], f"{at}.required")
        else:
            errors.append(required(f"{at}.required", "must specify required node constraints"))
    errors += _source(spec, path, name)
    if posixpath.normpath((spec.get("hostPath") or {}).get("path") or ".") == "/" and policy == "Recycle":
        why = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(forbidden_field(f"{path}.persistentVolumeReclaimPolicy", why))
    if name := spec.get("storageClassName") or "":
        at = f"{path}.storageClassName"
        errors += [forbidden_field(at, _INLINE)] if inline else checks.named(at, name)
    if (mode := spec.get("volumeMode")) is not None:
        at = f"{path}.volumeMode"
        if not inline:
            errors += checks.one_of(at, mode, ["Block", "Filesystem"], empty=None)
        elif mode != "Filesystem":
            why = "may not specify volumeMode other than Filesystem in the context of inline volumes"
            errors.append(forbidden_field(at, why))
    if (attributes := spec.get("volumeAttributesClassName")) is not None:
        if not attributes:
            errors.append(required(f"{path}.volumeAttributesClassName", "an empty string is disallowed"))
        else:
            errors += checks.named(f"{path}.volumeAttributesClassName", attributes)
        if spec.get("csi") is None:
            why = "has to be specified when using volumeAttributesClassName"
            errors.append(required(f"{path}.csi", why))
    return errors


def _capacity(capacity: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if not capacity:
        errors.append(required(path))
    if "storage" not in capacity or len(capacity) > 1:
        errors.append(not_supported(path, capacity or None, ["storage"]))
    for name, value in capacity.items():
        errors += _positive(f"{path}[{name}]", value)
    return errors


def _positive(path: str, value: Any, *, once: bool = False) -> list[FieldError]:
    amount = quantity.of(value)
    if amount.nano > 0:
        return []
    errors = [] if once else _valid_amount(path, value)
    return [*errors, invalid_value(path, str(amount), "must be greater than zero")]


def _source(spec: Obj, path: str, name: str) -> list[FieldError]:
    def check(source: str, at: str) -> list[FieldError]:
        body = spec[source]
        errors = validate_storage(source, body, at, persistent=True)
        if source == "local" and spec.get("nodeAffinity") is None:
            errors.append(required(f"{path}.nodeAffinity", "Local volume requires node affinity"))
        portal = body.get("targetPortal") or ""
        if source == "iscsi" and body.get("initiatorName") is not None and len(f"{name}:{portal}") > 64:
            errors.insert(0 if portal else 1, invalid_value(f"{at}.targetportal", portal, LONG_PORTAL))
        return errors

    return one_source([s for s in SOURCES if spec.get(s) is not None], path, check, again=frozenset({"flexVolume"}))


def validate_persistent_volume_update(obj: Obj, old: Obj) -> list[FieldError]:
    errors = validate_persistent_volume(obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    new_sources: Obj = {s: spec.get(s) for s in SOURCES if spec.get(s) is not None}
    old_sources: Obj = {s: before.get(s) for s in SOURCES if before.get(s) is not None}
    secret = "controllerExpandSecretRef"
    if "csi" in old_sources and "csi" in new_sources and old_sources["csi"].get(secret) is None:  # may be added
        new_sources["csi"] = {k: v for k, v in new_sources["csi"].items() if k != secret}
    if not same_struct(type_named(VOLUME_SOURCE), new_sources, old_sources):
        diff = difference(VOLUME_SOURCE, old_sources, new_sources)
        why = f"spec.persistentvolumesource is immutable after creation\n{diff}"
        errors.append(forbidden_field("spec.persistentvolumesource", why))
    if spec.get("volumeMode") != before.get("volumeMode"):
        errors.append(invalid_value("volumeMode", spec.get("volumeMode"), MESSAGE))
    affinity = spec.get("nodeAffinity")
    if (was := before.get("nodeAffinity")) and not same_field(
        type_named(VOLUME_SPEC).fields["nodeAffinity"], affinity, _with_new_labels(was, affinity)
    ):
        why = "field is immutable, except for updating from beta label to GA"
        errors.append(invalid_value("nodeAffinity", affinity, why))
    if before.get("volumeAttributesClassName") is not None and spec.get("volumeAttributesClassName") is None:
        why = "update from non-nil value to nil is forbidden"
        errors.append(forbidden_field("spec.volumeAttributesClassName", why))
    return errors


def _with_new_labels(was: Any, new: Any, key: str = "") -> Any:
    """`was`, with each deprecated label named as `new` names it now, where that is its successor."""
    if isinstance(was, dict) and isinstance(new, dict):
        return {k: _with_new_labels(v, new.get(k), k) for k, v in was.items()}
    if isinstance(was, list) and isinstance(new, list) and len(was) == len(new):
        return [_with_new_labels(w, n) for w, n in zip(was, new, strict=True)]
    return new if key == "key" and SUCCESSORS.get(was, "") == new else was


def validate_claim_spec(spec: Obj, path: str) -> list[FieldError]:
    """Also of the claim templates of StatefulSets and ephemeral volumes."""
    modes = spec.get("accessModes") or []
    errors: list[FieldError] = []
    if not modes:
        errors.append(required(f"{path}.accessModes", "at least 1 access mode is required"))
    errors += validate_selector(spec.get("selector"), f"{path}.selector")
    errors += _access_modes(modes, path) if modes else []
    requests = (spec.get("resources") or {}).get("requests") or {}
    at = f"{path}.resources[storage]"
    errors += _positive(at, requests["storage"], once=True) if "storage" in requests else [required(at)]
    if name := spec.get("storageClassName"):
        errors += checks.named(f"{path}.storageClassName", name)
    if (mode := spec.get("volumeMode")) is not None and mode not in ("Block", "Filesystem"):
        errors.append(not_supported(f"{path}.volumeMode", mode, ["Block", "Filesystem"]))
    source, ref = spec.get("dataSource"), spec.get("dataSourceRef")
    for key, found in (("dataSource", source), ("dataSourceRef", ref)):
        if found is not None:
            errors += _data_source(found, f"{path}.{key}")
    if ref is not None and ref.get("namespace"):
        errors += checks.named(f"{path}.dataSourceRef.namespace", ref["namespace"], names.dns1123_label)
        if source is not None:
            why = "may not be specified when dataSourceRef.namespace is specified"
            errors.append(invalid_value(path, _A_PATH, why))
    elif source is not None and ref is not None and not _same_source(source, ref):
        errors.append(invalid_value(path, _A_PATH, "must match dataSourceRef"))
    if name := spec.get("volumeAttributesClassName"):
        errors += checks.named(f"{path}.volumeAttributesClassName", name)
    return errors


class _Path:
    """Upstream gives the path of the other field as the value, and a path shows as nothing."""

    def __str__(self) -> str:
        return "{}"


_A_PATH = _Path()


def claim_spec_warnings(spec: Obj, path: str) -> list[str]:
    found: list[str] = []
    for key in ("requests", "limits"):
        amount = quantity.of(((spec.get("resources") or {}).get(key) or {}).get("storage") or 0)
        if amount.milli() % 1000:
            at = f"{path}.resources.{key}[storage]"
            found.append(f'{at}: fractional byte value "{amount}" is invalid, must be an integer')
    return found


def _same_source(source: Obj, ref: Obj) -> bool:
    return all((source.get(k) or None) == (ref.get(k) or None) for k in ("apiGroup", "kind", "name"))


def _data_source(source: Obj, path: str) -> list[FieldError]:
    errors = checks.present(source, path, "name", "kind")
    group = source.get("apiGroup") or ""
    if not group and source.get("kind") != "PersistentVolumeClaim":
        why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        errors.append(invalid_value(path, source.get("kind") or "", why))
    if group:
        errors += checks.named(f"{path}.apiGroup", group)
    return errors


def validate_claim(obj: Obj) -> list[FieldError]:
    return validate_claim_spec(obj.get("spec") or {}, "spec")


def validate_claim_update(obj: Obj, old: Obj) -> list[FieldError]:
    errors = validate_claim(obj)
    spec, before = copy.deepcopy(obj.get("spec") or {}), copy.deepcopy(old.get("spec") or {})
    bound = ((obj.get("status") or {}).get("phase")) == "Bound"
    if not before.get("volumeName"):
        before["volumeName"] = spec.get("volumeName")
    annotations, was = obj["metadata"].get("annotations") or {}, old["metadata"].get("annotations") or {}
    if annotations.get(BETA_CLASS) != was.get(BETA_CLASS) and not (
        before.get("storageClassName") is None and spec.get("storageClassName") == was.get(BETA_CLASS)
    ):
        errors.append(invalid_value(f"metadata.annotations[{BETA_CLASS}]", annotations.get(BETA_CLASS), MESSAGE))
    if before.get("storageClassName") is None and spec.get("storageClassName") is not None:
        before["storageClassName"] = spec["storageClassName"]
    new_size = _storage(spec)
    old_size, has = _storage(before), _storage(old, "status", "capacity")
    if bound:
        if "storage" in ((before.get("resources") or {}).get("requests") or {}):
            spec.setdefault("resources", {}).setdefault("requests", {})["storage"] = before["resources"]["requests"][
                "storage"
            ]
        spec["volumeAttributesClassName"] = before.get("volumeAttributesClassName")
    if not same_struct(type_named(CLAIM_SPEC), spec, before):
        diff = difference(CLAIM_SPEC, before, spec)
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound "
            f"claims\n{diff}"
        )
        errors.append(forbidden_field("spec", why))
    if new_size < old_size and new_size <= has:
        why = "field can not be less than status.capacity"
        errors.append(forbidden_field("spec.resources.requests.storage", why))
    errors += immutable({"volumeMode": spec.get("volumeMode")}, {"volumeMode": before.get("volumeMode")}, "volumeMode")
    current = (old.get("status") or {}).get("currentVolumeAttributesClassName")
    wanted = (obj.get("spec") or {}).get("volumeAttributesClassName")
    if current is not None and wanted != (old.get("spec") or {}).get("volumeAttributesClassName") and not wanted:
        words = "nil" if wanted is None else "empty string"
        why = f"update to {words} is forbidden when status.currentVolumeAttributesClassName is not nil"
        errors.append(forbidden_field("spec.volumeAttributesClassName", why))
    return errors


def _storage(holder: Obj, *path: str) -> int:
    found = holder
    for key in path or ("resources", "requests"):
        found = found.get(key) or {}
    try:
        return quantity.of(found.get("storage") or 0).nano
    except ValueError:
        return 0


_RESIZE = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
]


def validate_claim_status_update(obj: Obj, old: Obj) -> list[FieldError]:
    status = obj.get("status") or {}
    errors: list[FieldError] = []
    if not (obj.get("spec") or {}).get("accessModes"):
        errors.append(required("Spec.accessModes"))
    for name, value in (status.get("capacity") or {}).items():
        errors += _valid_amount(f"status.capacity[{name}]", value)
    for name, state in (status.get("allocatedResourceStatuses") or {}).items():
        errors += _resizable("status.allocatedResourceStatuses", name)
        if state not in _RESIZE:
            errors.append(not_supported("status.allocatedResourceStatuses", name, _RESIZE))
    for name, value in (status.get("allocatedResources") or {}).items():
        at = f"status.allocatedResources[{name}]"
        errors += (
            _resizable("status.allocatedResources", name)
            or _valid_amount(at, value)
            or checks.amount(at, "storage", value)
        )
    return errors


def _resizable(path: str, name: str) -> list[FieldError]:
    if faults := checks.named(path, name, names.qualified_name):
        return faults
    return [not_supported(path, name, ["storage"])] if checks.is_native(name) and name != "storage" else []


def _valid_amount(path: str, value: Any) -> list[FieldError]:
    amount = quantity.of(value)
    return [invalid_value(path, amount.value(), "must be a valid resource quantity")] if amount.nano < 0 else []
