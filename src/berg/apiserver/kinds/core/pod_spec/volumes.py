"""Volumes of pods.

What the sources demand is a table; the few with rules of their own have a function.

Source: kubernetes pkg/apis/core/validation ValidateVolumes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.pod_spec.projections import downward, files, projected, relative_path
from berg.apiserver.kinds.core.volume_sources import one_source, validate_storage
from berg.apiserver.kinds.label_selectors import validate_annotations, validate_labels
from berg.machinery import names, quantity
from berg.machinery.internal import declaration
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
)
from berg.machinery.typedef import object_meta

LONG_PORTAL = (
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is "
    "specified."
)


def _empty_dir(body: Obj, path: str) -> list[FieldError]:
    try:
        negative = quantity.of(body.get("sizeLimit") or 0).nano < 0
    except ValueError:
        negative = True
    if negative:
        return [forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def _git(body: Obj, path: str) -> list[FieldError]:
    return relative_path(f"{path}.directory", body.get("directory") or "")


def _ephemeral(body: Obj, path: str) -> list[FieldError]:
    template = body.get("volumeClaimTemplate")
    if template is None:
        return [required(f"{path}.volumeClaimTemplate")]
    from berg.apiserver.kinds.core.volume_validation import validate_claim_spec

    at, metadata = f"{path}.volumeClaimTemplate", template.get("metadata") or {}
    errors = validate_annotations(metadata.get("annotations"), f"{at}.metadata.annotations")
    errors += validate_labels(metadata.get("labels"), f"{at}.metadata.labels")
    for key, _, _ in declaration(object_meta()):
        if key not in ("labels", "annotations") and metadata.get(key) is not None:
            shown = "uID" if key == "uid" else key  # from Go's name
            errors.append(forbidden_field(f"{at}.metadata.{shown}", "cannot be set"))
    return errors + validate_claim_spec(template.get("spec") or {}, f"{at}.spec")


def _image(body: Obj, path: str) -> list[FieldError]:
    return checks.one_of(f"{path}.pullPolicy", body.get("pullPolicy"), ["Always", "IfNotPresent", "Never"])


SOURCES = (
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
)
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "configMap": ("name",),
    "gitRepo": ("repository",),
    "persistentVolumeClaim": ("claimName",),
    "secret": ("secretName",),
}
_CHECKS: Mapping[str, Callable[[Obj, str], list[FieldError]]] = {
    "configMap": files,
    "downwardAPI": downward,
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "gitRepo": _git,
    "image": _image,
    "projected": projected,
    "secret": files,
}


def _source(source: str, body: Obj, path: str) -> list[FieldError]:
    """`path` is the source's own."""
    errors = checks.present(body, path, *_REQUIRED.get(source, ()))
    check = _CHECKS.get(source)
    return errors + (check(body, path) if check else validate_storage(source, body, path, persistent=False))


def validate_volumes(
    volumes: Collection[Obj], path: str, pod_name: str = ""
) -> tuple[dict[str, Obj], list[FieldError]]:
    """(the good ones by name, faults)"""
    errors: list[FieldError] = []
    good: dict[str, Obj] = {}
    created = {f"{pod_name}-{v.get('name')}" for v in volumes if pod_name and v.get("ephemeral") is not None}
    for i, volume in enumerate(volumes):
        at, name = f"{path}[{i}]", volume.get("name") or ""
        found = _volume(volume, at, pod_name)
        found += checks.required_name(f"{at}.name", name, names.dns1123_label)
        if name in good:
            found.append(duplicate(f"{at}.name", name))
        if not found:
            good[name] = volume
        errors += found
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim and claim in created:
            why = "must not reference a PVC that gets created for an ephemeral volume"
            errors.append(invalid_value(f"{at}.persistentVolumeClaim.claimName", claim, why))
    return good, errors


def _volume(volume: Obj, path: str, pod_name: str) -> list[FieldError]:
    given = [s for s in SOURCES if volume.get(s) is not None]
    errors = one_source(given, path, lambda source, at: _source(source, volume[source], at))
    if pod_name and given[:1] == ["image"] and not volume["image"].get("reference"):
        errors.insert(0, required(f"{path}.image.reference"))
    initiator, portal = (
        (volume.get("iscsi") or {}).get("initiatorName"),
        (volume.get("iscsi") or {}).get("targetPortal"),
    )
    name = volume.get("name") or ""
    if initiator is not None and len(f"{name}:{portal or ''}") > 64:
        errors.append(invalid_value(f"{path}.name", name, LONG_PORTAL))
    if pod_name and volume.get("name") and volume.get("ephemeral") is not None:
        claim = f"{pod_name}-{volume['name']}"
        errors += [
            invalid_value(f"{path}.name", volume["name"], f'PVC name "{claim}": {text}')
            for text in names.dns1123_subdomain(claim)
        ]
    return errors
