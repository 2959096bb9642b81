"""Objects to protobuf messages, by the field numbers of the schema bundle."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from berg.machinery import duration
from berg.machinery.clock import parse_rfc3339
from berg.machinery.codec import wire
from berg.machinery.codec.wire import BYTES, FIXED64, VARINT, record, varint
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef, type_at, type_named

SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Encoder = Callable[[Field, Any], bytes]
_encode_plans: dict[str, list[tuple[Field | None, bytes, int, TypeDef | None]]] = {}


def _encode_plan(type_: TypeDef) -> list[tuple[Field | None, bytes, int, TypeDef | None]]:
    """Fields in the order of their numbers, with their tags; embedded messages stand among them."""
    plan = _encode_plans.get(type_.name)
    if plan is None:
        rows: list[tuple[int, Field | None, TypeDef | None]] = [(f.number, f, None) for f in type_.fields.values()]
        rows += [(number, None, type_at(row)) for number, row in type_.inlines]
        plan = _encode_plans[type_.name] = [
            (f, varint(n << 3 | (wire_type(f) if f else BYTES)), n, inner)
            for n, f, inner in sorted(rows, key=lambda r: r[0])
            if n
        ]
    return plan


WIRE_TYPE = {"int32": VARINT, "int64": VARINT, "bool": VARINT, "double": FIXED64}


def wire_type(field: Field) -> int:
    """Of each of its records: lists are not packed."""
    if field.wire == "array" and field.item is not None and not field.wrapped:
        return WIRE_TYPE.get(field.item.wire, BYTES)
    return WIRE_TYPE.get(field.wire, BYTES)


_NO_ZERO = frozenset(("array", "map", "bytes", "json"))


def encode_message(type_: TypeDef, obj: Obj) -> bytes:
    """The bare message, byte for byte as upstream's generated code writes it."""
    out: list[bytes] = []
    for field, tag, _, inner in _encode_plan(type_):
        if field is None:
            assert inner is not None
            body = encode_message(inner, obj)
            out += (tag, varint(len(body)), body)
            continue
        value = obj.get(field.name)
        if value is None:
            if field.pointer or field.wire in _NO_ZERO:
                continue
            value = _NOTHING
        kind = field.wire
        if kind == "string":
            data = value.encode() if value is not _NOTHING else b""
            out += (tag, varint(len(data)), data)
        elif kind == "array":
            if not field.wrapped:
                item = field.item
                assert item is not None
                encode = _ENCODERS[item.wire]
                for element in value:
                    _put(out, tag, item, encode(item, element))
            else:
                data = b"".join(record(1, v.encode()) for v in value)
                out += (tag, varint(len(data)), data)
        elif kind == "map":
            _encode_map(out, tag, field, value)
        else:
            _put(out, tag, field, _ENCODERS[kind](field, value))
    return b"".join(out)


_NOTHING: Any = None


def _put(out: list[bytes], tag: bytes, field: Field, data: bytes) -> None:
    if field.wire in WIRE_TYPE:
        out += (tag, data)
    else:
        out += (tag, varint(len(data)), data)


def _encode_map(out: list[bytes], tag: bytes, field: Field, value: dict[str, Any]) -> None:
    item = field.item
    assert item is not None
    value_tag = varint(2 << 3 | WIRE_TYPE.get(item.wire, BYTES))
    for key in sorted(value):
        entry = [record(1, key.encode())]
        if item.wire == "array":  # a message that wraps the list
            _put(entry, value_tag, item, b"".join(record(1, v.encode()) for v in value[key] or ()))
        else:
            _put(entry, value_tag, item, _ENCODERS[item.wire](item, value[key]))
        body = b"".join(entry)
        out += (tag, varint(len(body)), body)


def _as_object(field: Field, value: Any) -> bytes:
    struct = field.struct
    assert struct is not None
    return encode_message(struct, value or {})


def _as_string(field: Field, value: Any) -> bytes:
    return str(value or "").encode()


def _as_int(field: Field, value: Any) -> bytes:
    return varint(value or 0)


def _as_double(field: Field, value: Any) -> bytes:
    return wire.double(value or 0.0)


def _as_bytes(field: Field, value: Any) -> bytes:
    return base64.b64decode(value or "")


def _as_quantity(field: Field, value: Any) -> bytes:
    return record(1, str(value or "0").encode())


def _as_int_or_string(field: Field, value: Any) -> bytes:
    if isinstance(value, str):
        return b"\x08\x01\x10\x00" + record(3, value.encode())
    return b"\x08\x00\x10" + varint(value or 0) + b"\x1a\x00"


def _as_time(field: Field, value: Any) -> bytes:
    if not value:
        return b""
    since = parse_rfc3339(value) - _EPOCH
    seconds = since.days * 86400 + since.seconds
    return b"\x08" + varint(seconds) + b"\x10" + varint(since.microseconds * 1000)


def _as_duration(field: Field, value: Any) -> bytes:
    return b"\x08" + varint(duration.parse(value) if value else 0)


def _as_raw(field: Field, value: Any) -> bytes:
    return b"" if value is None else record(1, orjson.dumps(value))


def _as_json(field: Field, value: Any) -> bytes:
    return record(1, orjson.dumps(value))


def _as_schema_or_array(field: Field, value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join(record(2, encode_message(type_named(SCHEMA), v)) for v in value)
    return record(1, encode_message(type_named(SCHEMA), value))


def _as_schema_or_bool(field: Field, value: Any) -> bytes:
    if isinstance(value, dict):
        return b"\x08\x01" + record(2, encode_message(type_named(SCHEMA), value))
    return b"\x08\x01" if value else b"\x08\x00"


def _as_schema_or_strings(field: Field, value: Any) -> bytes:
    if isinstance(value, dict):
        return record(1, encode_message(type_named(SCHEMA), value))
    return b"".join(record(2, v.encode()) for v in value)


_ENCODERS: dict[str, Encoder] = {
    "object": _as_object,
    "string": _as_string,
    "int32": _as_int,
    "int64": _as_int,
    "bool": _as_int,
    "double": _as_double,
    "bytes": _as_bytes,
    "quantity": _as_quantity,
    "intorstring": _as_int_or_string,
    "time": _as_time,
    "microtime": _as_time,
    "duration": _as_duration,
    "raw": _as_raw,
    "fieldsv1": _as_raw,
    "json": _as_json,
    "schemaorarray": _as_schema_or_array,
    "schemaorbool": _as_schema_or_bool,
    "schemaorstrings": _as_schema_or_strings,
}
