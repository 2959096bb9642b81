"""Volumes of pods.

What the sources demand is a table; the few with rules of their own have a function.

Source: kubernetes pkg/apis/core/validation ValidateVolumes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.pod_spec.environment import VOLUME_FIELDS, field_selector, resource_selector
from berg.machinery import names, quantity
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)

FILE_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
HOST_PATH_TYPES = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
]
REQUIRED_FIELDS: Mapping[str, tuple[str, ...]] = {
    "awsElasticBlockStore": ("volumeID",),
    "azureDisk": ("diskName", "diskURI"),
    "azureFile": ("secretName", "shareName"),
    "cephfs": ("monitors",),
    "cinder": ("volumeID",),
    "configMap": ("name",),
    "csi": (),
    "downwardAPI": (),
    "emptyDir": (),
    "ephemeral": (),
    "fc": (),
    "flexVolume": ("driver",),
    "flocker": (),
    "gcePersistentDisk": ("pdName",),
    "gitRepo": ("repository",),
    "glusterfs": ("endpoints", "path"),
    "hostPath": ("path",),
    "image": (),
    "iscsi": ("targetPortal", "iqn"),
    "nfs": ("server", "path"),
    "persistentVolumeClaim": ("claimName",),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "projected": (),
    "quobyte": ("registry", "volume"),
    "rbd": ("monitors", "image"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "secret": ("secretName",),
    "storageos": ("volumeName",),
    "vsphereVolume": ("volumePath",),
}


def relative_path(path: str, value: str) -> list[FieldError]:
    errors = [invalid_value(path, value, "must be a relative path")] if value.startswith("/") else []
    return errors + no_backsteps(path, value)


def no_backsteps(path: str, value: str) -> list[FieldError]:
    return [invalid_value(path, value, "must not contain '..'")] if ".." in value.split("/") else []


def file_path(path: str, value: str) -> list[FieldError]:
    """A relative path whose first part is none of the volume writer's own."""
    errors = relative_path(path, value)
    if value.startswith("..") and not value.startswith("../"):
        errors.append(invalid_value(path, value, "must not start with '..'"))
    return errors


def _mode(path: str, mode: int | None) -> list[FieldError]:
    return [] if mode is None or 0 <= mode <= 0o777 else [invalid_value(path, mode, FILE_MODE)]


def _items(items: Collection[Obj] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, item in enumerate(items or ()):
        at = f"{path}[{i}]"
        errors += checks.present(item, at, "key", "path")
        errors += file_path(f"{at}.path", item.get("path") or "") + _mode(f"{at}.mode", item.get("mode"))
    return errors


def _files(body: Obj, path: str) -> list[FieldError]:
    return _mode(f"{path}.defaultMode", body.get("defaultMode")) + _items(body.get("items"), f"{path}.items")


def _empty_dir(body: Obj, path: str) -> list[FieldError]:
    try:
        negative = quantity.of(body.get("sizeLimit") or 0).nano < 0
    except ValueError:
        negative = True
    if negative:
        return [forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def _host_path(body: Obj, path: str) -> list[FieldError]:
    if not body.get("path"):
        return []
    errors = no_backsteps(f"{path}.path", body["path"])
    if (kind := body.get("type") or "") not in HOST_PATH_TYPES:
        errors.append(not_supported(f"{path}.type", kind, HOST_PATH_TYPES))
    return errors


def _downward_file(item: Obj, path: str) -> list[FieldError]:
    errors = [] if item.get("path") else [required(f"{path}.path")]
    errors += file_path(f"{path}.path", item.get("path") or "")
    field, amount = item.get("fieldRef"), item.get("resourceFieldRef")
    if field is not None:
        errors += field_selector(field, f"{path}.fieldRef", VOLUME_FIELDS)
        if amount is not None:
            why = "fieldRef and resourceFieldRef can not be specified simultaneously"
            errors.append(invalid_value(path, "resource", why))
    elif amount is not None:
        errors += resource_selector(amount, f"{path}.resourceFieldRef", volume=True)
    else:
        errors.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    return errors + _mode(f"{path}.mode", item.get("mode"))


def _downward(body: Obj, path: str) -> list[FieldError]:
    errors = _mode(f"{path}.defaultMode", body.get("defaultMode"))
    for item in body.get("items") or ():
        errors += _downward_file(item, path)
    return errors


def _nfs(body: Obj, path: str) -> list[FieldError]:
    value = body.get("path") or ""
    return [] if value.startswith("/") else [invalid_value(f"{path}.path", value, "must be an absolute path")]


def _iscsi(body: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    iqn = body.get("iqn") or ""
    if iqn and not iqn.startswith(("iqn", "eui", "naa")):
        why = "must be valid format starting with iqn, eui, or naa"
        errors.append(invalid_value(f"{path}.iqn", iqn, why))
    elif iqn and not _QUALIFIED_ISCSI.match(iqn):
        errors.append(invalid_value(f"{path}.iqn", iqn, "must be valid format"))
    errors += checks.between(f"{path}.lun", body.get("lun") or 0, 0, 255)
    if (body.get("chapAuthDiscovery") or body.get("chapAuthSession")) and body.get("secretRef") is None:
        errors.append(required(f"{path}.secretRef"))
    return errors


_QUALIFIED_ISCSI = re.compile(
    r"iqn\.\d{4}-\d{2}\.([\w.-]+)(:.+)?$|eui\.[0-9a-fA-F]{16}$|naa\.[0-9a-fA-F]{16}([0-9a-fA-F]{16})?$"
)


def _fc(body: Obj, path: str) -> list[FieldError]:
    targets, ids, lun = body.get("targetWWNs"), body.get("wwids"), body.get("lun")
    errors: list[FieldError] = []
    if not targets and not ids:
        errors.append(required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both"))
    if targets and ids:
        why = "targetWWNs and wwids can not be specified simultaneously"
        errors.append(invalid_value(f"{path}.targetWWNs", targets, why))
    if targets:
        if lun is None:
            errors.append(required(f"{path}.lun", "lun is required if targetWWNs is specified"))
        else:
            errors += checks.between(f"{path}.lun", lun, 0, 255)
    return errors


def csi_driver_name(path: str, name: str) -> list[FieldError]:
    if not name:
        return [required(path)]
    errors = [] if len(name) <= 63 else [FieldError("FieldValueTooLong", path, "", "may not be more than 63 bytes")]
    return errors + checks.named(path, name.lower())


def _csi(body: Obj, path: str) -> list[FieldError]:
    errors = csi_driver_name(f"{path}.driver", body.get("driver") or "")
    if (ref := body.get("nodePublishSecretRef")) is not None:
        errors += checks.required_name(f"{path}.nodePublishSecretRef.name", ref.get("name"))
    return errors


def _flex(body: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in body.get("options") or ():
        domain = "." + key.split("/")[0].lower()
        if domain.endswith((".kubernetes.io", ".k8s.io")):
            why = "kubernetes.io and k8s.io namespaces are reserved"
            errors.append(invalid_value(f"{path}.options[{key}]", key, why))
    return errors


def _flocker(body: Obj, path: str) -> list[FieldError]:
    name, uuid = body.get("datasetName"), body.get("datasetUUID")
    if not name and not uuid:
        return [required(path, "one of datasetName and datasetUUID is required")]
    if name and uuid:
        return [invalid_value(path, "resource", "datasetName and datasetUUID can not be specified simultaneously")]
    if "/" in (name or ""):
        return [invalid_value(f"{path}.datasetName", name, "must not contain '/'")]
    return []


def _ephemeral(body: Obj, path: str) -> list[FieldError]:
    template = body.get("volumeClaimTemplate")
    if template is None:
        return [required(f"{path}.volumeClaimTemplate")]
    from berg.apiserver.kinds.core.volume_validation import validate_claim_spec

    return validate_claim_spec(template.get("spec") or {}, f"{path}.volumeClaimTemplate.spec")


def _image(body: Obj, path: str) -> list[FieldError]:
    return checks.one_of(f"{path}.pullPolicy", body.get("pullPolicy"), ["Always", "IfNotPresent", "Never"])


def _projected(body: Obj, path: str) -> list[FieldError]:
    errors = _mode(f"{path}.defaultMode", body.get("defaultMode"))
    taken: set[str] = set()

    def take(file: str, shown: str) -> None:
        if file in taken:
            errors.append(invalid_value(path, shown, "conflicting duplicate paths"))
        taken.add(file)

    for i, source in enumerate(body.get("sources") or ()):
        at = f"{path}.sources[{i}]"
        given = [k for k in _PROJECTIONS if source.get(k) is not None]
        for kind in given:
            one, where = source[kind], f"{at}.{kind}"
            if kind in ("secret", "configMap"):
                if not one.get("name"):
                    errors.append(required(f"{where}.name"))
                errors.extend(_items(one.get("items"), f"{where}.items"))
                for item in one.get("items") or ():
                    if item.get("path"):
                        take(item["path"], one.get("name") or "")
            elif kind == "downwardAPI":
                for item in one.get("items") or ():
                    errors.extend(_downward_file(item, where))
                    if item.get("path"):
                        take(item["path"], item["path"])
            elif kind == "serviceAccountToken":
                errors.extend(_token(one, path, where))
            elif kind == "clusterTrustBundle":
                errors.extend(_trust_bundle(one, where))
                take(one.get("path") or "", one.get("path") or "")
        if len(given) > 1:
            errors.append(forbidden_field(at, "may not specify more than 1 volume type per source"))
    return errors


_PROJECTIONS = ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate")


def _token(token: Obj, path: str, where: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seconds = token.get("expirationSeconds") or 0
    if seconds < 600:
        why = "may not specify a duration less than 10 minutes"
        errors.append(invalid_value(f"{where}.expirationSeconds", seconds, why))
    if seconds > 1 << 32:
        why = "may not specify a duration larger than 2^32 seconds"
        errors.append(invalid_value(f"{where}.expirationSeconds", seconds, why))
    if not token.get("path"):
        errors.append(required(f"{path}.path"))
    else:
        errors += file_path(f"{path}.path", token["path"])
    return errors


def _trust_bundle(bundle: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    name, signer = bundle.get("name"), bundle.get("signerName")
    if name is not None and signer is not None:
        errors.append(invalid_value(path, bundle, "only one of name and signerName may be used"))
    elif name is not None:
        if not name:
            errors.append(required(f"{path}.name", "must be a valid object name"))
        if bundle.get("labelSelector") is not None:
            why = "labelSelector must be unset if name is specified"
            errors.append(invalid_value(f"{path}.labelSelector", bundle["labelSelector"], why))
    elif signer is not None:
        if not signer:
            errors.append(required(f"{path}.signerName", "must be a valid signer name"))
    else:
        errors.append(required(path, "either name or signerName must be specified"))
    if not bundle.get("path"):
        errors.append(required(f"{path}.path"))
    return errors + file_path(f"{path}.path", bundle.get("path") or "")


SOURCE_CHECKS: Mapping[str, Callable[[Obj, str], list[FieldError]]] = {
    "configMap": _files,
    "csi": _csi,
    "downwardAPI": _downward,
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "fc": _fc,
    "flexVolume": _flex,
    "flocker": _flocker,
    "hostPath": _host_path,
    "image": _image,
    "iscsi": _iscsi,
    "nfs": _nfs,
    "projected": _projected,
    "secret": _files,
}


def validate_source(source: str, body: Obj, path: str) -> list[FieldError]:
    """`path` is the source's own."""
    errors = checks.present(body, path, *REQUIRED_FIELDS[source])
    check = SOURCE_CHECKS.get(source)
    return errors + check(body, path) if check else errors


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
    errors: list[FieldError] = []
    given = [s for s in REQUIRED_FIELDS if volume.get(s) is not None]
    given.sort(key=lambda s: s != "emptyDir")
    for i, source in enumerate(given):
        if i:
            errors.append(forbidden_field(f"{path}.{source}", "may not specify more than 1 volume type"))
        else:
            errors += validate_source(source, volume[source], f"{path}.{source}")
    if not given:
        errors.append(required(path, "must specify a volume type"))
    if pod_name and volume.get("name") and volume.get("ephemeral") is not None:
        claim = f"{pod_name}-{volume['name']}"
        errors += [
            invalid_value(f"{path}.name", volume["name"], f'PVC name "{claim}": {text}')
            for text in names.dns1123_subdomain(claim)
        ]
    return errors
