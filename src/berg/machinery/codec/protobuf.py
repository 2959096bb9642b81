"""Kubernetes' protobuf: `k8s\\0`, then a runtime.Unknown (apiVersion, kind, the message's bytes).

Encoding gives byte for byte what upstream's generated code gives: fields in the order of their numbers, scalars
that are no pointers in Go also when they are zero, maps sorted. Decoding gives the JSON object that upstream
would write. Both follow the numbers in the schema bundle; only built-in kinds have any.

Source: k8s.io/apimachinery pkg/runtime/serializer/protobuf, the generated.proto files of k8s.io/api.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from berg.machinery import duration
from berg.machinery.clock import parse_rfc3339
from berg.machinery.codec import wire
from berg.machinery.codec.wire import BYTES, FIXED64, VARINT, Malformed, varint
from berg.machinery.decode import _NEVER_EMPTY, _plan, zero
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef, type_at, type_named, type_of

MAGIC = b"k8s\x00"
_MAX_DEPTH = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"


class NoProtobuf(ValueError):
    """The kind has no protobuf form: a custom resource, or unknown."""


def dumps(obj: Obj, type_: TypeDef | None = None) -> bytes:
    """Raises NoProtobuf."""
    api_version, kind = obj.get("apiVersion", ""), obj.get("kind", "")
    return envelope(api_version, kind, dumps_message(type_ or _type(api_version, kind), obj))


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    meta = _bytes(1, api_version.encode()) + _bytes(2, kind.encode())
    return b"".join((MAGIC, _bytes(1, meta), _bytes(2, raw), b"\x1a\x00\x22\x00"))


def dumps_message(type_: TypeDef, obj: Obj) -> bytes:
    """The bare message."""
    return _encode_struct(type_, obj)


def loads(data: bytes) -> Obj:
    """Raises Malformed or NoProtobuf."""
    if not data.startswith(MAGIC):
        raise Malformed("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    api_version = kind = ""
    raw = b""
    for number, _, value in wire.records(data[4:]):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            for inner, _, text in wire.records(value):
                if inner == 1:
                    api_version = _text(text)
                elif inner == 2:
                    kind = _text(text)
        elif number == 2:
            raw = value
    return {"kind": kind, "apiVersion": api_version, **loads_message(_type(api_version, kind), raw)}


def loads_message(type_: TypeDef, data: bytes) -> Obj:
    return _decode_struct(type_, data, 0)


def watch_event(kind: str, obj: bytes) -> bytes:
    """One frame of a protobuf watch: length, then a WatchEvent that carries `obj`, itself in an envelope."""
    event = _bytes(1, kind.encode()) + _bytes(2, _bytes(1, obj))
    return len(event).to_bytes(4, "big") + event


def _type(api_version: str, kind: str) -> TypeDef:
    group, _, version = api_version.rpartition("/")
    found = type_of(group, version, kind)
    if found is None:
        raise NoProtobuf(f'no kind "{kind}" is registered for version "{api_version}"')
    return found


# ---- encoding -------------------------------------------------------------------------------------------


def _bytes(number: int, data: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(data)) + data


Encoder = Callable[[Field, Any], bytes]
_encode_plans: dict[str, list[tuple[Field | None, bytes, int, TypeDef | None]]] = {}


def _encode_plan(type_: TypeDef) -> list[tuple[Field | None, bytes, int, TypeDef | None]]:
    """Fields in the order of their numbers, with their tags; embedded messages stand among them."""
    plan = _encode_plans.get(type_.name)
    if plan is None:
        rows: list[tuple[int, Field | None, TypeDef | None]] = [(f.number, f, None) for f in type_.fields.values()]
        rows += [(number, None, type_at(row)) for number, row in type_.inlines]
        plan = _encode_plans[type_.name] = [
            (f, varint(n << 3 | (_wire_type(f) if f else BYTES)), n, inner)
            for n, f, inner in sorted(rows, key=lambda r: r[0])
            if n
        ]
    return plan


_WIRE_TYPE = {"int32": VARINT, "int64": VARINT, "bool": VARINT, "double": FIXED64}


def _wire_type(field: Field) -> int:
    """Of each of its records: lists are not packed."""
    if field.wire == "array" and field.item is not None and not field.wrapped:
        return _WIRE_TYPE.get(field.item.wire, BYTES)
    return _WIRE_TYPE.get(field.wire, BYTES)


_NO_ZERO = frozenset(("array", "map", "bytes", "json"))


def _encode_struct(type_: TypeDef, obj: Obj) -> bytes:
    out: list[bytes] = []
    for field, tag, _, inner in _encode_plan(type_):
        if field is None:
            assert inner is not None
            body = _encode_struct(inner, obj)
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
                data = b"".join(_bytes(1, v.encode()) for v in value)
                out += (tag, varint(len(data)), data)
        elif kind == "map":
            _encode_map(out, tag, field, value)
        else:
            _put(out, tag, field, _ENCODERS[kind](field, value))
    return b"".join(out)


_NOTHING: Any = None


def _put(out: list[bytes], tag: bytes, field: Field, data: bytes) -> None:
    if field.wire in _WIRE_TYPE:
        out += (tag, data)
    else:
        out += (tag, varint(len(data)), data)


def _encode_map(out: list[bytes], tag: bytes, field: Field, value: dict[str, Any]) -> None:
    item = field.item
    assert item is not None
    value_tag = varint(2 << 3 | _WIRE_TYPE.get(item.wire, BYTES))
    for key in sorted(value):
        entry = [_bytes(1, key.encode())]
        if item.wire == "array":  # a message that wraps the list
            _put(entry, value_tag, item, b"".join(_bytes(1, v.encode()) for v in value[key] or ()))
        else:
            _put(entry, value_tag, item, _ENCODERS[item.wire](item, value[key]))
        body = b"".join(entry)
        out += (tag, varint(len(body)), body)


def _enc_object(field: Field, value: Any) -> bytes:
    struct = field.struct
    assert struct is not None
    return _encode_struct(struct, value or {})


def _enc_string(field: Field, value: Any) -> bytes:
    return str(value or "").encode()


def _enc_int(field: Field, value: Any) -> bytes:
    return varint(value or 0)


def _enc_double(field: Field, value: Any) -> bytes:
    return wire.double(value or 0.0)


def _enc_bytes(field: Field, value: Any) -> bytes:
    return base64.b64decode(value or "")


def _enc_quantity(field: Field, value: Any) -> bytes:
    return _bytes(1, str(value or "0").encode())


def _enc_int_or_string(field: Field, value: Any) -> bytes:
    if isinstance(value, str):
        return b"\x08\x01\x10\x00" + _bytes(3, value.encode())
    return b"\x08\x00\x10" + varint(value or 0) + b"\x1a\x00"


def _enc_time(field: Field, value: Any) -> bytes:
    if not value:
        return b""
    since = parse_rfc3339(value) - _EPOCH
    seconds = since.days * 86400 + since.seconds
    return b"\x08" + varint(seconds) + b"\x10" + varint(since.microseconds * 1000)


def _enc_duration(field: Field, value: Any) -> bytes:
    return b"\x08" + varint(duration.parse(value) if value else 0)


def _enc_raw(field: Field, value: Any) -> bytes:
    return b"" if value is None else _bytes(1, orjson.dumps(value))


def _enc_json(field: Field, value: Any) -> bytes:
    return _bytes(1, orjson.dumps(value))


def _enc_schema_or_array(field: Field, value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join(_bytes(2, _encode_struct(type_named(_SCHEMA), v)) for v in value)
    return _bytes(1, _encode_struct(type_named(_SCHEMA), value))


def _enc_schema_or_bool(field: Field, value: Any) -> bytes:
    if isinstance(value, dict):
        return b"\x08\x01" + _bytes(2, _encode_struct(type_named(_SCHEMA), value))
    return b"\x08\x01" if value else b"\x08\x00"


def _enc_schema_or_strings(field: Field, value: Any) -> bytes:
    if isinstance(value, dict):
        return _bytes(1, _encode_struct(type_named(_SCHEMA), value))
    return b"".join(_bytes(2, v.encode()) for v in value)


_ENCODERS: dict[str, Encoder] = {
    "object": _enc_object,
    "string": _enc_string,
    "int32": _enc_int,
    "int64": _enc_int,
    "bool": _enc_int,
    "double": _enc_double,
    "bytes": _enc_bytes,
    "quantity": _enc_quantity,
    "intorstring": _enc_int_or_string,
    "time": _enc_time,
    "microtime": _enc_time,
    "duration": _enc_duration,
    "raw": _enc_raw,
    "fieldsv1": _enc_raw,
    "json": _enc_json,
    "schemaorarray": _enc_schema_or_array,
    "schemaorbool": _enc_schema_or_bool,
    "schemaorstrings": _enc_schema_or_strings,
}


# ---- decoding -------------------------------------------------------------------------------------------

Decoder = Callable[[Field, Any, int], Any]
_decode_plans: dict[str, dict[int, Field | TypeDef]] = {}


def _decode_plan(type_: TypeDef) -> dict[int, Field | TypeDef]:
    plan = _decode_plans.get(type_.name)
    if plan is None:
        plan = {f.number: f for f in type_.fields.values() if f.number}
        plan.update({number: type_at(row) for number, row in type_.inlines})
        _decode_plans[type_.name] = plan
    return plan


def _decode_struct(type_: TypeDef, data: bytes, depth: int) -> Obj:
    obj: Obj = {}
    _decode_into(obj, type_, data, depth)
    for field in _plan(type_)[1]:
        if field.name not in obj:
            obj[field.name] = None if field.pointer else zero(field)
    return obj


def _decode_into(obj: Obj, type_: TypeDef, data: bytes, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise Malformed("exceeded max depth")
    plan = _decode_plan(type_)
    for number, kind, value in wire.records(data):
        field = plan.get(number)
        if field is None:
            continue  # a field younger than we are
        if isinstance(field, TypeDef):
            _decode_into(obj, field, _body(value), depth + 1)
            continue
        if kind != _wire_type(field):
            raise Malformed(f"proto: wrong wireType = {kind} for field {field.name}")
        if field.wire == "array":
            assert field.item is not None
            target = obj.setdefault(field.name, [])
            if field.wrapped:
                target.extend(_strings(_body(value)))
            else:
                target.append(_DECODERS[field.item.wire](field.item, value, depth))
        elif field.wire == "map":
            _decode_entry(obj.setdefault(field.name, {}), field, _body(value), depth)
        else:
            new = _DECODERS[field.wire](field, value, depth)
            if new or field.pointer or not field.omitempty or (field.wire in _NEVER_EMPTY and new is not None):
                obj[field.name] = new


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
    return _decode_struct(struct, value, depth + 1)


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
    return moment and f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _dec_microtime(field: Field, value: Any, depth: int) -> Any:
    moment = _moment(value)
    return moment and f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"


def _dec_duration(field: Field, value: Any, depth: int) -> Any:
    return duration.show(wire.signed(_first(value) or 0))


def _dec_raw(field: Field, value: Any, depth: int) -> Any:
    raw = _first(value)
    if not raw:
        return None
    if raw.startswith(MAGIC):
        return loads(raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as e:
        raise Malformed(str(e)) from None


def _dec_schema_or_array(field: Field, value: Any, depth: int) -> Any:
    many = [_decode_struct(type_named(_SCHEMA), _body(v), depth + 1) for n, _, v in wire.records(value) if n == 2]
    if many:
        return many
    one = _first(value)
    return None if one is None else _decode_struct(type_named(_SCHEMA), one, depth + 1)


def _dec_schema_or_bool(field: Field, value: Any, depth: int) -> Any:
    schema = _first(value, 2)
    return _first(value) == 1 if schema is None else _decode_struct(type_named(_SCHEMA), schema, depth + 1)


def _dec_schema_or_strings(field: Field, value: Any, depth: int) -> Any:
    schema = _first(value)
    if schema is not None:
        return _decode_struct(type_named(_SCHEMA), schema, depth + 1)
    return [_text(v) for n, _, v in wire.records(value) if n == 2]


_DECODERS: dict[str, Decoder] = {
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
