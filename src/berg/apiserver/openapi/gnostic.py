"""OpenAPI documents as protobuf, which client-go asks for first.

`V2` and `V3` say, for each message, which JSON key is which field; everything is written by these tables. How a value
is written:

    s b i d     text, boolean, integer, double; left out when empty
    ss          repeated text
    any anys    text that is JSON, and so YAML, in a message; repeated
    NAME *NAME  that message; repeated
    {n}NAME     a map: a message whose field n repeats (1: the key, 2: NAME)

A message that is one of several is in `_CHOICES`. Other keys begin with `x-` or are not told.

Source: gnostic's OpenAPIv2.proto and OpenAPIv3.proto (names and numbers), and its compiler (what a value becomes).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import orjson

from berg.machinery.codec.wire import varint

Table = dict[str, dict[str, tuple[int, str]]]

_LIMITS = (
    ("multipleOf", "d"),
    ("maximum", "d"),
    ("exclusiveMaximum", "b"),
    ("minimum", "d"),
    ("exclusiveMinimum", "b"),
    ("maxLength", "i"),
    ("minLength", "i"),
    ("pattern", "s"),
    ("maxItems", "i"),
    ("minItems", "i"),
    ("uniqueItems", "b"),
    ("maxProperties", "i"),
    ("minProperties", "i"),
)


def _limits(first: int) -> dict[str, tuple[int, str]]:
    return {name: (first + i, how) for i, (name, how) in enumerate(_LIMITS)}


def _methods(first: int) -> dict[str, tuple[int, str]]:
    names = ["get", "put", "post", "delete", "options", "head", "patch"]
    return {name: (first + i, "Operation") for i, name in enumerate(names)}


_PARAMETER: dict[str, tuple[int, str]] = {
    "required": (1, "b"),
    "in": (2, "s"),
    "description": (3, "s"),
    "name": (4, "s"),
}
V2: Table = {
    "Document": {
        "swagger": (1, "s"),
        "info": (2, "Info"),
        "paths": (8, "{2}PathItem"),
        "definitions": (9, "{1}Schema"),
        "parameters": (10, "{1}Parameter"),
        "security": (12, "*SecurityRequirement"),
        "securityDefinitions": (13, "{1}SecurityDefinition"),
    },
    "Info": {"title": (1, "s"), "version": (2, "s"), "description": (3, "s")},
    "ApiKey": {"type": (1, "s"), "name": (2, "s"), "in": (3, "s"), "description": (4, "s")},
    "PathItem": {**_methods(2), "parameters": (9, "*ParametersItem")},
    "Operation": {
        "tags": (1, "ss"),
        "summary": (2, "s"),
        "description": (3, "s"),
        "operationId": (5, "s"),
        "produces": (6, "ss"),
        "consumes": (7, "ss"),
        "parameters": (8, "*ParametersItem"),
        "responses": (9, "{1}ResponseValue"),
        "schemes": (10, "ss"),
        "deprecated": (11, "b"),
        "x-": (13, "extensions"),
    },
    "Reference": {"$ref": (1, "s"), "description": (2, "s")},
    "BodyParameter": {
        "description": (1, "s"),
        "name": (2, "s"),
        "in": (3, "s"),
        "required": (4, "b"),
        "schema": (5, "Schema"),
    },
    "QueryParameter": {**_PARAMETER, "type": (6, "s"), "format": (7, "s"), "uniqueItems": (20, "b")},
    "PathParameter": {**_PARAMETER, "type": (5, "s"), "format": (6, "s"), "uniqueItems": (19, "b")},
    "Response": {"description": (1, "s"), "schema": (2, "SchemaItem")},
    "Schema": {
        "$ref": (1, "s"),
        "format": (2, "s"),
        "title": (3, "s"),
        "description": (4, "s"),
        "default": (5, "any"),
        **_limits(6),
        "required": (19, "ss"),
        "enum": (20, "anys"),
        "additionalProperties": (21, "Additional"),
        "type": (22, "Type"),
        "items": (23, "Items"),
        "allOf": (24, "*Schema"),
        "properties": (25, "{1}Schema"),
        "externalDocs": (29, "ExternalDocs"),
        "example": (30, "any"),
        "x-": (31, "extensions"),
    },
    "ExternalDocs": {"description": (1, "s"), "url": (2, "s")},
}
V3: Table = {
    "Document": {
        "openapi": (1, "s"),
        "info": (2, "Info"),
        "paths": (4, "{1}PathItem"),
        "components": (5, "Components"),
        "security": (6, "*SecurityRequirement"),
    },
    "Info": {"title": (1, "s"), "description": (2, "s"), "version": (6, "s")},
    "Components": {"schemas": (1, "{1}SchemaItem"), "securitySchemes": (7, "{1}SecurityScheme")},
    "ApiKey": {"type": (1, "s"), "description": (2, "s"), "name": (3, "s"), "in": (4, "s"), "scheme": (5, "s")},
    "PathItem": {**_methods(4), "parameters": (13, "*ParametersItem")},
    "Operation": {
        "tags": (1, "ss"),
        "summary": (2, "s"),
        "description": (3, "s"),
        "operationId": (5, "s"),
        "parameters": (6, "*ParametersItem"),
        "requestBody": (7, "RequestBodyItem"),
        "responses": (8, "{2}ResponseValue"),
        "deprecated": (10, "b"),
        "x-": (13, "extensions"),
    },
    "Reference": {"$ref": (1, "s"), "summary": (2, "s"), "description": (3, "s")},
    "Parameter": {
        "name": (1, "s"),
        "in": (2, "s"),
        "description": (3, "s"),
        "required": (4, "b"),
        "schema": (10, "SchemaItem"),
    },
    "RequestBody": {"description": (1, "s"), "content": (2, "{1}MediaType"), "required": (3, "b")},
    "Response": {"description": (1, "s"), "content": (3, "{1}MediaType")},
    "MediaType": {"schema": (1, "SchemaItem")},
    "Schema": {
        "nullable": (1, "b"),
        "externalDocs": (6, "ExternalDocs"),
        "example": (7, "any"),
        "deprecated": (8, "b"),
        "title": (9, "s"),
        **_limits(10),
        "required": (23, "ss"),
        "enum": (24, "anys"),
        "type": (25, "s"),
        "allOf": (26, "*SchemaItem"),
        "oneOf": (27, "*SchemaItem"),
        "anyOf": (28, "*SchemaItem"),
        "not": (29, "Schema"),
        "items": (30, "Items"),
        "properties": (31, "{1}SchemaItem"),
        "additionalProperties": (32, "Additional"),
        "default": (33, "Default"),
        "description": (34, "s"),
        "format": (35, "s"),
        "x-": (36, "extensions"),
    },
    "ExternalDocs": {"description": (1, "s"), "url": (2, "s")},
}


def _or_reference(kind: str) -> Choice:
    return lambda value: (2, "Reference") if "$ref" in value else (1, kind)


def _default(value: Any) -> tuple[int, str] | None:
    """There is no way to say an object or a list."""
    if isinstance(value, bool):
        return (2, "b")
    if isinstance(value, str):
        return (3, "s")
    return (1, "d") if isinstance(value, int | float) else None


Choice = Callable[[Any], "tuple[int, str] | None"]
_CHOICES: dict[str, dict[str, Choice]] = {
    "v2": {
        "ParametersItem": _or_reference("Parameter"),
        "Parameter": lambda value: (1, "BodyParameter") if value["in"] == "body" else (2, "NonBodyParameter"),
        "NonBodyParameter": lambda value: (4, "PathParameter") if value["in"] == "path" else (3, "QueryParameter"),
        "ResponseValue": _or_reference("Response"),
        "SchemaItem": lambda value: (1, "Schema"),
        "Additional": lambda value: (2, "b") if isinstance(value, bool) else (1, "Schema"),
        "Items": lambda value: (1, "Schema"),
        "Type": lambda value: (1, "s" if isinstance(value, str) else "ss"),
        "SecurityDefinition": lambda value: (2, "ApiKey"),
        "Strings": lambda value: (1, "ss"),
    },
    "v3": {
        "ParametersItem": _or_reference("Parameter"),
        "RequestBodyItem": _or_reference("RequestBody"),
        "ResponseValue": _or_reference("Response"),
        "SchemaItem": _or_reference("Schema"),
        "Additional": lambda value: (2, "b") if isinstance(value, bool) else (1, "SchemaItem"),
        "Items": lambda value: (1, "SchemaItem"),
        "Default": _default,
        "SecurityScheme": lambda value: (1, "ApiKey"),
        "Strings": lambda value: (1, "ss"),
    },
}


def encode(document: dict[str, Any], version: str) -> bytes:
    """`version`: v2 or v3."""
    return _Encoder(V2 if version == "v2" else V3, _CHOICES[version]).value("Document", document)


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def _any(value: Any) -> bytes:
    return _field(2, orjson.dumps(value) + b"\n")


class _Encoder:
    def __init__(self, table: Table, choices: dict[str, Choice]) -> None:
        self.table, self.choices = table, choices

    def value(self, kind: str, value: Any) -> bytes:
        """The content of a message."""
        if kind[0] == "{":
            repeated, _, inner = kind[1:].partition("}")
            return b"".join(
                _field(int(repeated), _field(1, name.encode()) + _field(2, self.value(inner, one)))
                for name, one in value.items()
            )
        if kind == "SecurityRequirement":
            return self.value("{1}Strings", value)
        choice = self.choices.get(kind)
        if choice is not None:
            chosen = choice(value)
            return b"" if chosen is None else self.field(*chosen, value, always=True)
        fields = self.table[kind]
        out: list[tuple[int, bytes]] = []
        for key, inner in value.items():
            if key.startswith("x-"):
                if "x-" in fields:
                    number = fields["x-"][0]
                    out.append((number, _field(number, _field(1, key.encode()) + _field(2, _any(inner)))))
                continue
            known = fields.get(key)
            if known is not None and inner is not None:
                out.append((known[0], self.field(known[0], known[1], inner)))
        out.sort(key=lambda part: part[0])
        return b"".join(part for _, part in out)

    def field(self, number: int, how: str, value: Any, *, always: bool = False) -> bytes:
        match how:
            case "ss":
                return b"".join(_field(number, one.encode()) for one in value)
            case "any":
                return _field(number, _any(value))
            case "anys":
                return b"".join(_field(number, _any(one)) for one in value)
            case "s" | "b" | "i" | "d" if not value and not always:
                return b""
            case "s":
                return _field(number, str(value).encode())
            case "b":
                return varint(number << 3) + (b"\x01" if value else b"\x00")
            case "i":
                return varint(number << 3) + varint(int(value))
            case "d":
                return varint(number << 3 | 1) + struct.pack("<d", float(value))
        if how[0] == "*":
            return b"".join(_field(number, self.value(how[1:], one)) for one in value)
        return _field(number, self.value(how, value))
