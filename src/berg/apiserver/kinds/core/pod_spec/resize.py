"""`pods/resize`: other amounts of cpu and memory for a pod that runs.

Source: KEP-1287; kubernetes pkg/registry/core/pod/strategy.go dropNonResizeUpdates, pkg/apis/core/validation
ValidatePodResize.
"""

from __future__ import annotations

import copy

from berg.apiserver.kinds.core.pod_spec.resources import is_sidecar, qos_class
from berg.apiserver.kinds.core.pod_spec.update import POD_SPEC, keep_metadata, put
from berg.apiserver.kinds.core.pod_spec.validation import MIRROR, validate_pod
from berg.apiserver.kinds.sameness import same_field, same_struct
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value
from berg.machinery.typedef import type_named

KINDS = ("containers", "initContainers")
SECTIONS = ("requests", "limits")
MUTABLE = ("cpu", "memory")
ONLY = "only cpu and memory resources are mutable"


def keep_all_but_resources(obj: Obj, old: Obj) -> None:
    """Unless containers were added, removed, renamed or reordered: that is left for validation to refuse."""
    spec, before = obj["spec"], copy.deepcopy(old["spec"])
    if any(len(spec.get(key) or ()) != len(before.get(key) or ()) for key in KINDS):
        return
    for key in KINDS:
        new, was = spec.get(key) or [], before.get(key) or []
        if [c.get("name") for c in new] != [c.get("name") for c in was]:
            before[key] = new
            continue
        for c, o in zip(new, was, strict=True):
            put(o, "resources", c.get("resources"))
            put(o, "resizePolicy", c.get("resizePolicy"))
    put(before, "resources", spec.get("resources"))
    obj["spec"] = before
    obj["status"] = copy.deepcopy(old.get("status") or {})
    keep_metadata(obj, old)


def validate_resize(obj: Obj, old: Obj) -> list[FieldError]:
    if MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden_field("", "static pods cannot be resized")]
    if (old["spec"].get("os") or {}).get("name") == "windows":
        return [forbidden_field("", "windows pods cannot be resized")]
    errors, status = validate_pod(obj), old.get("status") or {}
    if (status.get("qosClass") or qos_class(old)) != qos_class(obj):
        why = "Pod QOS Class may not change as a result of resizing"
        errors.append(invalid_value("spec", (obj.get("status") or {}).get("qosClass") or "", why))
    if not _node_resizes(status):
        errors.append(forbidden_field("spec", "Pod running on node without support for resize"))
    masked = copy.deepcopy(obj["spec"])
    if any((p["spec"].get("resources") or {}).get(section) for p in (obj, old) for section in SECTIONS):
        errors += _pod_level(obj["spec"], old["spec"], masked)
    if status.get("nodeAllocatableResourceClaimStatuses"):
        errors.append(forbidden_field("spec", "pods with node allocatable resource claims cannot be resized"))
    if disordered := _disorder(obj["spec"], old["spec"]):
        return errors + disordered
    for key in reversed(KINDS):
        for i, (c, o) in enumerate(zip(masked.get(key) or (), old["spec"].get(key) or (), strict=True)):
            errors += _removed(c, o, f"spec.{key}[{i}].resources", "resource")
    for key in KINDS:
        for i, (c, o) in enumerate(zip(masked.get(key) or (), old["spec"].get(key) or (), strict=True)):
            errors += _container(c, o, key, i)
    if not errors and not same_struct(type_named(POD_SPEC), masked, old["spec"]):
        errors.append(forbidden_field("spec", ONLY))
    return errors


def _node_resizes(status: Obj) -> bool:
    """A kubelet that can resize tells the resources of what runs."""
    for c in status.get("containerStatuses") or ():
        if (c.get("state") or {}).get("running") is not None:
            return c.get("resources") is not None
    return True


def _disorder(spec: Obj, before: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in KINDS:
        new, was = spec.get(key) or [], before.get(key) or []
        if len(new) != len(was):
            errors.append(forbidden_field(f"spec.{key}", f"{key} may not be added or removed on resize"))
            continue
        why = f"{key} may not be renamed or reordered on resize"
        errors += [
            forbidden_field(f"spec.{key}[{i}].name", why)
            for i, (c, o) in enumerate(zip(new, was, strict=True))
            if c.get("name") != o.get("name")
        ]
    return errors


def _removed(holder: Obj, was: Obj, path: str, noun: str) -> list[FieldError]:
    """What was asked for of any resource can't be left out."""
    return [
        forbidden_field(f"{path}.{section}", f"{noun} {section} cannot be removed")
        for section in SECTIONS
        if (_amounts(was, section).keys() - _amounts(holder, section).keys())
    ]


def _amounts(holder: Obj, section: str) -> Obj:
    return (holder.get("resources") or {}).get(section) or {}


def _mask(holder: Obj, was: Obj) -> None:
    """Amounts of cpu and memory as they were; nothing else is left of the resources."""
    found: Obj = {}
    for section in SECTIONS:
        kept = {k: v for k, v in _amounts(holder, section).items() if k not in MUTABLE}
        kept |= {k: v for k, v in _amounts(was, section).items() if k in MUTABLE}
        if kept:
            found[section] = kept
    holder["resources"] = found


def _pod_level(spec: Obj, before: Obj, masked: Obj) -> list[FieldError]:
    if before.get("resources") is not None and spec.get("resources") is None:
        return [forbidden_field("spec.resources", "pod-level resources cannot be removed")]
    errors = _removed(spec, before, "spec.resources", "pod-level resource")
    claims = (spec.get("resources") or {}).get("claims")
    _mask(masked, before)
    if claims:
        masked["resources"]["claims"] = claims
    if not masked["resources"] and before.get("resources") is None:
        del masked["resources"]
    field = type_named(POD_SPEC).fields["resources"]
    if not same_field(field, masked.get("resources"), before.get("resources")):
        errors.append(forbidden_field("spec", f"{ONLY} at pod-level"))
    return errors


def _container(c: Obj, o: Obj, key: str, i: int) -> list[FieldError]:
    """Masks `c`, of which nothing else may have changed."""
    type_ = type_named("io.k8s.api.core.v1.Container")
    changed = not same_struct(type_, c, o)
    errors: list[FieldError] = []
    at = f"spec.{key}[{i}]"
    _mask(c, o)
    if not same_struct(type_, c, o):
        why = "only cpu and memory resources for init or sidecar containers are mutable"
        errors.append(forbidden_field("spec", ONLY) if key == "containers" else forbidden_field(at, why))
    if changed and key == "initContainers" and not is_sidecar(c):
        why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
        restarted = [p for p in c.get("resizePolicy") or () if p.get("restartPolicy") == "RestartContainer"]
        errors += [forbidden_field(at, why)] * len(restarted)
    return errors
