"""Types of built-in kinds: what their OpenAPI schemas would give. Fields are looked up when they are asked for, so that
types that contain themselves are no problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from berg.machinery.cel import types
from berg.machinery.cel.names import RESERVED, escape_name, unescape_name
from berg.machinery.cel.types import Type
from berg.machinery.typedef import Field, TypeDef

_SIMPLE = {
    "string": types.STRING,
    "quantity": types.STRING,
    "duration": types.STRING,
    "integer": types.INT,
    "number": types.DOUBLE,
    "boolean": types.BOOL,
    "bytes": types.BYTES,
    "time": types.TIMESTAMP,
    "microtime": types.TIMESTAMP,
}


def object_type(of: TypeDef, name: str) -> Type:
    """`name`: what messages call it."""
    return types.struct(name, _Fields(of, name))


class _Fields(Mapping[str, Type]):
    def __init__(self, of: TypeDef, name: str) -> None:
        self._of, self._name = of, name

    def __getitem__(self, escaped: str) -> Type:
        name = unescape_name(escaped)
        if escape_name(name) != escaped and name not in RESERVED:
            raise KeyError(escaped)
        return _type(self._of.fields[name], f"{self._name}.{name}")

    def __iter__(self) -> Iterator[str]:
        return map(escape_name, self._of.fields)

    def __len__(self) -> int:
        return len(self._of.fields)


def _type(field: Field, name: str) -> Type:
    match field.type:
        case "object" if field.struct is not None:
            return object_type(field.struct, name)
        case "array" if field.item is not None:
            return types.list_of(_type(field.item, f"{name}.@idx"))
        case "map" if field.item is not None:
            return types.map_of(types.STRING, _type(field.item, f"{name}.@elem"))
    return _SIMPLE.get(field.type, types.DYN)
