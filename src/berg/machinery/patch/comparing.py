"""What became of an object's fields on its way from one state to another.

Source: sigs.k8s.io/structured-merge-diff typed/compare.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.patch import fieldset
from berg.machinery.patch.fieldset import FieldSet
from berg.machinery.patch.shapes import ABSENT, DEDUCED, FREE, KEYED, LEAF, MAP, SET, STRUCT, by_element, shape
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef


class Comparison:
    """What became of an object's fields on its way from one state to another."""

    __slots__ = ("added", "modified", "removed")

    def __init__(self) -> None:
        self.removed: FieldSet = {}
        self.modified: FieldSet = {}
        self.added: FieldSet = {}

    @property
    def changed(self) -> FieldSet:
        return fieldset.union(self.modified, self.added)


def compare(type_: TypeDef, old: Obj, new: Obj) -> Comparison:
    result = Comparison()
    _compare_struct(result, type_, old, new, ())
    return result


def _compare_struct(out: Comparison, type_: TypeDef, old: Obj, new: Obj, path: fieldset.Path) -> None:
    fields = type_.fields
    for key, value in new.items():
        before = old.get(key, ABSENT)
        if before is not value and before != value:
            _compare(out, fields.get(key) or FREE, before, value, (*path, f"f:{key}"))
    for key, before in old.items():
        if key not in new:
            _compare(out, fields.get(key) or FREE, before, ABSENT, (*path, f"f:{key}"))


def _compare(out: Comparison, field: Field, old: Any, new: Any, path: fieldset.Path) -> None:
    if old is ABSENT:
        fieldset.graft(out.added, path, _everything(field, new))
        return
    if new is ABSENT:
        fieldset.graft(out.removed, path, _everything(field, old))
        return
    kind = shape(field)
    if kind == DEDUCED:
        kind = MAP if isinstance(old, dict) or isinstance(new, dict) else LEAF
        field = FREE
    if kind == LEAF or not _deeper(kind, old, new):
        fieldset.insert(out.modified, path)
        return
    if kind in (KEYED, SET):
        _compare_list(out, field, old or (), new or (), path)
    else:
        before = old if isinstance(old, dict) else {}
        after = new if isinstance(new, dict) else {}
        if kind == STRUCT:
            struct = field.struct
            assert struct is not None
            _compare_struct(out, struct, before, after, path)
        else:
            item = field.item or FREE
            for key, value in after.items():
                was = before.get(key, ABSENT)
                if was is not value and was != value:
                    _compare(out, item, was, value, (*path, f"f:{key}"))
            for key, was in before.items():
                if key not in after:
                    _compare(out, item, was, ABSENT, (*path, f"f:{key}"))


def _everything(field: Field, value: Any) -> FieldSet:
    """What lies below a value that came or went as a whole; the value itself is a member."""
    kind = shape(field)
    if kind == LEAF or not value:
        return {}
    if kind in (KEYED, SET):
        if not isinstance(value, list):
            return {}
        item = field.item or FREE
        found: FieldSet = {".": {}}
        for element, values in by_element(field, value).items():
            found[element] = _everything(item, values[0]) if len(values) == 1 else {}
        return found
    if not isinstance(value, dict):
        return {}
    found = {".": {}}
    if kind == STRUCT:
        struct = field.struct
        assert struct is not None
        fields = struct.fields
        for key, inner in value.items():
            found[f"f:{key}"] = _everything(fields.get(key) or FREE, inner)
    else:
        item = (field.item if kind == MAP else None) or FREE
        for key, inner in value.items():
            found[f"f:{key}"] = _everything(item, inner)
    return found


def _deeper(kind: int, old: Any, new: Any) -> bool:
    """Whether there is anything inside; two empty values, or values of the wrong type, are compared as leaves."""
    wanted = list if kind in (KEYED, SET) else dict
    sides = [v for v in (old, new) if v is not None]
    return any(sides) and all(isinstance(v, wanted) for v in sides)


def _compare_list(out: Comparison, field: Field, old: Any, new: Any, path: fieldset.Path) -> None:
    before, after = by_element(field, old), by_element(field, new)
    item = field.item or FREE
    for element in before.keys() | after.keys():
        was, now = before.get(element, ()), after.get(element, ())
        here = (*path, element)
        if len(was) <= 1 and len(now) <= 1:
            a, b = was[0] if was else ABSENT, now[0] if now else ABSENT
            if a is not b and a != b:
                _compare(out, item, a, b, here)
        elif len(was) >= 2 and len(now) >= 2:
            if was != now:
                fieldset.insert(out.modified, here)
        elif len(was) >= 2:
            if now:
                _compare(out, item, ABSENT, now[0], here)
            fieldset.insert(out.removed, here)
        else:
            if was:
                _compare(out, item, was[0], ABSENT, here)
            fieldset.insert(out.added, here)
