"""What a CRD's schema may say: structural, of known types, list types and keys that fit, CEL that compiles.

Source: k8s.io/apiextensions-apiserver pkg/apis/apiextensions/validation, pkg/apiserver/schema/validation.go.
"""

from __future__ import annotations

import re
from typing import Any

from berg.apiserver.crd.values import compile_schema, go_regex
from berg.machinery import schema as typed
from berg.machinery import status
from berg.machinery.status import FieldError, Obj

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_SCALARS = ("boolean", "integer", "number", "string")
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_NOT_STRUCTURAL = (
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
)
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


def validate(schema: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if schema.get("nullable"):
        errors.append(status.forbidden_field(f"{path}.nullable", "nullable cannot be true at the root"))
    _node(schema, path, errors, level="root")
    return errors


def _node(schema: Any, path: str, errors: list[FieldError], *, level: str) -> None:
    """`level`: root, field or item: what a missing type is told."""
    if not isinstance(schema, dict):
        return
    _type(schema, path, errors, level)
    _forbidden(schema, path, errors)
    _lists(schema, path, errors)
    _rules(schema, path, errors, root=level == "root")
    _default(schema, path, errors)
    if schema.get("pattern"):
        try:
            re.compile(go_regex(schema["pattern"]))
        except re.error as e:
            why = f"must be a valid regular expression, but isn't: {e}"
            errors.append(status.invalid_value(f"{path}.pattern", schema["pattern"], why))
    properties = schema.get("properties") or {}
    for name, inner in properties.items():
        if level == "root" and name == "metadata":
            _metadata(inner, f"{path}.properties[metadata]", errors)
            continue
        _node(inner, f"{path}.properties[{name}]", errors, level="field")
    if isinstance(schema.get("items"), dict):
        _node(schema["items"], f"{path}.items", errors, level="item")
    if isinstance(schema.get("additionalProperties"), dict):
        if level == "root":
            errors.append(status.forbidden_field(f"{path}.additionalProperties", "must not be used at the root"))
        _node(schema["additionalProperties"], f"{path}.additionalProperties", errors, level="field")
    for junctor in _JUNCTORS:
        for i, inner in enumerate(schema.get(junctor) or ()):
            _value_only(inner, f"{path}.{junctor}[{i}]", errors, schema)
    if schema.get("not") is not None:
        _value_only(schema["not"], f"{path}.not", errors, schema)


def _type(schema: Obj, path: str, errors: list[FieldError], level: str) -> None:
    kind = schema.get("type") or ""
    if kind and kind not in _TYPES:
        errors.append(status.not_supported(f"{path}.type", kind, _TYPES))
    open_ = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
    if not kind and not (open_ and level != "root"):
        what = {
            "root": "must not be empty at the root",
            "item": "must not be empty for specified array items",
            "field": "must not be empty for specified object fields",
        }[level]
        errors.append(status.required(f"{path}.type", what))
    if level == "root" and kind and kind != "object":
        errors.append(status.invalid_value(f"{path}.type", kind, "must be object at the root"))
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        why = "must be true or undefined"
        errors.append(status.invalid_value(f"{path}.x-kubernetes-preserve-unknown-fields", False, why))
    if schema.get("x-kubernetes-embedded-resource"):
        if kind != "object":
            errors.append(status.required(f"{path}.type", "must be object if x-kubernetes-embedded-resource is true"))
        if not schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
            why = (
                "must not be empty if x-kubernetes-embedded-resource is true without "
                "x-kubernetes-preserve-unknown-fields"
            )
            errors.append(status.required(f"{path}.properties", why))
    if kind == "array" and not schema.get("items"):
        errors.append(status.required(f"{path}.items", "must be specified"))


def _metadata(schema: Obj, path: str, errors: list[FieldError]) -> None:
    if schema.get("type", "object") != "object":
        errors.append(status.invalid_value(f"{path}.type", schema["type"], "must be object"))
    if set(schema.get("properties") or ()) - {"name", "generateName"}:
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        errors.append(status.forbidden_field(path, why))


def _forbidden(schema: Obj, path: str, errors: list[FieldError]) -> None:
    for name in _UNSUPPORTED:
        if schema.get(name):
            errors.append(status.forbidden_field(f"{path}.{name}", f"{name} is not supported"))
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errors.append(status.forbidden_field(f"{path}.uniqueItems", why))
    if schema.get("additionalProperties") is False:
        why = "additionalProperties cannot be set to false"
        errors.append(status.forbidden_field(f"{path}.additionalProperties", why))
    elif schema.get("additionalProperties") is not None and schema.get("properties"):
        why = "additionalProperties and properties are mutual exclusive"
        errors.append(status.forbidden_field(f"{path}.additionalProperties", why))
    if isinstance(schema.get("items"), list):
        why = "items must be a schema object and not an array"
        errors.append(status.forbidden_field(f"{path}.items", why))


def _value_only(schema: Any, path: str, errors: list[FieldError], owner: Obj) -> None:
    """Inside allOf and its kin only values may be spoken of."""
    if not isinstance(schema, dict):
        return
    if schema.get("type") and not owner.get("x-kubernetes-int-or-string"):
        errors.append(status.forbidden_field(f"{path}.type", "must be empty to be structural"))
    for name, why in _NOT_STRUCTURAL:
        if schema.get(name):
            errors.append(status.forbidden_field(f"{path}.{name}", why))
    known = owner.get("properties") or {}
    for name, inner in (schema.get("properties") or {}).items():
        if name not in known and not owner.get("x-kubernetes-preserve-unknown-fields") and known:
            errors.append(
                status.required(
                    f"{path.rpartition('.')[0]}.properties[{name}]",
                    f"because it is defined in {path}.properties[{name}]",
                )
            )
        _value_only(inner, f"{path}.properties[{name}]", errors, known.get(name) or {})
    if isinstance(schema.get("items"), dict):
        _value_only(schema["items"], f"{path}.items", errors, owner.get("items") or {})
    for junctor in _JUNCTORS:
        for i, inner in enumerate(schema.get(junctor) or ()):
            _value_only(inner, f"{path}.{junctor}[{i}]", errors, owner)


def _lists(schema: Obj, path: str, errors: list[FieldError]) -> None:
    kind = schema.get("type")
    map_type, list_type = schema.get("x-kubernetes-map-type"), schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if map_type is not None:
        if map_type not in ("atomic", "granular"):
            errors.append(status.not_supported(f"{path}.x-kubernetes-map-type", map_type, ["atomic", "granular"]))
        if kind != "object":
            why = "must be object if x-kubernetes-map-type is specified"
            errors.append(status.invalid_value(f"{path}.type", kind or "", why))
    if list_type is not None:
        if list_type not in ("atomic", "set", "map"):
            errors.append(status.not_supported(f"{path}.x-kubernetes-list-type", list_type, ["atomic", "map", "set"]))
        if kind != "array":
            why = "must be array if x-kubernetes-list-type is specified"
            errors.append(status.invalid_value(f"{path}.type", kind or "", why))
    if keys and list_type != "map":
        why = "must be map if x-kubernetes-list-map-keys is non-empty"
        errors.append(status.invalid_value(f"{path}.x-kubernetes-list-type", list_type, why))
    if list_type != "map":
        return
    if not keys:
        why = "must not be empty if x-kubernetes-list-type is map"
        errors.append(status.required(f"{path}.x-kubernetes-list-map-keys", why))
    items = schema.get("items")
    if not isinstance(items, dict):
        errors.append(status.required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map"))
        return
    if items.get("type") != "object":
        why = "must be object if parent array's x-kubernetes-list-type is map"
        errors.append(status.invalid_value(f"{path}.items.type", items.get("type", ""), why))
    properties = items.get("properties") or {}
    for key in keys:
        inner = properties.get(key)
        at = f"{path}.items.properties[{key}]"
        if inner is None:
            why = "entries must all be names of item properties"
            errors.append(status.invalid_value(f"{path}.x-kubernetes-list-map-keys", keys, why))
        elif inner.get("type") not in _SCALARS:
            why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            errors.append(status.invalid_value(f"{at}.type", inner.get("type", ""), why))
        elif key not in (items.get("required") or ()) and "default" not in inner:
            why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            errors.append(status.required(f"{at}.default", why))


def _rules(schema: Obj, path: str, errors: list[FieldError], *, root: bool) -> None:
    from berg.apiserver.cel import CompileError, compile_expression
    from berg.apiserver.crd.rule_fields import undefined

    for i, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        at = f"{path}.x-kubernetes-validations[{i}]"
        text = rule.get("rule") or ""
        if not text.strip():
            errors.append(status.required(f"{at}.rule", "rule is not specified"))
            continue
        if "message" in rule and rule["message"] is not None and not rule["message"].strip() and rule["message"]:
            errors.append(status.invalid_value(f"{at}.message", rule["message"], "must be non-empty if specified"))
        if rule.get("reason") and rule["reason"] not in _REASONS:
            errors.append(status.not_supported(f"{at}.reason", rule["reason"], _REASONS))
        for name in ("rule", "messageExpression"):
            if not rule.get(name):
                continue
            try:
                compile_expression(rule[name])
            except CompileError as e:
                errors.append(status.invalid_value(f"{at}.{name}", rule, f"compilation failed: {e}"))
                continue
            unknown = undefined(rule[name], schema, root=root, optional_old=bool(rule.get("optionalOldSelf")))
            if unknown:
                why = f"compilation failed: {chr(10).join(unknown)}"
                errors.append(status.invalid_value(f"{at}.{name}", rule, why))


def _default(schema: Obj, path: str, errors: list[FieldError]) -> None:
    """A default must itself be pruned and valid."""
    if schema.get("default") is None:
        return
    value = schema["default"]
    field = typed.field_of_schema("default", schema, "default")
    holder: Obj = {"default": value}
    import copy

    pruned = copy.deepcopy(holder)
    if typed.prune(typed.TypeDef("default", {"default": field}), pruned) or pruned != holder:
        errors.append(status.invalid_value(f"{path}.default", value, "must not have unknown fields"))
    try:
        check = compile_schema(schema)
    except re.error:
        return
    check(f"{path}.default", value, errors)
