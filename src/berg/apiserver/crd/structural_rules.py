"""What makes a schema structural: each field has its type outside of the junctors (allOf, anyOf, oneOf, not), which
speak of values only.

Source: k8s.io/apiextensions-apiserver pkg/apiserver/schema/validation.go, complete.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from berg.machinery import regexp, status
from berg.machinery.status import FieldError, Obj

JUNCTORS = ("allOf", "anyOf", "oneOf")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_TYPELESS = {
    "root": "must not be empty at the root",
    "item": "must not be empty for specified array items",
    "field": "must not be empty for specified object fields",
}
_ONLY_VALUES = (
    ("type", "must be empty to be structural"),
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


def faults(schema: Obj, path: str) -> list[FieldError]:
    """In the order of their texts."""
    return sorted([*_invariants(schema, path, "root"), *_completeness(schema, path)], key=str)


def _invariants(schema: Obj, path: str, level: str) -> Iterator[FieldError]:
    kind = schema.get("type") or ""
    if kind == "array" and not isinstance(schema.get("items"), dict):
        yield status.required(f"{path}.items", "must be specified")
    if isinstance(schema.get("items"), dict):
        yield from _invariants(schema["items"], f"{path}.items", "item")
    for name, inner in (schema.get("properties") or {}).items():
        yield from _invariants(inner, f"{path}.properties[{name}]", "field")
    more = schema.get("additionalProperties")
    if more is not None:
        if level == "root":
            yield status.forbidden_field(f"{path}.additionalProperties", "must not be used at the root")
        if isinstance(more, dict):
            yield from _invariants(more, f"{path}.additionalProperties", "field")
    yield from _extensions(schema, path)
    yield from _values(schema, path)
    yield from _type(schema, kind, path, level)
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    if level == "root" or embedded:
        for name in ("kind", "apiVersion"):
            own = (schema.get("properties") or {}).get(name)
            if own is not None and own.get("type") != "string":
                at = f"{path}.properties[{name}].type"
                yield status.invalid_value(at, own.get("type") or "", "must be string")
    metadata = (schema.get("properties") or {}).get("metadata")
    if metadata is not None:
        yield from _metadata(metadata, f"{path}.properties[metadata]", level, checked=level == "root" or embedded)
    if embedded and not schema.get("x-kubernetes-preserve-unknown-fields") and not schema.get("properties"):
        why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        yield status.required(f"{path}.properties", why)


def _extensions(schema: Obj, path: str) -> Iterator[FieldError]:
    if schema.get("x-kubernetes-int-or-string"):
        for name in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"):
            if schema.get(name):
                why = "must be false if x-kubernetes-int-or-string is true"
                yield status.invalid_value(f"{path}.{name}", True, why)


def _type(schema: Obj, kind: str, path: str, level: str) -> Iterator[FieldError]:
    embedded = schema.get("x-kubernetes-embedded-resource")
    open_ = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if embedded and kind != "object":
        why = "must be object if x-kubernetes-embedded-resource is true"
        yield status.invalid_value(f"{path}.type", kind, why) if kind else status.required(f"{path}.type", why)
    elif not kind and not open_:
        yield status.required(f"{path}.type", _TYPELESS[level])
    if embedded and schema.get("additionalProperties") is not None:
        why = "must not be used if x-kubernetes-embedded-resource is set"
        yield status.forbidden_field(f"{path}.additionalProperties", why)
    if level == "root" and kind and kind != "object":
        yield status.invalid_value(f"{path}.type", kind, "must be object at the root")


def _metadata(schema: Obj, path: str, level: str, *, checked: bool) -> Iterator[FieldError]:
    if checked and schema.get("type") != "object":
        yield status.invalid_value(f"{path}.type", schema.get("type") or "", "must be object")
    if level != "root":
        return
    left = {k: v for k, v in schema.items() if v and k not in ("type", "default")}
    if set(left.get("properties") or ()) <= {"name", "generateName"}:
        left.pop("properties", None)
    if left:
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield status.forbidden_field(path, why)


def _values(schema: Obj, path: str) -> Iterator[FieldError]:
    """What is inside the junctors."""
    either = schema.get("anyOf") == _INT_OR_STRING
    first = ((schema.get("allOf") or [{}])[0] or {}).get("anyOf") == _INT_OR_STRING
    for junctor in JUNCTORS:
        if junctor == "anyOf" and either:
            continue
        for i, inner in enumerate(schema.get(junctor) or ()):
            skip = junctor == "allOf" and i == 0 and first
            yield from _nested(inner, f"{path}.{junctor}[{i}]", skip_any_of=skip)
    if isinstance(schema.get("not"), dict):
        yield from _nested(schema["not"], f"{path}.not")
    if schema.get("pattern"):
        try:
            regexp.compile(schema["pattern"])
        except ValueError as e:
            why = f"must be a valid regular expression, but isn't: {e}"
            yield status.invalid_value(f"{path}.pattern", schema["pattern"], why)


def _nested(schema: Any, path: str, *, skip_any_of: bool = False) -> Iterator[FieldError]:
    if not isinstance(schema, dict):
        return
    yield from _values({k: v for k, v in schema.items() if not (skip_any_of and k == "anyOf")}, path)
    if isinstance(schema.get("items"), dict):
        yield from _nested(schema["items"], f"{path}.items")
    for name, inner in (schema.get("properties") or {}).items():
        yield from _nested(inner, f"{path}.properties[{name}]")
    for name, why in _ONLY_VALUES:
        if schema.get(name):
            yield status.forbidden_field(f"{path}.{name}", why)
    if "metadata" in (schema.get("properties") or {}):
        yield status.forbidden_field(f"{path}.properties[metadata]", "must not be specified in a nested context")


def _completeness(schema: Obj, path: str) -> Iterator[FieldError]:
    """What the root's junctors speak of is there outside of them, too."""
    for at, inner in _junctions(schema, path):
        yield from _complete(inner, schema, at, path)


def _junctions(schema: Obj, path: str) -> Iterator[tuple[str, Obj]]:
    for junctor in JUNCTORS:
        for i, inner in enumerate(schema.get(junctor) or ()):
            if isinstance(inner, dict):
                yield f"{path}.{junctor}[{i}]", inner
    if isinstance(schema.get("not"), dict):
        yield f"{path}.not", schema["not"]


def _complete(schema: Obj, spine: Obj | None, path: str, spine_path: str) -> Iterator[FieldError]:
    for at, inner in _junctions(schema, path):
        yield from _complete(inner, spine, at, spine_path)
    if isinstance(schema.get("items"), dict):
        own = (spine or {}).get("items")
        if not isinstance(own, dict):
            yield status.required(f"{spine_path}.items", f"because it is defined in {path}.items")
        else:
            yield from _complete(schema["items"], own, f"{path}.items", f"{spine_path}.items")
    properties = (spine or {}).get("properties") or {}
    for name, inner in (schema.get("properties") or {}).items():
        at, spine_at = f"{path}.properties[{name}]", f"{spine_path}.properties[{name}]"
        if name not in properties:
            yield status.required(spine_at, f"because it is defined in {at}")
        else:
            yield from _complete(inner, properties[name], at, spine_at)
