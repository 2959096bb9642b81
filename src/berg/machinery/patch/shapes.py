"""How a typed value is walked as a set of fields. A *leaf* is owned as a whole (a scalar, or a list or map that is
atomic); a *struct* has declared fields; a *map* has keys that come and go one by one; a *keyed* list has elements
known by some of their fields; a *set* has scalars; *deduced* is free content, where maps are maps and everything
else is a leaf.

Source: sigs.k8s.io/structured-merge-diff schema, typed/helpers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import orjson

from berg.machinery.decode import zero
from berg.machinery.typedef import Field, TypeDef

LEAF, STRUCT, MAP, KEYED, SET, DEDUCED = range(6)
ABSENT: Any = object()
FREE = Field("", "any", wire="deduced", open=True)


def shape(field: Field) -> int:
    if field.shape < 0:
        field.shape = _shape(field)
    return field.shape


def _shape(field: Field) -> int:
    kind = field.type
    if kind == "array":
        if field.list_type == "map" and field.list_keys:
            return KEYED
        item = field.item
        return SET if field.list_type == "set" and item is not None and item.type not in ("object", "map") else LEAF
    if kind == "map":
        return LEAF if field.map_type == "atomic" else MAP
    if kind == "object":
        if field.atomic:
            return LEAF
        return STRUCT if field.struct is not None else DEDUCED
    if kind == "any":
        return LEAF if field.wire in ("json", "raw", "schemaorarray", "schemaorbool", "schemaorstrings") else DEDUCED
    return DEDUCED if kind == "fieldsv1" else LEAF


def field_in(type_: TypeDef, key: str) -> Field:
    """How `key` of a struct is typed; what a struct does not declare is free content."""
    return type_.fields.get(key) or FREE


class BadList(ValueError):
    """A keyed list or set with an element that has no place in it."""


def element_of(field: Field, value: Any) -> str:
    """The path element of a list's element."""
    if field.list_type == "set":
        if isinstance(value, dict):
            raise BadList("associative list without keys has an element that's a map type")
        if isinstance(value, list):
            raise BadList("not supported: associative list with lists as elements")
        if value is None:
            raise BadList("associative list without keys has an element that's an explicit null")
        return "v:" + orjson.dumps(value).decode()
    if value is None:
        raise BadList("associative list with keys may not have a null element")
    if not isinstance(value, dict):
        raise BadList("associative list with keys may not have non-map elements")
    keys = {}
    struct = field.item.struct if field.item else None
    for name in field.list_keys:
        if name in value:
            keys[name] = value[name]
        else:
            key = struct.fields.get(name) if struct else None
            if key is not None and key.default is not None:
                keys[name] = key.default
            elif key is not None and not key.pointer and (not key.omitempty or struct is _reference()):
                keys[name] = zero(key)
    if not keys:
        names = " ".join(f'"{n}"' for n in field.list_keys)
        raise BadList(
            f"associative list with keys has an element that omits all key fields [{names}] "
            "(and doesn't have default values for any key fields)"
        )
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


@cache
def _reference() -> TypeDef | None:
    """Its name is empty by default, which its declaration says and its published schema does not."""
    from berg.machinery import schema

    return schema.type_named("io.k8s.api.core.v1.LocalObjectReference")


def by_element(field: Field, values: Iterable[Any]) -> dict[str, list[Any]]:
    """Elements by their key; duplicates, which updates may leave, stand together."""
    found: dict[str, list[Any]] = {}
    for value in values:
        found.setdefault(element_of(field, value), []).append(value)
    return found
