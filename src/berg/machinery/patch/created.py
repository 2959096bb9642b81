"""What the writer of a new object owns: everything that is in it.

`comparing` finds the same by comparing with an empty object, in general and slowly; a creation is the write that
there is most of, so it is walked here once, in the order in which the set is written. Where an object of the type
has something in it from the start (`blank`) that is more than an empty struct or list, this room gives up
(`NotPlain`), and the comparison is made.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.memo import REPEATED, Memo, key_of
from berg.machinery.patch.fieldset import FieldSet
from berg.machinery.patch.shapes import ABSENT, FREE, KEYED, LEAF, MAP, SET, STRUCT, by_element, shape
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef

_specs: Memo[FieldSet] = Memo()
"""shared by all that are the same: sets are never changed"""


class NotPlain(Exception):
    """It takes a comparison to tell."""


def fields_of(type_: TypeDef, blank: Obj, obj: Obj, never: FieldSet, reset: frozenset[str]) -> FieldSet:
    """Ordered. Without the members of `never` (fields of the top, and fields right below them) and without the
    fields of the top that `reset` names. Raises BadList, NotPlain."""
    found = _struct(type_, blank, obj, reset)
    for element, below in never.items():
        mine = found.get(element)
        if mine is None:
            continue
        left = {e: inner for e, inner in mine.items() if e != "." and e not in below}
        if left:
            found[element] = left
        else:
            del found[element]
    return found


def _struct(type_: TypeDef, blank: Obj, obj: Obj, skip: frozenset[str] = frozenset()) -> FieldSet:
    fields = type_.fields
    found: FieldSet = {}
    for key in sorted(obj):
        value, before = obj[key], blank.get(key, ABSENT)
        if before is value or key in skip or before == value:
            continue
        field = fields.get(key) or FREE
        if before is ABSENT:
            found[f"f:{key}"] = _everything(field, value)
        else:
            inner = _beside(field, before, value)
            if inner is not None:
                found[f"f:{key}"] = inner
    return found


def _beside(field: Field, before: Any, value: Any) -> FieldSet | None:
    """Where something was already, which `value` differs from. None: nothing was added or changed."""
    kind = shape(field)
    if kind == LEAF:
        return {}
    if kind in (KEYED, SET) and not before and isinstance(value, list) and value:
        return _elements(field, value)
    if kind == STRUCT and isinstance(before, dict) and isinstance(value, dict):
        struct = field.struct
        assert struct is not None
        if struct.name != REPEATED:
            return _struct(struct, before, value) or None
        key = key_of(value)
        found = _specs.get(key)
        if found is None:
            found = _struct(struct, before, value)
            _specs.put(key, found)
        return found or None
    raise NotPlain


def _everything(field: Field, value: Any) -> FieldSet:
    kind = field.shape
    if kind < 0:
        kind = shape(field)
    if kind == LEAF or not value:
        return {}
    found: FieldSet = {".": {}}
    if kind in (KEYED, SET):
        if not isinstance(value, list):
            return {}
        found.update(_elements(field, value))
        return found
    if not isinstance(value, dict):
        return {}
    if kind == STRUCT:
        struct = field.struct
        assert struct is not None
        fields = struct.fields
        for key in sorted(value):
            inner, below = value[key], fields.get(key) or FREE
            found[f"f:{key}"] = _everything(below, inner) if inner and below.shape != LEAF else {}
        return found
    item = (field.item if kind == MAP else None) or FREE
    if item.shape == LEAF:
        for key in sorted(value):
            found[f"f:{key}"] = {}
        return found
    for key in sorted(value):
        found[f"f:{key}"] = _everything(item, value[key])
    return found


def _elements(field: Field, values: list[Any]) -> FieldSet:
    item = field.item or FREE
    by = by_element(field, values)
    return {e: _everything(item, by[e][0]) if len(by[e]) == 1 else {} for e in sorted(by)}
