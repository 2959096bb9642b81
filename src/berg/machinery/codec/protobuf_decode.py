"""Protobuf messages to objects, by the field numbers of the schema bundle. Unknown fields are read over."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from berg.machinery import duration
from berg.machinery.clock import rfc3339, rfc3339_micro
from berg.machinery.codec import json, wire
from berg.machinery.codec.protobuf_encode import SCHEMA, wire_type
from berg.machinery.codec.wire import BYTES, FIXED32, FIXED64, VARINT, Malformed
from berg.machinery.decode import NEVER_EMPTY, plan_of, zero
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef, type_at, type_named

_MAX_DEPTH = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Read = Callable[[Obj, Any, int], None]
"""(object in the making, a record's value, depth): takes the value in"""
_plans: dict[str, dict[int, Read]] = {}


def decode_message(type_: TypeDef, data: bytes, depth: int = 0) -> Obj:
    """The bare message as the object that upstream would write. Raises Malformed."""
    obj: Obj = {}
    try:
        _read_into(obj, type_, data, depth)
    except IndexError:
        raise Malformed("unexpected EOF") from None
    except (TypeError, AttributeError):  # a number where a message should be, deep inside a value
        raise Malformed("proto: wrong wireType") from None
    for field in (type_._plan or plan_of(type_))[1]:
        if field.name not in obj:
            obj[field.name] = None if field.pointer else zero(field)
    return obj


def _read_into(obj: Obj, type_: TypeDef, data: bytes, depth: int) -> None:
    """One loop over the records; the same as `wire.records`, without its generality."""
    if depth > _MAX_DEPTH:
        raise Malformed("exceeded max depth")
    plan = _plans.get(type_.name) or _plan(type_)
    at, end = 0, len(data)
    value: Any
    while at < end:
        tag = data[at]
        at += 1
        if tag >= 128:
            tag, at = wire.read_varint(data, at - 1)
        kind = tag & 7
        if kind == BYTES:
            length = data[at]
            at += 1
            if length >= 128:
                length, at = wire.read_varint(data, at - 1)
            start, at = at, at + length
            if at > end:
                raise Malformed("unexpected EOF")
            value = data[start:at]
        elif kind == VARINT:
            value = data[at]
            at += 1
            if value >= 128:
                value, at = wire.read_varint(data, at - 1)
        elif kind in (FIXED64, FIXED32):
            start, at = at, at + (8 if kind == FIXED64 else 4)
            if at > end:
                raise Malformed("unexpected EOF")
            value = data[start:at]
        else:
            raise Malformed(f"proto: illegal wireType {kind}")
        read = plan.get(tag)
        if read is not None:
            read(obj, value, depth)
        elif tag >> 3 == 0:
            raise Malformed(f"proto: illegal tag 0 (wire type {kind})")
        elif any(tag & ~7 | other in plan for other in (VARINT, FIXED64, BYTES)):
            raise Malformed(f"proto: wrong wireType = {kind} for field {tag >> 3}")


def _plan(type_: TypeDef) -> dict[int, Read]:
    """Tag (number and wire type) -> what to do with the record."""
    plan: dict[int, Read] = {f.number << 3 | wire_type(f): _reader(f) for f in type_.fields.values() if f.number}
    for number, row in type_.inlines:
        plan[number << 3 | BYTES] = _inline_reader(type_at(row))
    _plans[type_.name] = plan
    return plan


def _inline_reader(type_: TypeDef) -> Read:
    return lambda obj, value, depth: _read_into(obj, type_, value, depth + 1)


def _reader(field: Field) -> Read:
    name = field.name
    if field.wire == "map":
        return lambda obj, value, depth: _decode_entry(obj.setdefault(name, {}), field, value, depth)
    if field.wire == "array":
        item = field.item
        assert item is not None
        if field.wrapped:
            return lambda obj, value, depth: obj.setdefault(name, []).extend(_strings(value))
        decode_item = _DECODERS[item.wire]

        def append(obj: Obj, value: Any, depth: int) -> None:
            found = obj.get(name)
            if found is None:
                found = obj[name] = []
            found.append(decode_item(item, value, depth))

        return append
    decode = _DECODERS[field.wire]
    if field.wire == "string":
        keep_empty = field.pointer or not field.omitempty

        def text(obj: Obj, value: Any, depth: int) -> None:
            if value or keep_empty:
                obj[name] = value.decode("utf-8", "replace")

        return text
    if field.pointer or not field.omitempty:

        def always(obj: Obj, value: Any, depth: int) -> None:
            obj[name] = decode(field, value, depth)

        return always
    struct = field.wire in NEVER_EMPTY

    def unless_zero(obj: Obj, value: Any, depth: int) -> None:
        new = decode(field, value, depth)
        if new or (struct and new is not None):
            obj[name] = new

    return unless_zero


def _body(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise Malformed("proto: wrong wireType")
    return value


def _strings(data: bytes) -> list[str]:
    return [_text(v) for n, _, v in wire.records(data) if n == 1]


def _decode_entry(target: dict[str, Any], field: Field, data: bytes, depth: int) -> None:
    item = field.item
    assert item is not None
    key, value = "", None
    for number, _, part in wire.records(data):
        if number == 1:
            key = _text(part)
        elif number == 2:
            value = _strings(_body(part)) if item.wire == "array" else _DECODERS[item.wire](item, part, depth)
    target[key] = zero(item) if value is None else value


def _text(value: Any) -> str:
    return _body(value).decode("utf-8", "replace")


def _dec_object(field: Field, value: Any, depth: int) -> Any:
    struct = field.struct
    assert struct is not None
    return decode_message(struct, value, depth + 1)


def _dec_string(field: Field, value: Any, depth: int) -> Any:
    return _text(value)


def _dec_int32(field: Field, value: Any, depth: int) -> Any:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _dec_int64(field: Field, value: Any, depth: int) -> Any:
    return wire.signed(value)


def _dec_bool(field: Field, value: Any, depth: int) -> Any:
    return value != 0


def _dec_double(field: Field, value: Any, depth: int) -> Any:
    return wire.undouble(value)


def _dec_bytes(field: Field, value: Any, depth: int) -> Any:
    return base64.b64encode(value).decode()


def _first(value: bytes, number: int = 1) -> Any:
    return next((v for n, _, v in wire.records(value) if n == number), None)


def _dec_quantity(field: Field, value: Any, depth: int) -> Any:
    text = _first(value)
    return _text(text) if text else "0"


def _dec_int_or_string(field: Field, value: Any, depth: int) -> Any:
    parts: dict[int, Any] = {n: v for n, _, v in wire.records(value)}
    if parts.get(1):
        return _text(parts.get(3, b""))
    return _dec_int32(field, parts.get(2, 0), depth)


@lru_cache(maxsize=4096)
def _moment(value: bytes) -> datetime | None:
    if not value:
        return None
    parts: dict[int, Any] = {n: v for n, _, v in wire.records(value)}
    seconds, nanos = wire.signed(parts.get(1, 0)), wire.signed(parts.get(2, 0))
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError:
        raise Malformed("time out of range") from None


def _dec_time(field: Field, value: Any, depth: int) -> Any:
    moment = _moment(value)
    return moment and rfc3339(moment)


def _dec_microtime(field: Field, value: Any, depth: int) -> Any:
    moment = _moment(value)
    return moment and rfc3339_micro(moment)


def _dec_duration(field: Field, value: Any, depth: int) -> Any:
    return duration.show(wire.signed(_first(value) or 0))


def _dec_raw(field: Field, value: Any, depth: int) -> Any:
    raw = _first(value)
    if not raw:
        return None
    if raw.startswith(b"k8s\x00"):
        from berg.machinery.codec import protobuf

        return protobuf.loads(raw)
    try:
        return json.loads(raw)
    except json.SyntaxFault as e:
        raise Malformed(str(e)) from None


def _dec_schema_or_array(field: Field, value: Any, depth: int) -> Any:
    many = [decode_message(type_named(SCHEMA), _body(v), depth + 1) for n, _, v in wire.records(value) if n == 2]
    if many:
        return many
    one = _first(value)
    return None if one is None else decode_message(type_named(SCHEMA), one, depth + 1)


def _dec_schema_or_bool(field: Field, value: Any, depth: int) -> Any:
    schema = _first(value, 2)
    return _first(value) == 1 if schema is None else decode_message(type_named(SCHEMA), schema, depth + 1)


def _dec_schema_or_strings(field: Field, value: Any, depth: int) -> Any:
    schema = _first(value)
    if schema is not None:
        return decode_message(type_named(SCHEMA), schema, depth + 1)
    return [_text(v) for n, _, v in wire.records(value) if n == 2]


_DECODERS: dict[str, Callable[[Field, Any, int], Any]] = {
    "object": _dec_object,
    "string": _dec_string,
    "int32": _dec_int32,
    "int64": _dec_int64,
    "bool": _dec_bool,
    "double": _dec_double,
    "bytes": _dec_bytes,
    "quantity": _dec_quantity,
    "intorstring": _dec_int_or_string,
    "time": _dec_time,
    "microtime": _dec_microtime,
    "duration": _dec_duration,
    "raw": _dec_raw,
    "fieldsv1": _dec_raw,
    "json": _dec_raw,
    "schemaorarray": _dec_schema_or_array,
    "schemaorbool": _dec_schema_or_bool,
    "schemaorstrings": _dec_schema_or_strings,
}
