"""Sources of storage that volumes of pods and PersistentVolumes both know: what each demands.

Most demand that some fields are there: a table. The few with rules of their own have a function; `persistent` is what
differs for a PersistentVolume, whose secrets have a namespace.

Source: kubernetes pkg/apis/core/validation validateVolumeSource, ValidatePersistentVolumeSpec.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from berg.apiserver.kinds import checks
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, not_supported, required

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
    "flexVolume": ("driver",),
    "gcePersistentDisk": ("pdName",),
    "glusterfs": ("endpoints", "path"),
    "hostPath": ("path",),
    "local": ("path",),
    "nfs": ("server", "path"),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "rbd": ("monitors", "image"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "storageos": ("volumeName",),
    "vsphereVolume": ("volumePath",),
}
Check = Callable[[Obj, str, bool], list[FieldError]]


def one_source(
    given: list[str], path: str, check: Callable[[str, str], list[FieldError]], *, again: frozenset[str] = frozenset()
) -> list[FieldError]:
    """The first of the sources is checked, further ones are too many; those of `again` are checked all the same."""
    errors: list[FieldError] = [] if given else [required(path, "must specify a volume type")]
    for i, source in enumerate(given):
        if i and source not in again:
            at = f"{path}.{_MISSPELT.get(source, source)}"
            errors.append(forbidden_field(at, "may not specify more than 1 volume type"))
        else:
            errors += check(source, f"{path}.{'persistentDisk' if source == 'gcePersistentDisk' else source}")
    return errors


_MISSPELT = {"cephfs": "cephFS", "downwardAPI": "downwarAPI"}
"""how upstream spells them in this one message"""


def validate_storage(source: str, body: Obj, path: str, *, persistent: bool) -> list[FieldError]:
    errors = checks.present(body, path, *REQUIRED_FIELDS.get(source, ()))
    check = _CHECKS.get(source)
    return errors + check(body, path, persistent) if check else errors


def no_backsteps(path: str, value: str) -> list[FieldError]:
    return [invalid_value(path, value, "must not contain '..'")] if ".." in value.split("/") else []


def _host_path(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    if not body.get("path"):
        return []
    errors = no_backsteps(f"{path}.path", body["path"])
    if (kind := body.get("type") or "") not in HOST_PATH_TYPES:
        errors.append(not_supported(f"{path}.type", kind, HOST_PATH_TYPES))
    return errors


def _local(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    return no_backsteps(f"{path}.path", body.get("path") or "")


def _partition(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    value = body.get("partition") or 0
    if 0 <= value <= 255:
        return []
    return [invalid_value(f"{path}.partition", value, "must be between 1 and 255, inclusive")]


def _nfs(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    value = body.get("path") or ""
    return [] if value.startswith("/") else [invalid_value(f"{path}.path", value, "must be an absolute path")]


_QUALIFIED_ISCSI = re.compile(
    r"iqn\.\d{4}-\d{2}\.([\w.-]+)(:.+)?$|eui\.[0-9a-fA-F]{16}$|naa\.[0-9a-fA-F]{16}([0-9a-fA-F]{16})?$"
)


def _iscsi(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    if not body.get("targetPortal"):
        errors.append(required(f"{path}.targetPortal"))
    iqn = body.get("iqn") or ""
    errors += _initiator(f"{path}.iqn", iqn, persistent) if iqn else [required(f"{path}.iqn")]
    errors += checks.between(f"{path}.lun", body.get("lun") or 0, 0, 255)
    secret = body.get("secretRef")
    if (body.get("chapAuthDiscovery") or body.get("chapAuthSession")) and secret is None:
        errors.append(required(f"{path}.secretRef"))
    if persistent and secret is not None:
        errors += checks.present(secret, f"{path}.secretRef", "name")
    if (initiator := body.get("initiatorName")) is not None:
        errors += _initiator(f"{path}.initiatorname", initiator, persistent)
    return errors


def _initiator(path: str, name: str, persistent: bool) -> list[FieldError]:
    if not name.startswith(("iqn", "eui", "naa")):
        words = "must be valid format" if persistent else "must be valid format starting with iqn, eui, or naa"
        return [invalid_value(path, name, words)]
    return [] if _QUALIFIED_ISCSI.match(name) else [invalid_value(path, name, "must be valid format")]


def _fc(body: Obj, path: str, persistent: bool) -> list[FieldError]:
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


def _flex(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in body.get("options") or ():
        domain = "." + key.split("/")[0].lower()
        if domain.endswith((".kubernetes.io", ".k8s.io")):
            why = "kubernetes.io and k8s.io namespaces are reserved"
            errors.append(invalid_value(f"{path}.options[{key}]", key, why))
    return errors


def _flocker(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    name, uuid = body.get("datasetName") or "", body.get("datasetUUID")
    errors: list[FieldError] = []
    if not name and not uuid:
        errors.append(required(path, "one of datasetName and datasetUUID is required"))
    if name and uuid:
        why = "datasetName and datasetUUID can not be specified simultaneously"
        errors.append(invalid_value(path, "resource", why))
    if "/" in name:
        errors.append(invalid_value(f"{path}.datasetName", name, "must not contain '/'"))
    return errors


def _quobyte(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    registry, pairs = body.get("registry") or "", "must be a host:port pair or multiple pairs separated by commas"
    errors: list[FieldError] = []
    if not registry:
        errors.append(required(f"{path}.registry", pairs))
    elif len(body.get("tenant") or "") >= 65:
        why = "must be a UUID and may not exceed a length of 64 characters"
        errors.append(required(f"{path}.tenant", why))
    else:
        for pair in registry.split(","):
            if not re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*):[^:\[\]]*", pair):
                errors.append(invalid_value(f"{path}.registry", registry, pairs))
    return errors + checks.present(body, path, "volume")


def _glusterfs(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    namespace, at = body.get("endpointsNamespace"), f"{path}.endpointsNamespace"
    if namespace is None:
        return []
    if not namespace:
        return [invalid_value(at, "", "if the endpointnamespace is set, it must be a valid namespace name")]
    return checks.named(at, namespace, names.dns1123_label)


def _azure_file(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    return [required(f"{path}.secretNamespace")] if body.get("secretNamespace") == "" else []


_DISK_URIS = {
    True: "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
    False: "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
}


def _azure_disk(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    if (caching := body.get("cachingMode")) is not None:
        errors += checks.one_of(f"{path}.cachingMode", caching, ["None", "ReadOnly", "ReadWrite"], empty=None)
    if (kind := body.get("kind")) is not None:
        errors += checks.one_of(f"{path}.kind", kind, ["Dedicated", "Managed", "Shared"], empty=None)
        managed, uri = kind == "Managed", body.get("diskURI") or ""
        if not uri.startswith("/subscriptions/" if managed else "https://"):
            errors.append(not_supported(f"{path}.diskURI", uri, [_DISK_URIS[managed]]))
    return errors


def _secret(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    secret = body.get("secretRef")
    if secret is None:
        return []
    return checks.present(secret, f"{path}.secretRef", "name", *(["namespace"] if persistent else []))


def _storageos(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("volumeName", "volumeNamespace"):
        if value := body.get(key):
            errors += checks.named(f"{path}.{key}", value, names.dns1123_label)
    return errors + _secret(body, path, persistent)


def csi_driver_name(path: str, name: str) -> list[FieldError]:
    if not name:
        return [required(path)]
    errors = [] if len(name) <= 63 else [FieldError("FieldValueTooLong", path, "", "may not be more than 63 bytes")]
    return errors + [invalid_value(path, name, text) for text in names.dns1123_subdomain(name.lower())]


_CSI_SECRETS = (
    "controllerPublishSecretRef",
    "controllerExpandSecretRef",
    "nodePublishSecretRef",
    "nodeExpandSecretRef",
)


def _csi(body: Obj, path: str, persistent: bool) -> list[FieldError]:
    errors = csi_driver_name(f"{path}.driver", body.get("driver") or "")
    if persistent:
        errors += checks.present(body, path, "volumeHandle")
        for key in _CSI_SECRETS:
            if (secret := body.get(key)) is not None:
                errors += checks.required_name(f"{path}.{key}.name", secret.get("name"))
                errors += checks.required_name(f"{path}.{key}.namespace", secret.get("namespace"), names.dns1123_label)
    elif (secret := body.get("nodePublishSecretRef")) is not None:
        if name := secret.get("name"):
            errors += checks.named(f"{path}.name", name)
        else:
            errors.append(required(f"{path}.nodePublishSecretRef.name"))
    return errors


_CHECKS: Mapping[str, Check] = {
    "awsElasticBlockStore": _partition,
    "azureDisk": _azure_disk,
    "azureFile": _azure_file,
    "cinder": _secret,
    "csi": _csi,
    "fc": _fc,
    "flexVolume": _flex,
    "flocker": _flocker,
    "gcePersistentDisk": _partition,
    "glusterfs": _glusterfs,
    "hostPath": _host_path,
    "iscsi": _iscsi,
    "local": _local,
    "nfs": _nfs,
    "quobyte": _quobyte,
    "storageos": _storageos,
}
