"""What a definition's schema may say: structural, of known types, list types and keys that fit, defaults that are
valid, rules that compile and do not cost too much.

Three passes, as upstream: is it structural (`structural_rules`); are its defaults valid (`default_rules`); and what
stands here, of each node. Rules are only looked at where nothing else is wrong.

Source: k8s.io/apiextensions-apiserver pkg/apis/apiextensions/validation, validateCustomResourceDefinitionValidation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from berg.apiserver.crd import default_rules, structural_rules
from berg.machinery import status
from berg.machinery.status import FieldError, Obj

if TYPE_CHECKING:
    from berg.apiserver.crd.rule_compile import Place

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_META = ("metadata", "kind", "apiVersion")
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_WITH_STATUS = (
    "Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern "
    "MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields "
    "XValidations"
)
"""what may stand at the root of a schema whose status is a subresource, in Go's names"""


def validate(schema: Obj, path: str, *, has_status: bool = False) -> list[FieldError]:
    errors: list[FieldError] = []
    if has_status:
        errors += _root_with_status(schema, path)
    if schema.get("nullable"):
        errors.append(status.forbidden_field(f"{path}.nullable", "nullable cannot be true at the root"))
    place: Place | None = None
    if not _is_convertible(schema):
        pass
    elif found := structural_rules.faults(schema, path) or default_rules.faults(schema, path):
        errors += found
    elif _has_rules(schema):
        from berg.apiserver.crd.rule_compile import Place

        place = Place.of_root(schema)
    check = _Check()
    check.node(schema, path, _Surroundings(root=True), place)
    errors += check.faults + check.rule_faults
    if place is not None:
        errors += place.total.faults(path)
    return errors


def _root_with_status(schema: Obj, path: str) -> Iterator[FieldError]:
    for name, value in schema.items():
        if not value:
            continue
        if name == "type":
            if value != "object":
                why = 'only "object" is allowed as the type at the root of the schema'
                yield status.invalid_value(f"{path}.type", value, f"{why} if the status subresource is enabled")
                return
        elif (
            name.startswith("x-kubernetes")
            and name
            not in (
                "x-kubernetes-preserve-unknown-fields",
                "x-kubernetes-validations",
            )
        ) or (not name.startswith("x-") and name[0].upper() + name[1:] not in _WITH_STATUS.split()):
            yield _not_at_root(schema, path)
            return


def _not_at_root(schema: Obj, path: str) -> FieldError:
    why = f"only [{_WITH_STATUS}] fields are allowed at the root of the schema if the status subresource is enabled"
    return status.invalid_value(path, schema, why)


def _is_convertible(schema: Any) -> bool:
    """Nothing is in it that structural schemas do not know at all."""
    if not isinstance(schema, dict):
        return True
    if any(schema.get(name) for name in _UNSUPPORTED) or isinstance(schema.get("items"), list):
        return False
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        return False
    return all(map(_is_convertible, _inner(schema)))


def _inner(schema: Obj) -> Iterator[Any]:
    yield from (schema.get("properties") or {}).values()
    yield schema.get("items")
    yield schema.get("additionalProperties")
    yield schema.get("not")
    for junctor in structural_rules.JUNCTORS:
        yield from schema.get(junctor) or ()


def _has_rules(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    return bool(schema.get("x-kubernetes-validations")) or any(map(_has_rules, _inner(schema)))


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What a node's place forbids."""

    root: bool = False
    in_meta: bool = False
    no_defaults: str = ""
    """why there may be none"""


class _Check:
    def __init__(self) -> None:
        self.faults: list[FieldError] = []
        self.rule_faults: list[FieldError] = []

    def node(self, schema: Any, path: str, around: _Surroundings, place: Place | None) -> None:
        if not isinstance(schema, dict):
            return
        before = len(self.faults)
        self.faults += _own(schema, path, around)
        self._children(schema, path, replace(around, root=False), place, root=around.root)
        self.faults += _lists(schema, path)
        rules = schema.get("x-kubernetes-validations") or ()
        for i, rule in enumerate(rules):
            self.faults += _rule(schema, rule, f"{path}.x-kubernetes-validations[{i}]")
        if rules and place is not None and len(self.faults) == before:
            from berg.apiserver.crd import rule_compile

            self.rule_faults += rule_compile.faults(schema, path, place)

    def _children(self, schema: Obj, path: str, around: _Surroundings, place: Place | None, *, root: bool) -> None:
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            below = around
            if around.in_meta:
                below = replace(around, no_defaults="inside additionalProperties applying to object metadata")
            at = f"{path}.additionalProperties"
            self.node(more, at, below, place and place.below(schema, path, more, None))
        for name, inner in (schema.get("properties") or {}).items():
            if not isinstance(inner, dict):
                continue
            below = around
            if (root or schema.get("x-kubernetes-embedded-resource")) and name in _META:
                below = replace(around, in_meta=True)
                if root:
                    below = replace(below, no_defaults=f"in top-level {name}")
            at = f"{path}.properties[{name}]"
            self.node(inner, at, below, place and place.below(schema, path, inner, name))
        self.node(schema.get("not"), f"{path}.not", around, None)
        for junctor in structural_rules.JUNCTORS:
            for i, inner in enumerate(schema.get(junctor) or ()):
                self.node(inner, f"{path}.{junctor}[{i}]", around, None)
        items = schema.get("items")
        if isinstance(items, dict):
            self.node(items, f"{path}.items", around, place and place.below(schema, path, items, None))


def _own(schema: Obj, path: str, around: _Surroundings) -> Iterator[FieldError]:
    kind = schema.get("type") or ""
    if kind and kind not in _TYPES:
        yield status.not_supported(f"{path}.type", kind, _TYPES)
    if schema.get("default") is not None and around.no_defaults:
        yield status.forbidden_field(f"{path}.default", f"must not be set {around.no_defaults}")
    for name in _UNSUPPORTED:
        if schema.get(name):
            yield status.forbidden_field(f"{path}.{name}", f"{name} is not supported")
    if kind == "null":
        yield status.forbidden_field(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
    if isinstance(schema.get("items"), list):
        yield status.forbidden_field(f"{path}.items", "items must be a schema object and not an array")
    if around.in_meta and schema.get("x-kubernetes-embedded-resource"):
        yield status.forbidden_field(
            f"{path}.x-kubernetes-embedded-resource", "must not be used inside of resource meta"
        )
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield status.forbidden_field(f"{path}.uniqueItems", why)
    more = schema.get("additionalProperties")
    if schema.get("properties") and more is not None and more is not True:
        why = "additionalProperties and properties are mutual exclusive"
        yield status.forbidden_field(f"{path}.additionalProperties", why)


def _lists(schema: Obj, path: str) -> Iterator[FieldError]:
    kind = schema.get("type") or ""
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        yield status.invalid_value(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
    map_type, list_type = schema.get("x-kubernetes-map-type"), schema.get("x-kubernetes-list-type")
    if map_type is not None and kind != "object":
        yield _of_type(f"{path}.type", kind, "must be object if x-kubernetes-map-type is specified")
    if map_type is not None and map_type not in ("atomic", "granular"):
        yield status.not_supported(f"{path}.x-kubernetes-map-type", map_type, ["atomic", "granular"])
    items = schema.get("items")
    if list_type is not None and kind != "array":
        yield _of_type(f"{path}.type", kind, "must be array if x-kubernetes-list-type is specified")
    elif list_type == "set" and isinstance(items, dict):
        yield from _set_items(items, f"{path}.items")
    if list_type is not None and list_type not in ("atomic", "set", "map"):
        yield status.not_supported(f"{path}.x-kubernetes-list-type", list_type, ["atomic", "set", "map"])
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if keys and list_type != "map":
        why, at = "must be map if x-kubernetes-list-map-keys is non-empty", f"{path}.x-kubernetes-list-type"
        yield status.required(at, why) if list_type is None else status.invalid_value(at, list_type, why)
    if list_type == "map":
        yield from _map_items(items, keys, path)
    if list_type in ("set", "map") and isinstance(items, dict):
        yield from _nullable_items(items, keys, f"{path}.items", list_type)


def _of_type(path: str, kind: str, why: str) -> FieldError:
    return status.invalid_value(path, kind, why) if kind else status.required(path, why)


def _set_items(items: Obj, path: str) -> Iterator[FieldError]:
    why = "must be atomic as item of a list with x-kubernetes-list-type=set"
    list_type = items.get("x-kubernetes-list-type")
    if items.get("type") == "array" and list_type not in (None, "atomic"):
        yield status.invalid_value(f"{path}.x-kubernetes-list-type", list_type, why)
    elif items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        yield status.invalid_value(f"{path}.x-kubernetes-map-type", list_type, why)


def _map_items(items: Any, keys: list[str], path: str) -> Iterator[FieldError]:
    at = f"{path}.x-kubernetes-list-map-keys"
    if not keys:
        yield status.required(at, "must not be empty if x-kubernetes-list-type is map")
    if items is None:
        yield status.required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map")
    elif isinstance(items, list):
        why = "must only have a single schema if x-kubernetes-list-type is map"
        yield status.invalid_value(f"{path}.items", items, why)
    elif items.get("type") != "object":
        why = "must be object if parent array's x-kubernetes-list-type is map"
        yield status.invalid_value(f"{path}.items.type", items.get("type") or "", why)
    else:
        seen: set[str] = set()
        for key in keys:
            inner = (items.get("properties") or {}).get(key)
            if inner is None:
                yield status.invalid_value(at, keys, "entries must all be names of item properties")
            elif inner.get("type") in ("array", "object"):
                why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
                yield status.invalid_value(f"{path}.items.properties[{key}].type", "object", why)
            if key in seen:
                yield status.invalid_value(at, keys, "must not contain duplicate entries")
            seen.add(key)


def _nullable_items(items: Obj, keys: list[str], path: str, list_type: str) -> Iterator[FieldError]:
    if items.get("nullable"):
        yield status.forbidden_field(
            f"{path}.nullable", f"cannot be nullable when x-kubernetes-list-type is {list_type}"
        )
    for key in keys if list_type == "map" else ():
        inner = (items.get("properties") or {}).get(key)
        if inner is None:
            continue
        at, what = f"{path}.properties[{key}]", "this property is in x-kubernetes-list-map-keys, so it"
        if key not in (items.get("required") or ()) and inner.get("default") is None:
            yield status.required(f"{at}.default", f"{what} must have a default or be a required property")
        if inner.get("nullable"):
            yield status.forbidden_field(f"{at}.nullable", f"{what} cannot be nullable")


def _rule(schema: Obj, rule: Obj, path: str) -> Iterator[FieldError]:
    from berg.apiserver.crd.field_paths import is_valid

    text, message = (rule.get("rule") or "").strip(), rule.get("message") or ""
    if not text:
        yield status.required(f"{path}.rule", "rule is not specified")
    elif message and not message.strip():
        yield status.invalid_value(f"{path}.message", message, "must be non-empty if specified")
    elif _has_breaks(message.strip()):
        yield status.invalid_value(f"{path}.message", message, "must not contain line breaks")
    elif _has_breaks(text) and not message:
        yield status.required(f"{path}.message", "message must be specified if rule contains line breaks")
    if rule.get("messageExpression") and not rule["messageExpression"].strip():
        yield status.required(f"{path}.messageExpression", "messageExpression must be non-empty if specified")
    if rule.get("reason") is not None and rule["reason"] not in _REASONS:
        yield status.not_supported(f"{path}.reason", rule["reason"], _REASONS)
    at = rule.get("fieldPath") or ""
    if at and not at.strip():
        yield status.invalid_value(f"{path}.fieldPath", at, "must be non-empty if specified")
    if _has_breaks(at):
        yield status.invalid_value(f"{path}.fieldPath", at, "must not contain line breaks")
    if at and not is_valid(at, schema):
        yield status.invalid_value(f"{path}.fieldPath", at, "must be a valid path")


_TEXT_FORMATS = (
    "bsonobjectid uri email hostname ipv4 ipv6 cidr mac uuid uuid3 uuid4 uuid5 isbn isbn10 isbn13 creditcard ssn "
    "hexcolor rgbcolor byte password date duration datetime k8sshortname k8slongname"
)
_FORMATS = {"": _TEXT_FORMATS, "string": _TEXT_FORMATS, "integer": "int32 int64", "number": "float double"}


def unknown_formats(crd: Obj) -> list[str]:
    """Formats that are not looked at."""
    schemas = [(v.get("schema") or {}).get("openAPIV3Schema") for v in crd["spec"].get("versions") or ()]
    return [form for schema in schemas for form in _formats(schema)]


def _formats(schema: Any) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    form, kind = schema.get("format") or "", schema.get("type") or ""
    name = form.replace("-", "") if kind in ("", "string") else form
    if form and name not in _FORMATS.get(kind, "").split():
        yield form
    for inner in _inner(schema):
        yield from _formats(inner)


def _has_breaks(text: str) -> bool:
    return "\n" in text or "\r" in text
