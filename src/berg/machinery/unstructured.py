"""What upstream makes of decoded JSON that is put into a typed object without going through JSON again, as strategic
patches and applied manifests are: it is less strict with numbers than its JSON decoder, and has other words.

    a number that does not fit       is cut off, as Go cuts integers
    a number without a fraction      is an integer, however it was written
    anything else                    Misfit: `unrecognized type: int32`, `cannot restore slice from map`, …

Only asked for when `schema.decode` has refused the object.

Source: apimachinery pkg/runtime/converter.go, fromUnstructured.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.decode import WrongType
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef

_BITS = {"int32": 32, "int64": 64}
_PLAIN = {"int32": "int32", "int64": "int64", "double": "float64", "bool": "bool", "string": "string"}


def fit(type_: TypeDef, obj: Obj) -> None:
    """Changes the numbers of `obj` in place. Raises WrongType."""
    for field in sorted(type_.fields.values(), key=lambda f: f.number or 0):
        value = obj.get(field.name)
        if value is not None:
            obj[field.name] = _fit(field, value)


def _fit(field: Field, value: Any) -> Any:
    wire = field.wire
    if wire in _PLAIN and field.type not in ("map", "array"):
        return _scalar(field, value)
    if field.type == "object" and field.struct is not None and wire == "object":
        if not isinstance(value, dict):
            raise WrongType(f"cannot restore struct from: {_kind(value)}")
        fit(field.struct, value)
    elif field.type == "map" and field.item is not None:
        if not isinstance(value, dict):
            raise WrongType(f"cannot restore map from {_kind(value)}")
        for key in sorted(value):
            if value[key] is not None:
                value[key] = _fit(field.item, value[key])
    elif field.type == "array" and field.item is not None:
        if not isinstance(value, list):
            raise WrongType(f"cannot restore slice from {_kind(value)}")
        for i, one in enumerate(value):
            if one is not None:
                value[i] = _fit(field.item, one)
    return value


def _scalar(field: Field, value: Any) -> Any:
    wire, kind = field.wire, _kind(value)
    bits = _BITS.get(wire)
    if kind == "int64":
        if bits:
            half = 1 << (bits - 1)
            return (value + half) % (1 << bits) - half
        if wire == "double":
            return value
        if wire == "string":
            raise WrongType(f"cannot convert int64 to {field.go}")
    elif kind == "float64":
        if wire == "double":
            return value
        if bits:
            if value != int(value):
                raise WrongType(f"cannot convert float64 to {field.go}")
            return int(value)
    elif kind == wire:
        return value
    raise WrongType(f"unrecognized type: {_PLAIN[wire]}")


def _kind(value: Any) -> str:
    """Go's name of what JSON was decoded into."""
    if isinstance(value, bool):
        return "bool"
    kinds = {dict: "map", list: "slice", str: "string", int: "int64"}
    return kinds.get(type(value), "float64")
