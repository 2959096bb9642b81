"""The set of fields that an object has.

Source: sigs.k8s.io/structured-merge-diff typed/tofieldset, fieldpath.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.patch.fieldset import FieldSet
from berg.machinery.patch.shapes import DEDUCED, FREE, LEAF, MAP, STRUCT, by_element, field_in, shape
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef


def to_field_set(type_: TypeDef, obj: Obj) -> FieldSet:
    found: FieldSet = {}
    for key, value in obj.items():
        field = field_in(type_, key)
        below, member = _fields_of(field, value)
        if value is None or value == {} or key not in type_.fields:
            member = True
        _put(found, f"f:{key}", below, member)
    return found


def _put(into: FieldSet, element: str, below: FieldSet, member: bool) -> None:
    if below:
        into[element] = {".": {}, **below} if member else below
    elif member:
        into[element] = {}


def _fields_of(field: Field, value: Any) -> tuple[FieldSet, bool]:
    """(what lies below a value, whether the value itself is a member)."""
    kind = shape(field)
    if kind == DEDUCED:
        kind = MAP if isinstance(value, dict) else LEAF
        field = FREE
    if kind == LEAF:
        return {}, True
    if kind == STRUCT:
        struct = field.struct
        assert struct is not None
        return (to_field_set(struct, value), False) if isinstance(value, dict) else ({}, False)
    found: FieldSet = {}
    item = field.item or FREE
    if kind == MAP:
        if isinstance(value, dict):
            for key, inner in value.items():
                _put(found, f"f:{key}", _fields_of(item, inner)[0], True)
    elif isinstance(value, list):
        for element, values in by_element(field, value).items():
            below = _fields_of(item, values[0])[0] if len(values) == 1 else {}
            _put(found, element, below, True)
    return found, False


def with_named_fields(type_: TypeDef, a: FieldSet) -> FieldSet:
    """`a`, in which every struct's field on the way to a member is a member too."""
    found: FieldSet = {}
    for element, below in a.items():
        if element == "." or not below:
            found[element] = below
            continue
        name = element[2:] if element[0] == "f" else ""
        field = type_.fields.get(name)
        inner = _named_below(field or FREE, below)
        found[element] = {".": {}, **inner} if field is not None else inner
    return found


def _named_below(field: Field, below: FieldSet) -> FieldSet:
    kind = shape(field)
    if kind == STRUCT:
        struct = field.struct
        assert struct is not None
        return with_named_fields(struct, below)
    item = field.item or FREE
    return {e: _named_below(item, b) if e != "." and b else b for e, b in below.items()}
