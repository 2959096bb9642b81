"""Whether PersistentVolumes and PersistentVolumeClaims are sound.

Source: kubernetes pkg/apis/core/validation ValidatePersistentVolume, ValidatePersistentVolumeClaim.
"""

from __future__ import annotations

import copy

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.persistent_volume import BETA_CLASS
from berg.apiserver.kinds.core.pod_spec.scheduling import validate_node_selector
from berg.apiserver.kinds.core.pod_spec.volumes import (
    REQUIRED_FIELDS,
    SOURCE_CHECKS,
    csi_driver_name,
    no_backsteps,
)
from berg.apiserver.kinds.immutable import MESSAGE, immutable
from berg.apiserver.kinds.label_selectors import validate_selector
from berg.apiserver.kinds.sameness import differences, same
from berg.machinery import quantity
from berg.machinery.status import (
    FieldError,
    Obj,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)

ACCESS_MODES = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]
_IN_VOLUMES = {**dict.fromkeys(REQUIRED_FIELDS), "local": None}
_NOT_IN_VOLUMES = ("configMap", "downwardAPI", "emptyDir", "ephemeral", "gitRepo", "image", "projected", "secret")
SOURCES = [s for s in _IN_VOLUMES if s not in (*_NOT_IN_VOLUMES, "persistentVolumeClaim")]


def _access_modes(modes: list[str], path: str) -> list[FieldError]:
    if not modes:
        return [required(f"{path}.accessModes")]
    errors = [not_supported(f"{path}.accessModes", m, ACCESS_MODES) for m in modes if m not in ACCESS_MODES]
    if "ReadWriteOncePod" in modes and len(set(modes)) > 1:
        why = "may not use ReadWriteOncePod with other access modes"
        errors.append(forbidden_field(f"{path}.accessModes", why))
    return errors


def _size(amounts: Obj, path: str) -> list[FieldError]:
    if "storage" not in amounts:
        return [required(path)]
    errors = checks.amount(path, "storage", amounts["storage"])
    if not errors and quantity.of(amounts["storage"]).nano == 0:
        errors.append(invalid_value(path, str(amounts["storage"]), "must be greater than zero"))
    return errors


def validate_persistent_volume(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = _access_modes(spec.get("accessModes") or [], "spec")
    capacity = spec.get("capacity") or {}
    if not capacity:
        errors.append(required("spec.capacity"))
    if "storage" not in capacity or len(capacity) > 1:
        errors.append(not_supported("spec.capacity", capacity, ["storage"]))
    for name, value in capacity.items():
        errors += checks.amount(f"spec.capacity[{name}]", name, value)
        if not errors and quantity.of(value).nano == 0:
            errors.append(invalid_value(f"spec.capacity[{name}]", str(value), "must be greater than zero"))
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy and policy not in ("Delete", "Recycle", "Retain"):
        supported = ["Delete", "Recycle", "Retain"]
        errors.append(not_supported("spec.persistentVolumeReclaimPolicy", policy, supported))
    if affinity := spec.get("nodeAffinity"):
        if affinity.get("required") is not None:
            errors += validate_node_selector(affinity["required"], "spec.nodeAffinity.required")
        else:
            why = "must specify required node constraints"
            errors.append(required("spec.nodeAffinity.required", why))
    errors += _source(spec)
    if (spec.get("hostPath") or {}).get("path") == "/" and policy == "Recycle":
        why = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(forbidden_field("spec.persistentVolumeReclaimPolicy", why))
    if name := spec.get("storageClassName"):
        errors += checks.named("spec.storageClassName", name)
    if (mode := spec.get("volumeMode")) is not None and mode not in ("Block", "Filesystem"):
        errors.append(not_supported("spec.volumeMode", mode, ["Block", "Filesystem"]))
    if (name := spec.get("volumeAttributesClassName")) is not None:
        if not name:
            errors.append(required("spec.volumeAttributesClassName", "an empty string is disallowed"))
        else:
            errors += checks.named("spec.volumeAttributesClassName", name)
        if spec.get("csi") is None:
            why = "has to be specified when using volumeAttributesClassName"
            errors.append(required("spec.csi", why))
    return errors


def _source(spec: Obj) -> list[FieldError]:
    given = [s for s in SOURCES if spec.get(s) is not None]
    if not given:
        return [required("spec", "must specify a volume type")]
    errors = [forbidden_field(f"spec.{s}", "may not specify more than 1 volume type") for s in given[1:]]
    source = given[0]
    body, at = spec[source], f"spec.{source}"
    if source == "local":
        if not body.get("path"):
            errors.append(required(f"{at}.path"))
        else:
            errors += no_backsteps(f"{at}.path", body["path"])
        if not spec.get("nodeAffinity"):
            errors.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    elif source == "csi":
        errors += csi_driver_name(f"{at}.driver", body.get("driver") or "")
        errors += checks.present(body, at, "volumeHandle")
        for key in body:
            if key.endswith("SecretRef") and body[key] is not None:
                errors += checks.present(body[key], f"{at}.{key}", "name", "namespace")
    else:
        errors += checks.present(body, at, *REQUIRED_FIELDS[source])
        if check := SOURCE_CHECKS.get(source):
            errors += check(body, at)
    return errors


def validate_persistent_volume_update(obj: Obj, old: Obj) -> list[FieldError]:
    errors = validate_persistent_volume(obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    new_sources: Obj = {s: spec.get(s) for s in SOURCES if spec.get(s) is not None}
    old_sources: Obj = {s: before.get(s) for s in SOURCES if before.get(s) is not None}
    for sources in (new_sources, old_sources):
        if "csi" in sources:  # where its secrets lie may change
            sources["csi"] = {k: v for k, v in sources["csi"].items() if k != "controllerExpandSecretRef"}
    if not same(new_sources, old_sources):
        diff = "\n".join(differences(old_sources, new_sources))
        why = f"spec.persistentvolumesource is immutable after creation\n{diff}\n"
        errors.append(forbidden_field("spec.persistentvolumesource", why))
    if spec.get("volumeMode") != before.get("volumeMode"):
        errors.append(invalid_value("volumeMode", spec.get("volumeMode"), MESSAGE))
    if before.get("nodeAffinity") and not same(spec.get("nodeAffinity"), before["nodeAffinity"]):
        errors.append(invalid_value("nodeAffinity", spec.get("nodeAffinity"), MESSAGE))
    return errors


def validate_claim_spec(spec: Obj, path: str) -> list[FieldError]:
    """Also of the claim templates of StatefulSets and ephemeral volumes."""
    modes = spec.get("accessModes") or []
    errors: list[FieldError] = []
    if not modes:
        errors.append(required(f"{path}.accessModes", "at least 1 access mode is required"))
    errors += validate_selector(spec.get("selector"), f"{path}.selector")
    errors += _access_modes(modes, path) if modes else []
    requests = (spec.get("resources") or {}).get("requests") or {}
    errors += _size(requests, f"{path}.resources[storage]")
    if name := spec.get("storageClassName"):
        errors += checks.named(f"{path}.storageClassName", name)
    if (mode := spec.get("volumeMode")) is not None and mode not in ("Block", "Filesystem"):
        errors.append(not_supported(f"{path}.volumeMode", mode, ["Block", "Filesystem"]))
    source, ref = spec.get("dataSource"), spec.get("dataSourceRef")
    for key, found in (("dataSource", source), ("dataSourceRef", ref)):
        if found is not None:
            errors += _data_source(found, f"{path}.{key}")
    if ref is not None and ref.get("namespace"):
        if source is not None:
            why = "may not be specified when dataSourceRef.namespace is specified"
            errors.append(invalid_value(path, f"{path}.dataSource", why))
    elif source is not None and ref is not None and not _same_source(source, ref):
        errors.append(invalid_value(path, f"{path}.dataSource", "must match dataSourceRef"))
    if name := spec.get("volumeAttributesClassName"):
        errors += checks.named(f"{path}.volumeAttributesClassName", name)
    return errors


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
    if not same(spec, before):
        diff = "\n".join(differences(before, spec))
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound "
            f"claims\n{diff}\n"
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
    for key in ("capacity", "allocatedResources"):
        for name, value in (status.get(key) or {}).items():
            errors += checks.amount(f"status.{key}[{name}]", name, value)
    for name, state in (status.get("allocatedResourceStatuses") or {}).items():
        if state not in _RESIZE:
            errors.append(not_supported("status.allocatedResourceStatuses", name, sorted(_RESIZE)))
    return errors
