"""Files that a volume is filled with: keys of secrets and config maps, fields of the pod, tokens, certificates.

Projected volumes take them from several sources; secret, configMap and downwardAPI volumes from one.

Source: kubernetes pkg/apis/core/validation validateProjectionSources, validateKeyToPath.
"""

from __future__ import annotations

from collections.abc import Collection

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.pod_spec.environment import VOLUME_FIELDS, field_selector, resource_selector
from berg.apiserver.kinds.core.volume_sources import no_backsteps
from berg.apiserver.kinds.label_selectors import ANNOTATIONS_LIMIT, validate_selector
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, required, too_long

FILE_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
PROJECTIONS = ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate")
KEY_TYPES = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"]
HOUR, DAY = 3600, 24 * 3600


def relative_path(path: str, value: str) -> list[FieldError]:
    errors = [invalid_value(path, value, "must be a relative path")] if value.startswith("/") else []
    return errors + no_backsteps(path, value)


def file_path(path: str, value: str) -> list[FieldError]:
    """A relative path whose first part is none of the volume writer's own."""
    errors = relative_path(path, value)
    if value.startswith("..") and not value.startswith("../"):
        errors.append(invalid_value(path, value, "must not start with '..'"))
    return errors


def mode_fault(path: str, mode: int | None) -> list[FieldError]:
    return [] if mode is None or 0 <= mode <= 0o777 else [invalid_value(path, mode, FILE_MODE)]


def _items(items: Collection[Obj] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, item in enumerate(items or ()):
        at = f"{path}[{i}]"
        errors += checks.present(item, at, "key", "path")
        errors += file_path(f"{at}.path", item.get("path") or "") + mode_fault(f"{at}.mode", item.get("mode"))
    return errors


def files(body: Obj, path: str) -> list[FieldError]:
    return mode_fault(f"{path}.defaultMode", body.get("defaultMode")) + _items(body.get("items"), f"{path}.items")


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
    return errors + mode_fault(f"{path}.mode", item.get("mode"))


def downward(body: Obj, path: str) -> list[FieldError]:
    errors = mode_fault(f"{path}.defaultMode", body.get("defaultMode"))
    for item in body.get("items") or ():
        errors += _downward_file(item, path)
    return errors


def projected(body: Obj, path: str) -> list[FieldError]:
    errors = mode_fault(f"{path}.defaultMode", body.get("defaultMode"))
    taken: set[str] = set()

    def take(file: str, shown: str) -> None:
        if file in taken:
            errors.append(invalid_value(path, shown, "conflicting duplicate paths"))
        taken.add(file)

    for i, source in enumerate(body.get("sources") or ()):
        at = f"{path}.sources[{i}]"
        given = [k for k in PROJECTIONS if source.get(k) is not None]
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
            elif kind == "podCertificate":
                errors.extend(_pod_certificate(one, where))
                paths = [(key, one[key]) for key in _CERTIFICATE_PATHS if one.get(key)]
                for key, file in paths:
                    errors.extend(file_path(f"{where}.{key}", file))
                    take(file, file)
                if not paths:
                    why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"
                    errors.append(required(where, why))
        if len(given) > 1:
            errors.append(forbidden_field(at, "may not specify more than 1 volume type per source"))
    return errors


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
    from berg.apiserver.kinds.certificates.trust_validation import name_faults
    from berg.apiserver.kinds.certificates.validation import validate_signer_name

    errors: list[FieldError] = []
    name, signer = bundle.get("name"), bundle.get("signerName")
    if name is not None and signer is not None:
        errors.append(invalid_value(path, bundle, "only one of name and signerName may be used"))
    elif name is not None:
        if not name:
            errors.append(required(f"{path}.name", "must be a valid object name"))
        signed_by = name.rpartition(":")[0].replace(":", "/")
        errors += [
            invalid_value(f"{path}.name", name, f"not a valid clustertrustbundlename: {text}")
            for text in name_faults(name, signed_by)
        ]
        if bundle.get("labelSelector") is not None:
            why = "labelSelector must be unset if name is specified"
            errors.append(invalid_value(f"{path}.labelSelector", bundle["labelSelector"], why))
    elif signer is not None:
        if not signer:
            errors.append(required(f"{path}.signerName", "must be a valid signer name"))
        errors += validate_signer_name(f"{path}.signerName", signer)
        errors += validate_selector(bundle.get("labelSelector"), f"{path}.labelSelector")
    else:
        errors.append(required(path, "either name or signerName must be specified"))
    if not bundle.get("path"):
        errors.append(required(f"{path}.path"))
    return errors + file_path(f"{path}.path", bundle.get("path") or "")


_CERTIFICATE_PATHS = ("credentialBundlePath", "keyPath", "certificateChainPath")


def _pod_certificate(certificate: Obj, path: str) -> list[FieldError]:
    from berg.apiserver.kinds.certificates.validation import validate_signer_name

    signer = certificate.get("signerName") or ""
    errors = validate_signer_name(f"{path}.signerName", signer)
    errors += validate_user_annotations(certificate.get("userAnnotations") or {}, f"{path}.userAnnotations")
    errors += checks.one_of(f"{path}.keyType", certificate.get("keyType"), KEY_TYPES, empty=None)
    if (seconds := certificate.get("maxExpirationSeconds")) is not None:
        host = signer.partition("/")[0]
        limit = DAY if host == "kubernetes.io" or host.endswith(".kubernetes.io") else 91 * DAY
        at = f"{path}.maxExpirationSeconds"
        if seconds < HOUR:
            errors.append(invalid_value(at, seconds, f"if provided, maxExpirationSeconds must be >= {HOUR}"))
        if seconds > limit:
            errors.append(invalid_value(at, seconds, f"if provided, maxExpirationSeconds must be <= {limit}"))
    return errors


def validate_user_annotations(annotations: Obj, path: str) -> list[FieldError]:
    """What a pod hands to the signer of its certificate."""
    errors: list[FieldError] = []
    for key in annotations:
        if not key:
            errors.append(required(path))
        elif faults := names.qualified_name(key.lower()):
            errors += [invalid_value(path, key.lower(), text) for text in faults]
        elif "/" not in key:
            why = 'must be a domain-prefixed key (such as "acme.io/foo")'
            errors.append(invalid_value(path, key.lower(), why))
    if sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items()) > ANNOTATIONS_LIMIT:
        errors.append(too_long(path, "", ANNOTATIONS_LIMIT))
    return errors
