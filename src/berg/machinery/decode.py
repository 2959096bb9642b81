"""A JSON object as upstream's typed decoding would understand it and write it again.

`decode(type, obj)` walks an object once, in place, with a built-in type. It

* raises `WrongType` with upstream's words when a value cannot be decoded into its field,
* drops fields that the type does not know and collects their paths,
* leaves the object as Go's decode-encode round trip would: nulls and empty optional fields gone, structs and
  required zero values present, quantities and times in canonical form.

The last point is what makes an object stored by Berg equal to one stored by upstream. Custom resources are
not typed upstream and do not come here: see `berg.machinery.prune`.

Source: encoding/json as in sigs.k8s.io/json; the UnmarshalJSON and MarshalJSON of apimachinery's types.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

import orjson

from berg.machinery import quantity
from berg.machinery.clock import parse_rfc3339, rfc3339, rfc3339_micro
from berg.machinery.codec.json import clone
from berg.machinery.memo import REPEATED, Memo, key_of
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef, type_at

_INT32, _INT64 = 2**31, 2**63
_specs: Memo[bytes] = Memo()
"""what was sent and is sound → what it is when decoded"""
_MAX_UNKNOWN = 100


class WrongType(ValueError):
    """A value of the wrong type; the message is upstream's decoder's."""


def decode(type_: TypeDef, obj: Obj) -> list[str]:
    """Makes `obj` canonical in place; returns the paths of the fields it dropped because they are unknown."""
    unknown: list[str] = []
    _struct(type_, obj, "", unknown, None)
    return unknown


def validate_types(type_: TypeDef, obj: Obj) -> list[str]:
    """The messages of strict decoding (`unknown field "spec.foo"`); raises WrongType. Changes nothing."""
    return [f'unknown field "{path}"' for path in decode(type_, clone(obj))]


class _Where:
    """The chain of fields above a value, only read when something is wrong."""

    __slots__ = ("name", "struct", "up")

    def __init__(self, up: _Where | None, struct: TypeDef, name: str) -> None:
        self.up, self.struct, self.name = up, struct, name

    def names(self) -> str:
        """The path as Go's decoder keeps it: embedded structs have a place in it, list indexes have none."""
        own = _in_embedded(self.struct, self.name)
        return f"{self.up.names()}.{own}" if self.up else own


def _in_embedded(struct: TypeDef, name: str) -> str:
    """A field's name behind those of the embedded structs that it stands in."""
    for _, row in struct.inlines:
        embedded = type_at(row)
        if name in embedded.fields and struct.fields[name].number == 0:
            return f"{embedded.short}.{_in_embedded(embedded, name)}"
    if name in ("kind", "apiVersion") and struct.fields[name].number == 0:
        return f"TypeMeta.{name}"
    return name


def _wrong(value: Any, field: Field, where: _Where | None, go: str = "") -> WrongType:
    kind = {dict: "object", list: "array", str: "string", bool: "bool"}.get(type(value), "number")
    if kind == "number" and field.wire in ("int32", "int64") and not go:
        kind = f"number {value}"
    go = go or field.go
    if where is None:
        return WrongType(f"json: cannot unmarshal {kind} into Go value of type {go}")
    return WrongType(
        f"json: cannot unmarshal {kind} into Go struct field {where.struct.short}.{where.names()} of type {go}"
    )


# ---- structs, lists, maps -------------------------------------------------------------------------------

Plan = tuple[dict[str, "tuple[Field, bool, Callable[..., Any]]"], tuple[Field, ...]]


def plan_of(type_: TypeDef) -> Plan:
    """Per type, once: name -> (field, dropped when empty, how to decode), and the fields that must not be missing."""
    plan: Plan | None = type_._plan
    if plan is None:
        entries = {n: (f, f.omitempty and not f.pointer, _DECODERS[f.wire]) for n, f in type_.fields.items()}
        always = tuple(f for f in type_.fields.values() if _always(f))
        plan = type_._plan = (entries, always)
    return plan


NEVER_EMPTY = frozenset(("object", "quantity", "time", "microtime", "intorstring", "raw", "duration", "fieldsv1"))
"""Go structs: `omitempty` has no meaning for them."""


def _always(field: Field) -> bool:
    if field.pointer:
        return not field.omitempty
    if field.wire in NEVER_EMPTY:
        return not field.omitzero
    return not field.omitempty


def _struct(type_: TypeDef, obj: Obj, path: str, unknown: list[str], where: _Where | None) -> None:
    entries, always = type_._plan or plan_of(type_)
    drop: list[str] | None = None
    for key, value in obj.items():
        entry = entries.get(key)
        if entry is None:
            if len(unknown) < _MAX_UNKNOWN:
                unknown.append(f"{path}.{key}" if path else key)
        elif value is not None:
            field, droppable, decoder = entry
            if decoder is _string and value.__class__ is str:  # by far the most common
                if value or not droppable:
                    continue
            else:
                new = decoder(field, value, f"{path}.{key}" if path else key, unknown, where, type_)
                if not new and not droppable and new.__class__ in (list, dict) and field.type in ("array", "map"):
                    new = None  # what is stored does not tell an empty one from none
                if new is not value:
                    obj[key] = new
                if new or not droppable or (field.wire in NEVER_EMPTY and not (field.omitzero and new is None)):
                    continue
                if key == "managedFields" and path == "metadata":  # [] asks for a reset, see patch.apply
                    continue
        if drop is None:
            drop = []
        drop.append(key)
    if drop:
        for key in drop:
            del obj[key]
    for field in always:
        if field.name not in obj:
            obj[field.name] = None if field.pointer else zero(field)


def zero(field: Field) -> Any:
    """What Go writes for a field that nobody set."""
    wire = field.wire
    if wire == "object":
        struct = field.struct
        if struct is None:
            return {}
        return {f.name: None if f.pointer else zero(f) for f in plan_of(struct)[1]}
    return _ZERO.get(wire)


_ZERO: dict[str, Any] = {
    "string": "",
    "int32": 0,
    "int64": 0,
    "double": 0,
    "bool": False,
    "quantity": "0",
    "intorstring": 0,
    "duration": "0s",
}


def _object(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    if value.__class__ is not dict:
        raise _wrong(value, field, _Where(where, owner, field.name) if field.name else where)
    struct = field.struct
    if struct is None:
        return value
    here = _Where(where, owner, field.name) if field.name else where
    if struct.name != REPEATED:
        _struct(struct, value, path, unknown, here)
        return value
    key = key_of(value)
    if (known := _specs.get(key)) is not None:
        return orjson.loads(known)
    before = len(unknown)
    _struct(struct, value, path, unknown, here)
    if len(unknown) == before:
        _specs.put(key, orjson.dumps(value))
    return value


def _array(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    here = _Where(where, owner, field.name) if field.name else where
    if value.__class__ is not list:
        raise _wrong(value, field, here)
    item = field.item
    assert item is not None
    decoder = _DECODERS[item.wire]
    for i, inner in enumerate(value):
        if inner is None:
            value[i] = zero(item)
        elif decoder is not _string or inner.__class__ is not str:
            new = decoder(item, inner, f"{path}[{i}]", unknown, here, owner)
            if new is not inner:
                value[i] = new
    return value


def _map(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    here = _Where(where, owner, field.name) if field.name else where
    if value.__class__ is not dict:
        raise _wrong(value, field, here)
    item = field.item
    assert item is not None
    decoder = _DECODERS[item.wire]
    for key, inner in value.items():
        if inner is None:
            value[key] = "" if item.wire == "bytes" else zero(item)
        elif decoder is not _string or inner.__class__ is not str:
            new = decoder(item, inner, f"{path}.{key}", unknown, here, owner)
            if new is not inner:
                value[key] = new
    return value


# ---- scalars --------------------------------------------------------------------------------------------


def _at(field: Field, where: _Where | None, owner: TypeDef) -> _Where | None:
    return _Where(where, owner, field.name) if field.name else where


def _string(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    if value.__class__ is not str:
        raise _wrong(value, field, _at(field, where, owner))
    return value


def _bool(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    if value.__class__ is not bool:
        raise _wrong(value, field, _at(field, where, owner))
    return value


def _int(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    limit = _INT32 if field.wire == "int32" else _INT64
    if value.__class__ is not int or not -limit <= value < limit:
        raise _wrong(value, field, _at(field, where, owner))
    return value


def _double(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    if value.__class__ is not float and value.__class__ is not int:
        raise _wrong(value, field, _at(field, where, owner))
    return value


def _quantity(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    if value.__class__ is not str and (value.__class__ is bool or not isinstance(value, (int, float))):
        raise WrongType(quantity.ERR_FORMAT)
    try:
        return quantity.canonical(value.strip() if isinstance(value, str) else value)
    except ValueError as e:
        raise WrongType(str(e)) from None


def _int_or_string(
    field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef
) -> Any:
    if value.__class__ is str or (value.__class__ is int and -_INT32 <= value < _INT32):
        return value
    if isinstance(value, (int, float)) and value.__class__ is not bool:
        at = _at(field, where, owner)
        place = f"struct field {at.struct.short}.{at.names()}" if at is not None else "value"
        raise WrongType(f"json: cannot unmarshal number {value} into Go {place} of type int32")
    raise _wrong(value, field, _at(field, where, owner), "int32")


_TIME_LAYOUT = "2006-01-02T15:04:05Z07:00"
_MICRO_LAYOUT = "2006-01-02T15:04:05.000000Z07:00"


_CANONICAL_TIME = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ")


def _time(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    if value.__class__ is not str:
        raise _wrong(value, field, _at(field, where, owner), "string")
    if _CANONICAL_TIME.fullmatch(value):
        return value
    try:
        return rfc3339(parse_rfc3339(value))
    except ValueError:
        raise WrongType(_time_error(value, _TIME_LAYOUT)) from None


_MICRO = re.compile(r".{19}\.\d{6}(?!\d)")


def _microtime(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    if value.__class__ is not str:
        raise _wrong(value, field, _at(field, where, owner), "string")
    try:
        if _MICRO.match(value):
            return rfc3339_micro(parse_rfc3339(value))
    except ValueError:
        pass
    raise WrongType(_time_error(value, _MICRO_LAYOUT))


_RANGES = {"01": ("month", 1, 12), "15": ("hour", 0, 23), "04": ("minute", 0, 59), "05": ("second", 0, 59)}


def _time_error(value: str, layout: str) -> str:
    """Go names the part of the layout at which parsing stopped, or the part that is out of its range."""
    rest, at = value, layout
    for part in ("2006", "-", "01", "-", "02", "T", "15", ":", "04", ":", "05"):
        taken = rest[: len(part)]
        sound = taken.isdigit() and len(taken) == len(part) if part.isdigit() else taken == part
        if not sound:
            return f'parsing time "{value}" as "{layout}": cannot parse "{rest}" as "{part}"'
        name, low, high = _RANGES.get(part, ("", 0, 0))
        if name and not low <= int(taken) <= high:
            return f'parsing time "{value}": {name} out of range'
        rest, at = rest[len(part) :], at[len(part) :]
    fraction = re.match(r"\.\d{6}" if at.startswith(".") else r"(\.\d+)?", rest)
    if fraction is None:
        return f'parsing time "{value}" as "{layout}": cannot parse "{rest}" as ".000000"'
    rest = rest[fraction.end() :]
    zone = re.fullmatch(r"Z|[+-](\d\d):(\d\d)", rest)
    if zone is None:
        return f'parsing time "{value}" as "{layout}": cannot parse "{rest}" as "Z07:00"'
    if zone[1] and int(zone[1]) > 24:
        return f'parsing time "{value}": time zone offset hour out of range'
    if zone[2] and int(zone[2]) > 60:
        return f'parsing time "{value}": time zone offset minute out of range'
    return f'parsing time "{value}": day out of range'


_DURATION = re.compile(r"[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)")


def _duration(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    if value.__class__ is not str:
        raise _wrong(value, field, None, "string")
    if not _DURATION.fullmatch(value):
        raise WrongType(f'time: invalid duration "{value}"')
    return value


def _bytes(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    if value.__class__ is list and all(v.__class__ is int and 0 <= v < 256 for v in value):
        return base64.b64encode(bytes(value)).decode()  # to Go a list of numbers, too
    if value.__class__ is not str:
        raise _wrong(value, field, _at(field, where, owner))
    text = value.replace("\n", "").replace("\r", "") if "\n" in value or "\r" in value else value
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise WrongType(f"illegal base64 data at input byte {_base64_fault(value)}") from None
    return text


_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


def _base64_fault(text: str) -> int:
    """Where Go's decoder stops: the first byte that is not base64, else where the padding is wrong."""
    for i, c in enumerate(text):
        if c not in _ALPHABET and c not in "\r\n":
            if c != "=":
                return i
            filled = i % 4
            if filled < 2:
                return i
            if filled == 2 and text[i + 1 : i + 2] != "=":
                return min(i + 1, len(text))
            return i + (2 if filled == 2 else 1)
    return len(text) - len(text) % 4


def _anything(field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef) -> Any:
    return value


_SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"


def _schema(value: Any, path: str, unknown: list[str], where: _Where | None) -> Any:
    from berg.machinery.typedef import type_named

    if value.__class__ is not dict:
        raise _wrong(value, Field("", "object", struct=type_named(_SCHEMA)), where)
    _struct(type_named(_SCHEMA), value, path, unknown, where)
    return value


def _schema_or_array(
    field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef
) -> Any:
    here = _at(field, where, owner)
    if value.__class__ is list:
        for i, inner in enumerate(value):
            _schema(inner, f"{path}[{i}]", unknown, here)
    else:
        _schema(value, path, unknown, here)
    return value


def _schema_or_strings(
    field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef
) -> Any:
    here = _at(field, where, owner)
    if value.__class__ is not list:
        return _schema(value, path, unknown, here)
    for inner in value:
        if inner.__class__ is not str:
            raise _wrong(inner, field, here, "string")
    return value


def _schema_or_bool(
    field: Field, value: Any, path: str, unknown: list[str], where: _Where | None, owner: TypeDef
) -> Any:
    if value.__class__ is dict:
        return _schema(value, path, unknown, _at(field, where, owner))
    if value.__class__ is not bool:
        raise WrongType("boolean or JSON schema expected")
    return value


_DECODERS: dict[str, Callable[..., Any]] = {
    "object": _object,
    "array": _array,
    "map": _map,
    "string": _string,
    "bytes": _bytes,
    "bool": _bool,
    "int32": _int,
    "int64": _int,
    "double": _double,
    "quantity": _quantity,
    "intorstring": _int_or_string,
    "time": _time,
    "microtime": _microtime,
    "duration": _duration,
    "json": _anything,
    "raw": _anything,
    "fieldsv1": _anything,
    "schemaorarray": _schema_or_array,
    "schemaorbool": _schema_or_bool,
    "schemaorstrings": _schema_or_strings,
}
