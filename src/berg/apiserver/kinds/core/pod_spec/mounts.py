"""What containers mount of their pod's volumes.

Source: kubernetes pkg/apis/core/validation ValidateVolumeMounts, ValidateVolumeDevices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from berg.apiserver.kinds.core.pod_spec.projections import relative_path
from berg.machinery.status import (
    FieldError,
    Obj,
    forbidden_field,
    invalid_value,
    not_found_field,
    not_supported,
    required,
)


def validate_mounts(c: Obj, volumes: Mapping[str, Any], path: str) -> list[FieldError]:
    """`volumeMounts` and `volumeDevices` of one container."""
    mounts, devices = c.get("volumeMounts") or (), c.get("volumeDevices") or ()
    device_paths = {d.get("name"): d.get("devicePath") for d in devices}
    mount_paths = {m.get("name"): m.get("mountPath") for m in mounts}
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, m in enumerate(mounts):
        at, name, where = f"{path}.volumeMounts[{i}]", m.get("name") or "", m.get("mountPath") or ""
        if not name:
            errors.append(required(f"{at}.name"))
        if name not in volumes:
            errors.append(not_found_field(f"{at}.name", name))
        if not where:
            errors.append(required(f"{at}.mountPath"))
        if where in seen:
            errors.append(invalid_value(f"{at}.mountPath", where, "must be unique"))
        seen.add(where)
        if name in device_paths:
            errors.append(invalid_value(f"{at}.name", name, "must not already exist in volumeDevices"))
        if where in device_paths.values():
            why = "must not already exist as a path in volumeDevices"
            errors.append(invalid_value(f"{at}.mountPath", where, why))
        errors += _mount_options(c, m, f"{path}.volumeMounts", at)
    return errors + _devices(devices, mount_paths, volumes, f"{path}.volumeDevices")


def _mount_options(c: Obj, m: Obj, path: str, at: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if m.get("subPath"):
        errors += relative_path(f"{path}.subPath", m["subPath"])
    if m.get("subPathExpr"):
        if m.get("subPath"):
            why = "subPathExpr and subPath are mutually exclusive"
            errors.append(invalid_value(f"{at}.subPathExpr", m["subPathExpr"], why))
        errors += relative_path(f"{path}.subPathExpr", m["subPathExpr"])
    if (propagation := m.get("mountPropagation")) is not None:
        where = f"{path}.mountPropagation"
        if propagation not in ("Bidirectional", "HostToContainer", "None"):
            errors.append(not_supported(where, propagation, ["Bidirectional", "HostToContainer", "None"]))
        if propagation == "Bidirectional" and not (c.get("securityContext") or {}).get("privileged"):
            why = "Bidirectional mount propagation is available only to privileged containers"
            errors.append(forbidden_field(where, why))
    recursive = m.get("recursiveReadOnly")
    where = f"{path}.recursiveReadOnly"
    if recursive in ("Enabled", "IfPossible"):
        if not m.get("readOnly"):
            errors.append(forbidden_field(where, "may only be specified when readOnly is true"))
        if propagation not in (None, "None"):
            why = "may only be specified when mountPropagation is None or not specified"
            errors.append(forbidden_field(where, why))
    elif recursive not in (None, "Disabled"):
        errors.append(not_supported(where, recursive, ["Disabled", "Enabled", "IfPossible"]))
    return errors


def _devices(
    devices: Collection[Obj], mounts: Mapping[Any, Any], volumes: Mapping[str, Any], path: str
) -> list[FieldError]:
    errors: list[FieldError] = []
    seen_names: set[str] = set()
    seen_paths: set[str] = set()
    for i, d in enumerate(devices):
        at, name, where = f"{path}[{i}]", d.get("name") or "", d.get("devicePath") or ""
        if not name:
            errors.append(required(f"{at}.name"))
        if name in seen_names:
            errors.append(invalid_value(f"{at}.name", name, "must be unique"))
        volume = volumes.get(name)
        if volume is None:
            errors.append(not_found_field(f"{at}.name", name))
        elif volume.get("persistentVolumeClaim") is None and volume.get("ephemeral") is None:
            why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            errors.append(invalid_value(f"{at}.name", name, why))
        if not where:
            errors.append(required(f"{at}.devicePath"))
        if where in seen_paths:
            errors.append(invalid_value(f"{at}.devicePath", where, "must be unique"))
        if ".." in where.split("/"):
            errors.append(invalid_value(f"{at}.devicePath", where, "can not contain backsteps ('..')"))
        else:
            seen_paths.add(where)
        if name in mounts:
            errors.append(invalid_value(f"{at}.name", name, "must not already exist in volumeMounts"))
        if where in mounts.values():
            errors.append(invalid_value(f"{at}.devicePath", where, "must not already exist as a path in volumeMounts"))
        if name:
            seen_names.add(name)
    return errors
