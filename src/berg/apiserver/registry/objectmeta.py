"""The metadata that every object has: what the server fills in, and what it refuses.

Source: k8s.io/apimachinery pkg/api/validation/objectmeta.go, k8s.io/apiserver pkg/registry/rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from berg.machinery import names, status
from berg.machinery.clock import rfc3339
from berg.machinery.hashing import random_suffix
from berg.machinery.patch import managed
from berg.machinery.status import FieldError, Obj

if TYPE_CHECKING:
    from berg.apiserver.registry.registry import Registry

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
MAX_ANNOTATIONS_BYTES = 256 * 1024
MAX_MANAGER_BYTES, MAX_SUBRESOURCE_BYTES = 128, 256


def generate_name(base: str, limit: int) -> str:
    return base[: limit - 5] + random_suffix(5)


def new_uid() -> str:
    """A random UUID (version 4)."""
    h = f"{int.from_bytes(os.urandom(16)) & _RANDOM_BITS | _VERSION_4:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


_VERSION_4 = (4 << 76) | (2 << 62)
_RANDOM_BITS = ~((15 << 76) | (3 << 62))


def fill_system_fields(obj: Obj, now: datetime) -> None:
    """What a new object gets, whatever the client sent."""
    meta = obj["metadata"]
    meta["creationTimestamp"] = rfc3339(now)
    meta["uid"] = new_uid()
    wipe_system_fields(meta)


def wipe_system_fields(meta: Obj) -> None:
    """Nobody creates an object that is being deleted already."""
    for field in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if field in meta:
            del meta[field]


def validate(registry: Registry, obj: Obj) -> list[FieldError]:
    meta = obj["metadata"]
    errors: list[FieldError] = []
    base = meta.get("generateName")
    if base:
        errors += [
            status.invalid_value("metadata.generateName", base, m) for m in registry.validate_name(base, prefix=True)
        ]
    name = meta.get("name", "")
    if not name:
        errors.append(status.required("metadata.name", "name or generateName is required"))
    else:
        errors += [status.invalid_value("metadata.name", name, m) for m in registry.validate_name(name)]
    namespace = meta.get("namespace", "")
    if registry.storage.namespaced:
        if not namespace:
            errors.append(status.required("metadata.namespace"))
        else:
            errors += [status.invalid_value("metadata.namespace", namespace, m) for m in names.dns1123_label(namespace)]
    elif namespace:
        errors.append(status.forbidden_field("metadata.namespace", "not allowed on this type"))
    if (generation := meta.get("generation") or 0) < 0:
        errors.append(status.invalid_value("metadata.generation", generation, "must be greater than or equal to 0"))
    errors += _validate_maps(meta)
    finalizers = meta.get("finalizers") or []
    errors += _validate_finalizers(finalizers)
    return errors + _standard_finalizers(registry, finalizers) if registry.strategy.metadata_checks[0] else errors


def validate_scale(meta: Obj) -> list[FieldError]:
    """Of the Scale of an object."""
    if managed.is_reset(meta.get("managedFields")):
        meta = {**meta, "managedFields": None}
    return validate_embedded(meta, names.dns1123_subdomain) + _odd_finalizers(meta.get("finalizers") or [])


def validate_embedded(meta: Obj, check_name: Callable[[str], Iterable[str]] = names.path_segment) -> list[FieldError]:
    """Of an object that stands in another one."""
    errors: list[FieldError] = []
    for field in ("generateName", "name"):
        text = meta.get(field) or ""
        errors += [status.invalid_value(f"metadata.{field}", text, m) for m in check_name(text) if text]
    if namespace := meta.get("namespace"):
        errors += [status.invalid_value("metadata.namespace", namespace, m) for m in names.dns1123_label(namespace)]
    if (generation := meta.get("generation") or 0) < 0:
        errors.append(status.invalid_value("metadata.generation", generation, "must be greater than or equal to 0"))
    errors += _validate_maps(meta) + _validate_finalizers(meta.get("finalizers") or [])
    for i, fields in enumerate(meta.get("managedFields") or ()):
        operation, kind = fields.get("operation") or "", fields.get("fieldsType") or ""
        at = f"metadata.managedFields[{i}]"
        if operation not in ("Apply", "Update"):
            errors.append(status.invalid_value(f"{at}.operation", operation, "must be `Apply` or `Update`"))
        if kind not in ("", "FieldsV1"):
            errors.append(status.invalid_value(f"{at}.fieldsType", kind, "must be `FieldsV1`"))
    return errors


def validate_update(registry: Registry, obj: Obj, old: Obj, subresource: str = "") -> list[FieldError]:
    """What may never change, and what must stay well-formed; told as often as upstream looks at it, which is once for
    every kind and then as the kind's strategy says."""
    meta, old_meta = obj["metadata"], old["metadata"]
    as_new, as_changed = (0, 1) if subresource else registry.strategy.metadata_checks[1:]
    finalizers = meta.get("finalizers") or []
    if meta.get("name") != old_meta.get("name"):
        errors = validate(registry, obj)
    else:
        errors = _validate_maps(meta) + _validate_finalizers(finalizers)
        base = meta.get("generateName") or ""
        errors += [status.invalid_value("metadata.generateName", base, m) for m in names.path_segment(base)]
    errors += _changes(obj, old)
    standard = _standard_finalizers(registry, finalizers) if as_new or as_changed else []
    if not errors and not standard and not (as_new and meta.get("generateName")):
        return []
    return errors + (_changes(obj, old) + standard) * as_changed + validate(registry, obj) * as_new


def _changes(obj: Obj, old: Obj) -> list[FieldError]:
    """What may never change, and once more what labels and owners say."""
    meta, old_meta = obj["metadata"], old["metadata"]
    errors = _validate_managers(meta.get("managedFields") or ())
    if old_meta.get("deletionTimestamp"):
        added = sorted(set(meta.get("finalizers") or ()) - set(old_meta.get("finalizers") or ()))
        if added:
            shown = "[]string{" + ", ".join(f'"{f}"' for f in added) + "}"
            errors.append(
                status.forbidden_field(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, found new finalizers " + shown,
                )
            )
    for field in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if meta.get(field) != old_meta.get(field):
            errors.append(status.invalid_value(f"metadata.{field}", meta.get(field), "field is immutable"))
    return errors + _validate_maps(meta)


@lru_cache(maxsize=4096)
def _is_key(key: str) -> bool:
    """The same few keys come with every object."""
    return not names.qualified_name(key)


@lru_cache(maxsize=4096)
def _is_value(value: str) -> bool:
    return not names.label_value(value)


def _validate_managers(entries: Iterable[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, entry in enumerate(entries):
        manager, path = entry.get("manager") or "", f"metadata.managedFields[{i}]"
        if len(manager) > 32 or not manager.isprintable():
            errors += manager_errors(f"{path}.manager", manager)
        if len(entry.get("subresource") or "") > MAX_SUBRESOURCE_BYTES:
            errors.append(status.too_long(f"{path}.subresource", "", MAX_SUBRESOURCE_BYTES))
    return errors


def manager_errors(path: str, manager: str) -> list[FieldError]:
    """What is wrong with the name of a field manager."""
    errors: list[FieldError] = []
    if len(manager.encode()) > MAX_MANAGER_BYTES:
        errors.append(status.too_long(path, manager, MAX_MANAGER_BYTES))
    fault = next(((i, c) for i, c in enumerate(manager) if not c.isprintable()), None)
    if fault is not None:
        why = f"invalid character U+{ord(fault[1]):04X} (at position {len(manager[: fault[0]].encode())})"
        errors.append(status.invalid_value(path, manager, why))
    return errors


def _validate_maps(meta: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, value in (meta.get("labels") or {}).items():
        if not _is_key(key):
            errors += [status.invalid_value("metadata.labels", key, m) for m in names.qualified_name(key)]
        if not _is_value(value):
            errors += [status.invalid_value("metadata.labels", value, m) for m in names.label_value(value)]
    annotations = meta.get("annotations") or {}
    total = 0
    for key, value in annotations.items():
        total += len(key.encode()) + len(value.encode())
        if not _is_key(key.lower()):
            errors += [status.invalid_value("metadata.annotations", key, m) for m in names.qualified_name(key.lower())]
    if total > MAX_ANNOTATIONS_BYTES:
        errors.append(status.too_long("metadata.annotations", "", MAX_ANNOTATIONS_BYTES))
    controller = ""
    for ref in meta.get("ownerReferences") or ():
        errors += _validate_owner(ref)
        if ref.get("controller"):
            this = f"{ref.get('kind')}/{ref.get('name')}"
            if controller:
                errors.append(
                    status.invalid_value(
                        "metadata.ownerReferences",
                        meta["ownerReferences"],
                        'Only one reference can have Controller set to true. Found "true" in references for '
                        f"{controller} and {this}",
                    )
                )
            controller = controller or this
    return errors


def _validate_owner(ref: Obj) -> list[FieldError]:
    path = "metadata.ownerReferences"
    errors = []
    api_version = ref.get("apiVersion") or ""
    if not api_version.rpartition("/")[2]:
        errors.append(status.invalid_value(f"{path}.apiVersion", api_version, "version must not be empty"))
    for field in ("kind", "name", "uid"):
        if not ref.get(field):
            errors.append(status.invalid_value(f"{path}.{field}", ref.get(field) or "", "must not be empty"))
    if api_version == "v1" and ref.get("kind") == "Event":
        errors.append(status.invalid_value(path, ref, "/v1, Kind=Event is disallowed from being an owner"))
    return errors


_STANDARD_FINALIZERS = ("kubernetes", ORPHAN, FOREGROUND)
_OTHER_APIS = ("apiextensions.k8s.io", "apiregistration.k8s.io")


def _standard_finalizers(registry: Registry, finalizers: list[str]) -> list[FieldError]:
    """Of Kubernetes' own kinds."""
    if not finalizers or registry.custom or registry.storage.group in _OTHER_APIS:
        return []
    return _odd_finalizers(finalizers)


def _odd_finalizers(finalizers: list[str]) -> list[FieldError]:
    why = "name is neither a standard finalizer name nor is it fully qualified"
    return [
        status.invalid_value(f"metadata.finalizers[{i}]", finalizer, why)
        for i, finalizer in enumerate(finalizers)
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS
    ]


def _validate_finalizers(finalizers: list[str]) -> list[FieldError]:
    errors = []
    for finalizer in finalizers:
        errors += [status.invalid_value("metadata.finalizers", finalizer, m) for m in names.qualified_name(finalizer)]
    if ORPHAN in finalizers and FOREGROUND in finalizers:
        errors.append(
            status.invalid_value(
                "metadata.finalizers", finalizers, f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set"
            )
        )
    return errors
