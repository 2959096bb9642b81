"""Environment variables of containers, and the references that fill them.

Source: kubernetes pkg/apis/core/validation ValidateEnv, ValidateEnvFrom.
"""

from __future__ import annotations

from collections.abc import Collection

from berg.apiserver.kinds import checks
from berg.machinery import names, quantity
from berg.machinery.status import FieldError, Obj, invalid_value, not_supported, required

ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_CONVERTIBLE = {*ENV_FIELDS, *VOLUME_FIELDS, "spec.restartPolicy", "status.phase"}
_RESOURCES = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_SIZES = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_DIVISORS = {
    "cpu": (("1m", "1"), "1m and 1 are supported with the cpu resource"),
    "memory": (_SIZES, f"{', '.join(_SIZES)} are supported with the memory resource"),
    "ephemeral-storage": (_SIZES, f"{', '.join(_SIZES)} are supported with the local ephemeral storage resource"),
    "hugepages": (_SIZES, f"{', '.join(_SIZES)} are supported with the hugepages resource"),
}


def validate_env(variables: Collection[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, env in enumerate(variables):
        at = f"{path}[{i}]"
        errors += checks.required_name(f"{at}.name", env.get("name"), names.env_var_name)
        if (source := env.get("valueFrom")) is not None:
            errors += _value_from(env, source, f"{at}.valueFrom")
    return errors


def _value_from(env: Obj, source: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    count = 0
    for key, value in source.items():
        if value is None or key not in _SOURCES:
            continue
        count += 1
        at = f"{path}.{key}"
        if key == "fieldRef":
            errors += field_selector(value, at, ENV_FIELDS)
        elif key == "resourceFieldRef":
            errors += resource_selector(value, at, volume=False)
        elif key == "fileKeyRef":
            errors += _file_key(value, at)
        else:
            errors += checks.named(f"{at}.name", value.get("name") or "")
            errors += checks.required_name(f"{at}.key", value.get("key"), names.config_map_key)
    if count == 0:
        why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        errors.append(invalid_value(path, "", why))
    elif env.get("value"):
        errors.append(invalid_value(path, "", "may not be specified when `value` is not empty"))
    elif count > 1:
        errors.append(invalid_value(path, "", "may not have more than one field specified at a time"))
    return errors


_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def _file_key(ref: Obj, path: str) -> list[FieldError]:
    errors = checks.required_name(f"{path}.key", ref.get("key"), names.env_var_name)
    errors += checks.required_name(f"{path}.volumeName", ref.get("volumeName"), names.dns1123_label)
    if not ref.get("path"):
        errors.append(required(f"{path}.path"))
    elif ".." in ref["path"].split("/"):
        errors.append(invalid_value(f"{path}.path", ref["path"], "must not contain '..'"))
    return errors


def field_selector(ref: Obj, path: str, allowed: Collection[str]) -> list[FieldError]:
    """An ObjectFieldSelector: a field of the pod, told to its containers."""
    if not ref.get("apiVersion"):
        return [required(f"{path}.apiVersion")]
    if not ref.get("fieldPath"):
        return [required(f"{path}.fieldPath")]
    field = ref["fieldPath"]
    if ref["apiVersion"] != "v1":
        why = f"error converting fieldPath: unsupported pod version: {ref['apiVersion']}"
        return [invalid_value(f"{path}.fieldPath", field, why)]
    base, bracket, rest = field.partition("['")
    if bracket and rest.endswith("']"):
        if base not in ("metadata.annotations", "metadata.labels"):
            return [_inconvertible(path, field)]
        key = rest[:-2]
        return checks.named(path, key.lower() if base == "metadata.annotations" else key, names.qualified_name)
    if field == "spec.host":
        field = "spec.nodeName"
    if field not in _CONVERTIBLE:
        return [_inconvertible(path, field)]
    if field not in allowed:
        return [not_supported(f"{path}.fieldPath", field, sorted(allowed))]
    return []


def _inconvertible(path: str, field: str) -> FieldError:
    why = f"error converting fieldPath: field label not supported: {field}"
    return invalid_value(f"{path}.fieldPath", field, why)


def resource_selector(ref: Obj, path: str, *, volume: bool) -> list[FieldError]:
    """A ResourceFieldSelector: an amount of a container's resources."""
    name = ref.get("resource") or ""
    errors: list[FieldError] = []
    huge = name.startswith(("limits.hugepages-", "requests.hugepages-"))
    if volume and not ref.get("containerName"):
        errors.append(required(f"{path}.containerName"))
    elif not name:
        errors.append(required(f"{path}.resource"))
    elif name not in _RESOURCES and not huge:
        errors.append(not_supported(f"{path}.resource", name, _RESOURCES))
    kind = "hugepages" if huge else name.partition(".")[2]
    divisor = ref.get("divisor")
    if divisor is not None and kind in _DIVISORS:
        try:
            text = quantity.canonical(divisor)
        except ValueError:
            text = str(divisor)
        supported, words = _DIVISORS[kind]
        if text != "0" and text not in supported:
            errors.append(invalid_value(f"{path}.divisor", name, f"only divisor's values {words}"))
    return errors


def validate_env_from(sources: Collection[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, source in enumerate(sources):
        at = f"{path}[{i}]"
        if source.get("prefix"):
            errors += checks.named(f"{at}.prefix", source["prefix"], names.env_var_name)
        given = [key for key in ("configMapRef", "secretRef") if source.get(key) is not None]
        for key in given:
            errors += checks.required_name(f"{at}.{key}.name", source[key].get("name"))
        if not given:
            errors.append(invalid_value(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            errors.append(invalid_value(path, "", "may not have more than one field specified at a time"))
    return errors
