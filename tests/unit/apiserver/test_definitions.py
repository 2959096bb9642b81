"""What definitions are refused for: each expectation is what upstream's server answers to the same definition."""

from __future__ import annotations

from typing import Any

import pytest

from berg.apiserver.crd import definition_rules
from berg.apiserver.crd.schema_rules import unknown_formats

S: dict[str, Any] = {"type": "string"}
AT = "spec.validation.openAPIV3Schema.properties[spec]"


def spec(schema: Any = None, **version: Any) -> dict[str, Any]:
    body = {"type": "object", "properties": {"spec": schema if schema is not None else {"type": "object"}}}
    one = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": body}, **version}
    names = {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList"}
    conversion = {"strategy": "None"}
    return {"group": "x.io", "scope": "Namespaced", "names": names, "versions": [one], "conversion": conversion}


def told(of: dict[str, Any]) -> list[str]:
    return [str(e) for e in definition_rules.faults(of)]


def ruled(schema: Any, rule: str, **more: Any) -> dict[str, Any]:
    return spec({**schema, "x-kubernetes-validations": [{"rule": rule, **more}]})


FIELDS = {"type": "object", "properties": {"a": {"type": "integer"}, "l": {"type": "array", "items": S}}}
RULE = f"{AT}.x-kubernetes-validations[0].rule"


def as_go(rule: str) -> str:
    return (
        f'Invalid value: {{"Rule":"{rule}","Message":"","MessageExpression":"","Reason":null,"FieldPath":"",'
        '"OptionalOldSelf":null}'
    )


@pytest.mark.parametrize(
    ("schema", "faults"),
    [
        ({"properties": {"a": S}}, [f"{AT}.type: Required value: must not be empty for specified object fields"]),
        ({"type": "array"}, [f"{AT}.items: Required value: must be specified"]),
        (
            {"type": "foo"},
            [
                f'{AT}.type: Unsupported value: "foo": supported values: "array", "boolean", "integer", "number", '
                '"object", "string"'
            ],
        ),
        (
            {"type": "object", "anyOf": [{"type": "object", "default": 1}]},
            [
                f"{AT}.anyOf[0].default: Forbidden: must be undefined to be structural",
                f"{AT}.anyOf[0].type: Forbidden: must be empty to be structural",
            ],
        ),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, []),
        ({"type": "object", "anyOf": [{"properties": {"z": {"minLength": 1}}}]}, []),
        (
            {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"},
            [f"{AT}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"],
        ),
        (
            {"type": "string", "default": 1},
            [f'{AT}.default: Invalid value: "integer":  in body must be of type string: "integer"'],
        ),
        (
            {"type": "object", "properties": {"b": S}, "default": {"c": "x"}},
            [f'{AT}.default: Invalid value: {{"c":"x"}}: must not have unknown fields'],
        ),
        (
            {"type": "string", "pattern": "a("},
            [
                f'{AT}.pattern: Invalid value: "a(": must be a valid regular expression, but isn\'t: error parsing '
                "regexp: missing closing ): `a(`"
            ],
        ),
        (
            {"type": "object", "x-kubernetes-embedded-resource": True},
            [
                f"{AT}.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without "
                "x-kubernetes-preserve-unknown-fields"
            ],
        ),
    ],
)
def test_schemas(schema: Any, faults: list[str]) -> None:
    assert told(spec(schema)) == faults


@pytest.mark.parametrize(
    ("of", "faults"),
    [
        (ruled(FIELDS, "self.a == 1"), []),
        (
            ruled(FIELDS, "self.z == 1"),
            [
                f"{RULE}: {as_go('self.z == 1')}: compilation failed: ERROR: <input>:1:5: undefined field 'z'\n"
                " | self.z == 1\n | ....^"
            ],
        ),
        (ruled(FIELDS, "self.a"), [f"{RULE}: {as_go('self.a')}: cel expression must evaluate to a bool"]),
        (
            ruled(FIELDS, "self.l.all(x, self.l.exists(y, x == y))"),
            [
                f"{RULE}: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying "
                "the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are "
                "declared)",
                "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Forbidden: "
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
                "spec.validation.openAPIV3Schema: Forbidden: x-kubernetes-validations estimated rule cost total for "
                "entire OpenAPIv3 schema exceeds budget by factor of more than 100x (try simplifying the rule, or "
                "adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
            ],
        ),
        (
            ruled(FIELDS, "self.a == 1", optionalOldSelf=True),
            [
                f"{AT}.x-kubernetes-validations[0].optionalOldSelf: Invalid value: true: may not be set if oldSelf is "
                "not used in rule"
            ],
        ),
        (
            ruled(FIELDS, "self.a == 1", fieldPath=".z"),
            [f'{AT}.x-kubernetes-validations[0].fieldPath: Invalid value: ".z": must be a valid path'],
        ),
    ],
)
def test_rules(of: dict[str, Any], faults: list[str]) -> None:
    assert told(of) == faults


def test_what_is_limited_costs_less() -> None:
    items = {"type": "array", "maxItems": 10, "items": {**S, "maxLength": 10}}
    schema = {"type": "object", "properties": {"l": items}}
    assert told(ruled(schema, "self.l.all(x, self.l.exists(y, x == y))")) == []


def test_old_values_are_not_known_in_atomic_lists() -> None:
    inner = {**S, "maxLength": 5, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}
    (fault,) = told(spec({"type": "array", "maxItems": 3, "items": inner}))
    assert fault.endswith(f"oldSelf cannot be used on the uncorrelatable portion of the schema within {AT}")


def test_parts_that_differ_between_versions_are_told_by_version() -> None:
    of = spec()
    of["versions"].append({**of["versions"][0], "name": "v2", "storage": False, "additionalPrinterColumns": [{}]})
    assert told(of) == [
        "spec.versions[1].additionalPrinterColumns[0].name: Required value",
        "spec.versions[1].additionalPrinterColumns[0].type: Required value: must be one of "
        "boolean,date,integer,number,string",
        "spec.versions[1].additionalPrinterColumns[0].JSONPath: Required value",
    ]


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (".spec.a", ""),
        ("spec.a", "is an invalid path: expected [ or . but got: spec"),
        (".spec.z", "is an invalid path: does not refer to a valid field"),
        (".spec['a']", "is an invalid path: array notation is not allowed"),
        (
            ".spec.l",
            "must point to a field of type string, boolean or integer. Enum string fields and strings with formats "
            "are allowed.",
        ),
    ],
)
def test_selectable_fields(path: str, fault: str) -> None:
    found = told(spec(FIELDS, selectableFields=[{"jsonPath": path}]))
    assert [f.rpartition(f'"{path}": ')[2] for f in found] == ([fault] if fault else [])


def test_formats_that_are_not_known() -> None:
    of = spec({"type": "object", "properties": {"a": {**S, "format": "foo"}, "b": {**S, "format": "date-time"}}})
    assert unknown_formats({"spec": of}) == ["foo"]
