"""OpenAPI v2 as protobuf, which older ways of client-go insist on.

`MESSAGES` says, for each message, which JSON key is which field; everything is written by that table. `any` values
go as text that is JSON, and so YAML.

Source: gnostic's OpenAPIv2.proto (names and numbers).
"""

from __future__ import annotations

import struct
from typing import Any

import orjson

from berg.machinery.codec.wire import varint

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
ANSWER_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

# key → (number, how): s string, b bool, i integer, d double, ss strings, any, anys, or a message's name; `*` before a
# name: repeated, `{}`: a map of names to that message, wrapped in one message of its own
_PARAMETER: dict[str, tuple[int, str]] = {
    "required": (1, "b"),
    "in": (2, "s"),
    "description": (3, "s"),
    "name": (4, "s"),
}
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Document": {
        "swagger": (1, "s"),
        "info": (2, "Info"),
        "paths": (8, "Paths"),
        "definitions": (9, "{}Schema"),
    },
    "Info": {"title": (1, "s"), "version": (2, "s"), "description": (3, "s")},
    "PathItem": {
        "get": (2, "Operation"),
        "put": (3, "Operation"),
        "post": (4, "Operation"),
        "delete": (5, "Operation"),
        "options": (6, "Operation"),
        "head": (7, "Operation"),
        "patch": (8, "Operation"),
        "parameters": (9, "*Parameter"),
    },
    "Operation": {
        "tags": (1, "ss"),
        "description": (3, "s"),
        "operationId": (5, "s"),
        "produces": (6, "ss"),
        "consumes": (7, "ss"),
        "parameters": (8, "*Parameter"),
        "responses": (9, "Responses"),
        "schemes": (10, "ss"),
        "x-": (13, "extensions"),
    },
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
        "multipleOf": (6, "d"),
        "maximum": (7, "d"),
        "exclusiveMaximum": (8, "b"),
        "minimum": (9, "d"),
        "exclusiveMinimum": (10, "b"),
        "maxLength": (11, "i"),
        "minLength": (12, "i"),
        "pattern": (13, "s"),
        "maxItems": (14, "i"),
        "minItems": (15, "i"),
        "uniqueItems": (16, "b"),
        "maxProperties": (17, "i"),
        "minProperties": (18, "i"),
        "required": (19, "ss"),
        "enum": (20, "anys"),
        "additionalProperties": (21, "Additional"),
        "type": (22, "Type"),
        "items": (23, "Items"),
        "properties": (25, "{}Schema"),
        "x-": (31, "extensions"),
    },
}


def encode(document: dict[str, Any]) -> bytes:
    return _message("Document", document)


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _any(value: Any) -> bytes:
    return _field(2, orjson.dumps(value))


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _field(2, value)


def _message(kind: str, value: dict[str, Any]) -> bytes:
    fields = MESSAGES[kind]
    out: list[tuple[int, bytes]] = []
    for key, inner in value.items():
        if key.startswith("x-"):
            if "x-" in fields:
                number = fields["x-"][0]
                out.append((number, _field(number, _named(key, _any(inner)))))
            continue
        known = fields.get(key)
        if known is not None and inner is not None:
            out.append((known[0], _value(known[0], known[1], inner)))
    out.sort(key=lambda part: part[0])
    return b"".join(part for _, part in out)


def _value(number: int, how: str, value: Any) -> bytes:
    match how:
        case "s":
            return _text(number, str(value))
        case "b":
            return varint(number << 3) + (b"\x01" if value else b"\x00")
        case "i":
            return varint(number << 3) + varint(int(value))
        case "d":
            return varint(number << 3 | 1) + struct.pack("<d", float(value))
        case "ss":
            return b"".join(_text(number, v) for v in value)
        case "any":
            return _field(number, _any(value))
        case "anys":
            return b"".join(_field(number, _any(v)) for v in value)
        case "{}Schema":
            return _field(number, b"".join(_field(1, _named(k, _message("Schema", v))) for k, v in value.items()))
        case "*Parameter":
            return b"".join(_field(number, _field(1, _parameter(v))) for v in value)
    return _field(number, _special(how, value))


def _special(how: str, value: Any) -> bytes:
    match how:
        case "Paths":
            return b"".join(_field(2, _named(k, _message("PathItem", v))) for k, v in value.items())
        case "Responses":
            return b"".join(_field(1, _named(k, _field(1, _message("Response", v)))) for k, v in value.items())
        case "SchemaItem":
            return _field(1, _message("Schema", value))
        case "Additional":
            return b"\x10\x01" if value is True else _field(1, _message("Schema", value or {}))
        case "Type":
            return b"".join(_text(1, t) for t in ([value] if isinstance(value, str) else value))
        case "Items":
            return _field(1, _message("Schema", value))
    return _message(how, value)


def _parameter(value: dict[str, Any]) -> bytes:
    if value["in"] == "body":
        return _field(1, _message("BodyParameter", value))
    kind, number = ("PathParameter", 4) if value["in"] == "path" else ("QueryParameter", 3)
    return _field(2, _field(number, _message(kind, value)))
