"""What a definition's spec may say.

What all versions have alike (schema, subresources, columns, selectable fields) upstream moves to the top of the spec
before it looks at it, and says so in the paths of its messages: `spec.validation` instead of `spec.versions[0].schema`.
A definition of one version always reads so.

Source: k8s.io/apiextensions-apiserver pkg/apis/apiextensions/validation, pkg/apis/apiextensions/v1/conversion.go.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

from berg.machinery import names, status
from berg.machinery.status import FieldError, Obj

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_PROTECTED = (".k8s.io", ".kubernetes.io")
_APPROVED = "api-approved.kubernetes.io"
_MOST_SELECTABLE = 8
_SELECTABLE = ("string", "boolean", "integer")
_REVIEWS = ("v1", "v1beta1")


def faults(spec: Obj) -> list[FieldError]:
    errors = [*_group(spec.get("group") or ""), *_enum("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))]
    versions = spec.get("versions") or []
    alike = _alike(versions)
    schemas = [_schema(v) for v in versions]
    for i, schema in enumerate(schemas):
        if schema is None:
            errors.append(status.required(f"spec.versions[{i}].schema.openAPIV3Schema"))
    has_defaults = any(map(_has_defaults, schemas))
    if has_defaults and spec.get("preserveUnknownFields"):
        why = "must be false in order to use defaults in the schema"
        errors.append(status.invalid_value("spec.preserveUnknownFields", True, why))
    for i, version in enumerate(versions):
        errors += _version(version, f"spec.versions[{i}]", alike)
    shown = [{k: v for k, v in version.items() if k not in alike} for version in versions] or None
    if len({v.get("name") for v in versions}) != len(versions):
        errors.append(status.invalid_value("spec.versions", shown, "must contain unique version names"))
    if sum(bool(v.get("storage")) for v in versions) != 1:
        why = "must have exactly one version marked as storage version"
        errors.append(status.invalid_value("spec.versions", shown, why))
    if versions and (bad := names.dns1035_label(versions[0].get("name") or "")):
        errors.append(status.invalid_value("spec.version", versions[0].get("name") or "", ",".join(bad)))
    errors += _names(spec.get("names") or {})
    if versions:
        errors += _top(versions[0], alike, has_status=any(_has_status(v) for v in versions))
    if (spec.get("conversion") or {}).get("strategy") not in (None, "None") and spec.get("preserveUnknownFields"):
        why = "must be None if spec.preserveUnknownFields is true"
        errors.append(status.invalid_value("spec.conversion.strategy", spec["conversion"]["strategy"], why))
    errors += _conversion(spec.get("conversion") or {})
    return errors


def _schema(version: Obj) -> Obj | None:
    return (version.get("schema") or {}).get("openAPIV3Schema")


def _has_status(version: Obj) -> bool:
    return (version.get("subresources") or {}).get("status") is not None


def _has_defaults(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(map(_has_defaults, schema))
    if not isinstance(schema, dict):
        return False
    inner = [*(schema.get("properties") or {}).values(), *(schema.get(k) for k in ("items", "additionalProperties"))]
    return schema.get("default") is not None or any(map(_has_defaults, inner))


def _alike(versions: Sequence[Obj]) -> frozenset[str]:
    """Which of a version's parts all versions have alike."""
    parts = ("schema", "subresources", "additionalPrinterColumns", "selectableFields")
    return frozenset(p for p in parts if all((v.get(p) or None) == (versions[0].get(p) or None) for v in versions))


def _version(version: Obj, path: str, alike: frozenset[str]) -> Iterator[FieldError]:
    if why := names.dns1035_label(version.get("name") or ""):
        yield status.invalid_value(f"{path}.name", version.get("name") or "", ",".join(why))
    yield from _deprecation(version, f"{path}.deprecationWarning")
    own = {k: v for k, v in version.items() if k not in alike}
    yield from _parts(own, path, "schema.openAPIV3Schema", version, _has_status(version))


def _top(version: Obj, alike: frozenset[str], *, has_status: bool) -> Iterator[FieldError]:
    shared = {k: v for k, v in version.items() if k in alike}
    yield from _parts(shared, "spec", "validation.openAPIV3Schema", version, has_status)


def _parts(own: Obj, path: str, schema_at: str, version: Obj, has_status: bool) -> Iterator[FieldError]:
    from berg.apiserver.crd import schema_rules

    schema = _schema(own)
    if schema is not None:
        yield from schema_rules.validate(schema, f"{path}.{schema_at}", has_status=has_status)
    yield from _scale((own.get("subresources") or {}).get("scale"), f"{path}.subresources.scale")
    for i, column in enumerate(own.get("additionalPrinterColumns") or ()):
        yield from _column(column, f"{path}.additionalPrinterColumns[{i}]")
    if own.get("selectableFields"):
        yield from _selectable(own["selectableFields"], _schema(version), f"{path}.selectableFields")


def _deprecation(version: Obj, path: str) -> Iterator[FieldError]:
    text = version.get("deprecationWarning")
    if text is None:
        return
    if not version.get("deprecated"):
        yield status.invalid_value(path, text, "can only be set for deprecated versions")
        return
    if len(text.encode()) > 256:
        yield status.invalid_value(path, text, "must be <= 256 characters long")
    if not text:
        yield status.invalid_value(path, text, "must not be an empty string")
    odd = next((i for i, c in enumerate(text) if not c.isprintable()), None)
    if odd is not None:
        index = len(text[:odd].encode())
        lead = "must only contain printable UTF-8 characters; non-printable character found at index"
        yield status.invalid_value(path, text, f"{lead} {index}")


# ---- names


def _group(group: str) -> Iterator[FieldError]:
    path = "spec.group"
    if not group:
        yield status.required(path)
    elif why := names.dns1123_subdomain(group):
        yield status.invalid_value(path, group, ",".join(why))
    elif "." not in group:
        yield status.invalid_value(path, group, "should be a domain with at least one dot")


def is_protected(group: str) -> bool:
    return group.endswith(_PROTECTED) or group in ("k8s.io", "kubernetes.io")


def approval(obj: Obj) -> tuple[str, str]:
    """State and why: upstream's approved, bypassed, missing or invalid."""
    value = (obj["metadata"].get("annotations") or {}).get(_APPROVED)
    if not value:
        why = (
            f'protected groups must have approval annotation "{_APPROVED}", see '
            "https://github.com/kubernetes/enhancements/pull/1111"
        )
        return "missing", why
    if value.startswith("unapproved"):
        return "bypassed", f'not approved: "{value}"'
    scheme, _, rest = value.partition("://")
    if scheme and rest.partition("/")[0]:
        return "approved", f"approved in {value}"
    why = (
        f'protected groups must have approval annotation "{_APPROVED}" with either a URL or a reason starting with '
        '"unapproved", see https://github.com/kubernetes/enhancements/pull/1111'
    )
    return "invalid", why


def approval_faults(obj: Obj, old: Obj | None) -> list[FieldError]:
    if not is_protected(obj["spec"].get("group") or ""):
        return []
    state, why = approval(obj)
    path = f"metadata.annotations[{_APPROVED}]"
    if (old is not None and approval(old)[0] == state) or state in ("approved", "bypassed"):
        return []
    if state == "missing":
        return [status.required(path, why)]
    return [status.invalid_value(path, obj["metadata"]["annotations"][_APPROVED], why)]


def _enum(path: str, value: Any, allowed: tuple[str, ...]) -> list[FieldError]:
    if not value:
        return [status.required(path)]
    return [] if value in allowed else [status.not_supported(path, value, allowed)]


def _names(own: Obj) -> Iterator[FieldError]:
    for field in ("plural", "singular", "kind", "listKind"):
        if not own.get(field):
            yield status.required(f"spec.names.{field}")
    for field in ("plural", "singular", "kind", "listKind"):
        value = own.get(field) or ""
        mixed = field in ("kind", "listKind")
        if value and (why := names.dns1035_label(value.lower() if mixed else value)):
            lead = "may have mixed case, but should otherwise match: " if mixed else ""
            yield status.invalid_value(f"spec.names.{field}", value, lead + ",".join(why))
    yield from _labels(own, "shortNames")
    if own.get("kind") and own["kind"] == own.get("listKind"):
        yield status.invalid_value("spec.names.listKind", own["listKind"], "kind and listKind may not be the same")
    yield from _labels(own, "categories")


def _labels(own: Obj, field: str) -> Iterator[FieldError]:
    for i, value in enumerate(own.get(field) or ()):
        if why := names.dns1035_label(value):
            yield status.invalid_value(f"spec.names.{field}[{i}]", value, ",".join(why))


# ---- columns, subresources, selectable fields


def _column(column: Obj, path: str) -> Iterator[FieldError]:
    if not column.get("name"):
        yield status.required(f"{path}.name")
    types = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not column.get("type"):
        yield status.required(f"{path}.type", types)
    elif column["type"] not in _COLUMN_TYPES:
        yield status.invalid_value(f"{path}.type", column["type"], types)
    if column.get("format") and column["format"] not in _COLUMN_FORMATS:
        yield status.invalid_value(f"{path}.format", column["format"], f"must be one of {','.join(_COLUMN_FORMATS)}")
    if not column.get("jsonPath"):
        yield status.required(f"{path}.JSONPath")
    else:
        yield from _simple_path(column["jsonPath"], f"{path}.JSONPath")


def _simple_path(text: str, path: str) -> Iterator[FieldError]:
    if not text.startswith("."):
        yield status.invalid_value(path, text, "must be a simple json path starting with .")


def _scale(scale: Obj | None, path: str) -> Iterator[FieldError]:
    if scale is None:
        return
    for field, under in (("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")):
        if not scale.get(field):
            yield status.required(f"{path}.{field}")
        else:
            yield from _path_under(scale[field], f"{path}.{field}", (f"{under}.",), f"under {under}")
    if scale.get("labelSelectorPath"):
        at = f"{path}.labelSelectorPath"
        yield from _path_under(scale["labelSelectorPath"], at, (".spec.", ".status."), "under either .spec or .status")


def _path_under(text: str, path: str, prefixes: tuple[str, ...], where: str) -> Iterator[FieldError]:
    if not text.startswith("."):
        yield from _simple_path(text, path)
    elif not text.startswith(prefixes):
        yield status.invalid_value(path, text, f"should be a json path {where}")


def _selectable(fields: Sequence[Obj], schema: Obj | None, path: str) -> Iterator[FieldError]:
    from berg.apiserver.crd.field_paths import BadPath, follow

    seen: set[str] = set()
    for i, field in enumerate(fields):
        at, value = f"{path}[{i}].jsonPath", field.get("jsonPath") or ""
        if not value:
            yield status.required(at)
            continue
        try:
            steps, found = follow(value, schema or {}, arrays=False)
        except BadPath as e:
            yield status.invalid_value(at, value, f"is an invalid path: {e}")
            continue
        if steps and steps[0] == "metadata":
            yield status.invalid_value(at, value, "must not point to fields in metadata")
        if found.get("type") not in _SELECTABLE:
            why = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats "
                "are allowed."
            )
            yield status.invalid_value(at, value, why)
        if ".".join(steps) in seen:
            yield status.duplicate(at, value)
        seen.add(".".join(steps))
    if len(seen) > _MOST_SELECTABLE:
        yield status.too_many(path, len(seen), _MOST_SELECTABLE)


# ---- conversion


def _conversion(conversion: Obj) -> Iterator[FieldError]:
    from berg.apiserver.kinds.admissionregistration.validation import client_config

    path = "spec.conversion"
    yield from _enum(f"{path}.strategy", conversion.get("strategy"), ("None", "Webhook"))
    webhook = conversion.get("webhook") or {}
    client, reviews = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    if conversion.get("strategy") != "Webhook":
        why = "should not be set when strategy is not set to Webhook"
        if client is not None:
            yield status.forbidden_field(f"{path}.webhookClientConfig", why)
        if reviews:
            yield status.forbidden_field(f"{path}.conversionReviewVersions", why)
        return
    if client is None:
        yield status.required(f"{path}.webhookClientConfig", "required when strategy is set to Webhook")
    else:
        yield from client_config(client, f"{path}.webhookClientConfig")
        bundle = client.get("caBundle")
        if bundle and b"-----BEGIN " not in base64.b64decode(bundle):
            why = "unable to load root certificates: unable to parse bytes as PEM block"
            yield status.invalid_value(f"{path}.webhookClientConfig.caBundle", bundle, why)
    yield from _review_versions(reviews, f"{path}.conversionReviewVersions")


def _review_versions(versions: Sequence[str], path: str) -> Iterator[FieldError]:
    if not versions:
        yield status.required(path)
        return
    for i, version in enumerate(versions):
        if version in versions[:i]:
            yield status.invalid_value(f"{path}[{i}]", version, "duplicate version")
            continue
        for why in names.dns1035_label(version):
            yield status.invalid_value(f"{path}[{i}]", version, why)
    if not set(versions) & set(_REVIEWS):
        yield status.invalid_value(path, versions, f"must include at least one of {', '.join(_REVIEWS)}")
