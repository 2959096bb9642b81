"""CustomResourceDefinition as a kind: defaults, validation, life cycle.

Source: k8s.io/apiextensions-apiserver pkg/apis/apiextensions, pkg/registry/customresourcedefinition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names, status
from berg.machinery.status import FieldError, Obj

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_COLUMN_TYPES = ("integer", "number", "string", "boolean", "date")
_PROTECTED = (".k8s.io", ".kubernetes.io")
_APPROVED = "api-approved.kubernetes.io"


@strategy_for("apiextensions.k8s.io", "customresourcedefinitions")
class DefinitionStrategy(Strategy):
    namespaced = False
    field_labels = ()
    columns = (cells.NAME, Column("Created At", lambda o: o["metadata"].get("creationTimestamp"), type="date"))

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        own = spec.setdefault("names", {})
        if own.get("kind"):
            own.setdefault("singular", own["kind"].lower())
            own.setdefault("listKind", f"{own['kind']}List")
        conversion = spec.setdefault("conversion", {"strategy": "None"})
        service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
        if service is not None:
            service.setdefault("port", 443)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        stored = [v["name"] for v in obj["spec"].get("versions") or () if v.get("storage")]
        obj["status"] = {
            "storedVersions": stored[:1],
            "acceptedNames": {"plural": "", "kind": ""},
            "conditions": [],
        }

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        state: Obj = {**(obj.get("status") or {})}
        stored = list(state.get("storedVersions") or ())
        for version in obj["spec"].get("versions") or ():
            if version.get("storage") and version["name"] not in stored:
                stored.append(version["name"])
        state["storedVersions"] = stored
        obj["status"] = state

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        errors: list[FieldError] = []
        plural, group = spec.get("names", {}).get("plural", ""), spec.get("group", "")
        if obj["metadata"].get("name") != f"{plural}.{group}":
            why = 'must be spec.names.plural+"."+spec.group'
            errors.append(status.invalid_value("metadata.name", obj["metadata"].get("name"), why))
        errors += _group(group)
        errors += _approval(obj, group)
        errors += _enum("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))
        errors += _names(spec.get("names") or {})
        errors += _versions(spec)
        errors += _conversion(spec.get("conversion") or {})
        errors += _stored(obj)
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(ctx, obj)
        established = _is_true(old, "Established")
        spec, before = obj["spec"], old["spec"]
        fixed: list[tuple[str, Callable[[Obj], Any]]] = [
            ("spec.group", lambda s: s.get("group")),
            ("spec.names.plural", lambda s: s["names"].get("plural")),
        ]
        if established:
            fixed += [("spec.scope", lambda s: s.get("scope")), ("spec.names.kind", lambda s: s["names"].get("kind"))]
        for path, read in fixed:
            if read(spec) != read(before):
                errors.append(status.invalid_value(path, read(spec), "field is immutable"))
        return errors


def _is_true(crd: Obj, type_: str) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == type_ and c.get("status") == "True" for c in conditions)


def _group(group: str) -> list[FieldError]:
    path = "spec.group"
    if not group:
        return [status.required(path)]
    if faults := names.dns1123_subdomain(group):
        return [status.invalid_value(path, group, ",".join(faults))]
    if "." not in group:
        return [status.invalid_value(path, group, "should be a domain with at least one dot")]
    return []


def _approval(obj: Obj, group: str) -> list[FieldError]:
    if not (group.endswith(_PROTECTED) or group in ("k8s.io", "kubernetes.io")):
        return []
    value = (obj["metadata"].get("annotations") or {}).get(_APPROVED)
    path = f"metadata.annotations[{_APPROVED}]"
    if not value:
        why = (
            f'protected groups must have approval annotation "{_APPROVED}", see '
            "https://github.com/kubernetes/enhancements/pull/1111"
        )
        return [status.required(path, why)]
    if not value.startswith(("http://", "https://", "unapproved")):
        why = (
            f'protected groups must have approval annotation "{_APPROVED}" with either a URL or a reason starting with '
            '"unapproved"'
        )
        return [status.invalid_value(path, value, why)]
    return []


def _enum(path: str, value: Any, allowed: tuple[str, ...]) -> list[FieldError]:
    if not value:
        return [status.required(path)]
    return [] if value in allowed else [status.not_supported(path, value, allowed)]


def _names(own: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("plural", "singular", "kind", "listKind"):
        value = own.get(field) or ""
        path = f"spec.names.{field}"
        if not value:
            errors.append(status.required(path))
            continue
        faults = names.dns1035_label(value.lower() if field in ("kind", "listKind") else value)
        if faults:
            lead = "may have mixed case, but should otherwise match: " if field in ("kind", "listKind") else ""
            errors.append(status.invalid_value(path, value, lead + ",".join(faults)))
    if own.get("kind") and own.get("kind") == own.get("listKind"):
        errors.append(
            status.invalid_value("spec.names.listKind", own["listKind"], "kind and listKind may not be the same")
        )
    for field in ("shortNames", "categories"):
        for i, value in enumerate(own.get(field) or ()):
            if faults := names.dns1035_label(value):
                errors.append(status.invalid_value(f"spec.names.{field}[{i}]", value, ",".join(faults)))
    return errors


def _versions(spec: Obj) -> list[FieldError]:
    from berg.apiserver.crd import schema_rules

    errors: list[FieldError] = []
    versions = spec.get("versions") or []
    if len({v.get("name") for v in versions}) != len(versions):
        errors.append(status.invalid_value("spec.versions", versions, "must contain unique version names"))
    if sum(bool(v.get("storage")) for v in versions) != 1:
        why = "must have exactly one version marked as storage version"
        errors.append(status.invalid_value("spec.versions", versions, why))
    for i, version in enumerate(versions):
        path = f"spec.versions[{i}]"
        if faults := names.dns1035_label(version.get("name") or ""):
            errors.append(status.invalid_value(f"{path}.name", version.get("name"), ",".join(faults)))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            errors.append(status.required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        else:
            errors += schema_rules.validate(schema, f"{path}.schema.openAPIV3Schema")
        errors += _columns(version, path) + _subresources(version, path) + _selectable(version, path)
    return errors


def _columns(version: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, column in enumerate(version.get("additionalPrinterColumns") or ()):
        at = f"{path}.additionalPrinterColumns[{i}]"
        if not column.get("name"):
            errors.append(status.required(f"{at}.name"))
        shown = ",".join(sorted(_COLUMN_TYPES))
        if not column.get("type"):
            errors.append(status.required(f"{at}.type", f"must be one of {shown}"))
        elif column["type"] not in _COLUMN_TYPES:
            errors.append(status.invalid_value(f"{at}.type", column["type"], f"must be one of {shown}"))
        if not column.get("jsonPath"):
            errors.append(status.required(f"{at}.JSONPath"))
        elif not column["jsonPath"].startswith("."):
            why = "must be a simple json path starting with ."
            errors.append(status.invalid_value(f"{at}.JSONPath", column["jsonPath"], why))
    return errors


def _subresources(version: Obj, path: str) -> list[FieldError]:
    scale = (version.get("subresources") or {}).get("scale")
    if scale is None:
        return []
    errors: list[FieldError] = []
    at = f"{path}.subresources.scale"
    for field, under in (("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")):
        value = scale.get(field) or ""
        if not value:
            errors.append(status.required(f"{at}.{field}"))
        elif not value.startswith(under + "."):
            why = f"should be a json path under {under}"
            errors.append(status.invalid_value(f"{at}.{field}", value, why))
    selector = scale.get("labelSelectorPath")
    if selector and not selector.startswith((".spec.", ".status.")):
        why = "should be a json path under either .spec or .status"
        errors.append(status.invalid_value(f"{at}.labelSelectorPath", selector, why))
    return errors


def _selectable(version: Obj, path: str) -> list[FieldError]:
    from berg.apiserver.crd.columns import BadPath, compile_path

    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, field in enumerate(version.get("selectableFields") or ()):
        at = f"{path}.selectableFields[{i}].jsonPath"
        value = field.get("jsonPath") or ""
        if not value:
            errors.append(status.required(at))
            continue
        try:
            compile_path(value)
        except BadPath as e:
            errors.append(status.invalid_value(at, value, f"is an invalid path: {e}"))
            continue
        if value.startswith(".metadata"):
            errors.append(status.invalid_value(at, value, "must not point to fields in metadata"))
        if value in seen:
            errors.append(status.duplicate(at, value))
        seen.add(value)
    return errors


def _conversion(conversion: Obj) -> list[FieldError]:
    path = "spec.conversion"
    errors = _enum(f"{path}.strategy", conversion.get("strategy"), ("None", "Webhook"))
    webhook = conversion.get("webhook")
    if conversion.get("strategy") == "Webhook":
        client = (webhook or {}).get("clientConfig")
        if not client:
            why = "required when strategy is set to Webhook"
            errors.append(status.required(f"{path}.webhookClientConfig", why))
        elif bool(client.get("url")) == bool(client.get("service")):
            why = "exactly one of url or service is required"
            errors.append(status.required(f"{path}.webhook.clientConfig", why))
        if not (webhook or {}).get("conversionReviewVersions"):
            errors.append(status.required(f"{path}.webhook.conversionReviewVersions"))
    elif webhook:
        why = "should not be set when strategy is not set to Webhook"
        errors.append(status.forbidden_field(f"{path}.webhook", why))
    return errors


def _stored(obj: Obj) -> list[FieldError]:
    stored = (obj.get("status") or {}).get("storedVersions") or []
    known = {v["name"] for v in obj["spec"].get("versions") or () if v.get("name")}
    errors = []
    for i, version in enumerate(stored):
        if version not in known:
            why = (
                f"missing from spec.versions; {version} was previously a storage version, and must remain in "
                "spec.versions until a storage migration ensures no data remains persisted in "
                f"{version} and removes {version} from status.storedVersions"
            )
            errors.append(status.invalid_value(f"status.storedVersions[{i}]", version, why))
    return errors
