"""Objects to protobuf messages, by the field numbers of the schema bundle."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
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

Write = Callable[[list[bytes], Any], None]
"""appends a value, tag and all, to the message in the making"""
_plans: dict[str, list[tuple[str | None, Write, bytes | None]]] = {}


def encode_message(type_: TypeDef, obj: Obj) -> bytes:
    """The bare message, byte for byte as upstream's generated code writes it."""
    out: list[bytes] = []
    get = obj.get
    for name, write, absent in _plans.get(type_.name) or _plan(type_):
        if name is None:  # an embedded message: its fields stand among ours
            write(out, obj)
            continue
        value = get(name)
        if value is not None:
            write(out, value)
        elif absent is not None:
            out.append(absent)
    return b"".join(out)


def _plan(type_: TypeDef) -> list[tuple[str | None, Write, bytes | None]]:
    """Fields in the order of their numbers: (name in JSON, how to write it, what is written when it is missing)."""
    steps: list[tuple[int, str | None, Write, bytes | None]] = [
        (f.number, f.name, _writer(f), _absent(f)) for f in type_.fields.values() if f.number
    ]
    steps += [(n, None, _message_writer(n, type_at(row)), None) for n, row in type_.inlines]
    plan = _plans[type_.name] = [s[1:] for s in sorted(steps, key=lambda s: s[0])]
    return plan


WIRE_TYPE = {"int32": VARINT, "int64": VARINT, "bool": VARINT, "double": FIXED64}
_LENGTHS = [varint(n) for n in range(4096)]


def _length(n: int) -> bytes:
    return _LENGTHS[n] if n < 4096 else varint(n)


def wire_type(field: Field) -> int:
    """Of each of its records: lists are not packed."""
    if field.wire == "array" and field.item is not None and not field.wrapped:
        return WIRE_TYPE.get(field.item.wire, BYTES)
    return WIRE_TYPE.get(field.wire, BYTES)


def _absent(field: Field) -> bytes | None:
    """Go writes what is no pointer also when nobody has set it."""
    if field.pointer or field.wire in ("array", "map", "bytes", "json"):
        return None
    out: list[bytes] = []
    _value_writer(varint(field.number << 3 | wire_type(field)), field)(out, None)
    return b"".join(out)


def _writer(field: Field) -> Write:
    tag = varint(field.number << 3 | wire_type(field))
    if field.wire == "map":
        return _map_writer(tag, field)
    if field.wire != "array":
        return _value_writer(tag, field)
    item = field.item
    assert item is not None
    if field.wrapped:
        return _wrapped_writer(tag)
    one = _value_writer(tag, item)

    def many(out: list[bytes], value: Any) -> None:
        for element in value:
            one(out, element)

    return many


def _value_writer(tag: bytes, field: Field) -> Write:
    encode = _ENCODERS[field.wire]
    if field.wire in WIRE_TYPE:
        return lambda out, value: out.extend((tag, encode(field, value)))
    if field.wire == "string":

        def text(out: list[bytes], value: Any) -> None:
            data = value.encode() if value else b""
            out += (tag, _length(len(data)), data)

        return text

    def sized(out: list[bytes], value: Any) -> None:
        data = encode(field, value)
        out += (tag, _length(len(data)), data)

    return sized


def _message_writer(number: int, type_: TypeDef) -> Write:
    tag = varint(number << 3 | BYTES)

    def write(out: list[bytes], obj: Any) -> None:
        data = encode_message(type_, obj)
        out += (tag, _length(len(data)), data)

    return write


def _wrapped_writer(tag: bytes) -> Write:
    """A message that has nothing but the list."""

    def write(out: list[bytes], value: Any) -> None:
        data = b"".join(record(1, v.encode()) for v in value or ())
        out += (tag, _length(len(data)), data)

    return write


def _map_writer(tag: bytes, field: Field) -> Write:
    item = field.item
    assert item is not None
    value_tag = varint(2 << 3 | wire_type(item))
    put = _wrapped_writer(value_tag) if item.wire == "array" else _value_writer(value_tag, item)

    def write(out: list[bytes], value: Any) -> None:
        for key in sorted(value):
            name = key.encode()
            entry = [b"\x0a", _length(len(name)), name]
            put(entry, value[key])
            data = b"".join(entry)
            out += (tag, _length(len(data)), data)

    return write


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
    return _moment(value)


@lru_cache(maxsize=4096)
def _moment(text: str) -> bytes:
    since = parse_rfc3339(text) - _EPOCH
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


_ENCODERS: dict[str, Callable[[Field, Any], bytes]] = {
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
