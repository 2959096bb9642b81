"""Objects seen as sets of typed fields: comparing two, merging one into another, the set of one's fields, removing
a set from one. The four walks under server-side apply.

A type is walked as one of few shapes: a *leaf* (scalar, or a list or map that is owned as a whole), a *struct*,
a *map* whose keys come and go one by one, a *keyed* list (elements known by some of their fields), a *set* of
scalars, or *deduced*: free content, where maps are maps and everything else is a leaf.

Source: sigs.k8s.io/structured-merge-diff typed/{compare,merge,tofieldset,remove,validate}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from berg.machinery.decode import zero
from berg.machinery.patch import fieldset
from berg.machinery.patch.fieldset import FieldSet
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef

LEAF, STRUCT, MAP, KEYED, SET, DEDUCED = range(6)
_ABSENT: Any = object()
_DEDUCED_FIELD = Field("", "any", wire="deduced", open=True)


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
        return LEAF if field.wire in ("json", "schemaorarray", "schemaorbool", "schemaorstrings") else DEDUCED
    return DEDUCED if kind == "fieldsv1" else LEAF


def field_in(type_: TypeDef, key: str) -> Field:
    """How `key` of a struct is typed; what a struct does not declare is free content."""
    return type_.fields.get(key) or _DEDUCED_FIELD


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
            elif key is not None and not key.omitempty and not key.pointer:
                keys[name] = zero(key)
    if not keys:
        names = " ".join(f'"{n}"' for n in field.list_keys)
        raise BadList(
            f"associative list with keys has an element that omits all key fields [{names}] "
            "(and doesn't have default values for any key fields)"
        )
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


# ---- comparing ------------------------------------------------------------------------------------------


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
        before = old.get(key, _ABSENT)
        if before is not value and before != value:
            _compare(out, fields.get(key) or _DEDUCED_FIELD, before, value, (*path, f"f:{key}"))
    for key, before in old.items():
        if key not in new:
            _compare(out, fields.get(key) or _DEDUCED_FIELD, before, _ABSENT, (*path, f"f:{key}"))


def _compare(out: Comparison, field: Field, old: Any, new: Any, path: fieldset.Path) -> None:
    if old is _ABSENT:
        fieldset.graft(out.added, path, _everything(field, new))
        return
    if new is _ABSENT:
        fieldset.graft(out.removed, path, _everything(field, old))
        return
    kind = shape(field)
    if kind == DEDUCED:
        kind = MAP if isinstance(old, dict) or isinstance(new, dict) else LEAF
        field = _DEDUCED_FIELD
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
            item = field.item or _DEDUCED_FIELD
            for key, value in after.items():
                was = before.get(key, _ABSENT)
                if was is not value and was != value:
                    _compare(out, item, was, value, (*path, f"f:{key}"))
            for key, was in before.items():
                if key not in after:
                    _compare(out, item, was, _ABSENT, (*path, f"f:{key}"))


def _everything(field: Field, value: Any) -> FieldSet:
    """What lies below a value that came or went as a whole; the value itself is a member."""
    kind = shape(field)
    if kind == LEAF or not value:
        return {}
    if kind in (KEYED, SET):
        if not isinstance(value, list):
            return {}
        item = field.item or _DEDUCED_FIELD
        found: FieldSet = {".": {}}
        for element, values in _by_element(field, value).items():
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
            found[f"f:{key}"] = _everything(fields.get(key) or _DEDUCED_FIELD, inner)
    else:
        item = (field.item if kind == MAP else None) or _DEDUCED_FIELD
        for key, inner in value.items():
            found[f"f:{key}"] = _everything(item, inner)
    return found


def _deeper(kind: int, old: Any, new: Any) -> bool:
    """Whether there is anything inside; two empty values, or values of the wrong type, are compared as leaves."""
    wanted = list if kind in (KEYED, SET) else dict
    sides = [v for v in (old, new) if v is not None]
    return any(sides) and all(isinstance(v, wanted) for v in sides)


def _compare_list(out: Comparison, field: Field, old: Any, new: Any, path: fieldset.Path) -> None:
    before, after = _by_element(field, old), _by_element(field, new)
    item = field.item or _DEDUCED_FIELD
    for element in before.keys() | after.keys():
        was, now = before.get(element, ()), after.get(element, ())
        here = (*path, element)
        if len(was) <= 1 and len(now) <= 1:
            a, b = was[0] if was else _ABSENT, now[0] if now else _ABSENT
            if a is not b and a != b:
                _compare(out, item, a, b, here)
        elif len(was) >= 2 and len(now) >= 2:
            if was != now:
                fieldset.insert(out.modified, here)
        elif len(was) >= 2:
            if now:
                _compare(out, item, _ABSENT, now[0], here)
            fieldset.insert(out.removed, here)
        else:
            if was:
                _compare(out, item, was[0], _ABSENT, here)
            fieldset.insert(out.added, here)


def _by_element(field: Field, values: Iterable[Any]) -> dict[str, list[Any]]:
    """Elements by their key; duplicates, which updates may leave, stand together."""
    found: dict[str, list[Any]] = {}
    for value in values:
        found.setdefault(element_of(field, value), []).append(value)
    return found


# ---- the set of an object's fields ----------------------------------------------------------------------


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
        field = _DEDUCED_FIELD
    if kind == LEAF:
        return {}, True
    if kind == STRUCT:
        struct = field.struct
        assert struct is not None
        return (to_field_set(struct, value), False) if isinstance(value, dict) else ({}, False)
    found: FieldSet = {}
    item = field.item or _DEDUCED_FIELD
    if kind == MAP:
        if isinstance(value, dict):
            for key, inner in value.items():
                _put(found, f"f:{key}", _fields_of(item, inner)[0], True)
    elif isinstance(value, list):
        for element, values in _by_element(field, value).items():
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
        inner = _named_below(field or _DEDUCED_FIELD, below)
        found[element] = {".": {}, **inner} if field is not None else inner
    return found


def _named_below(field: Field, below: FieldSet) -> FieldSet:
    kind = shape(field)
    if kind == STRUCT:
        struct = field.struct
        assert struct is not None
        return with_named_fields(struct, below)
    item = field.item or _DEDUCED_FIELD
    return {e: _named_below(item, b) if e != "." and b else b for e, b in below.items()}


# ---- merging and removing -------------------------------------------------------------------------------


def merge(type_: TypeDef, live: Obj, config: Obj) -> Obj:
    """`live` with everything that `config` says; lists of elements with keys are merged by them. Shares parts
    with both arguments, changes neither."""
    merged = dict(live)
    for key, value in config.items():
        merged[key] = _merge(field_in(type_, key), live.get(key, _ABSENT), value)
    return merged


def _merge(field: Field, live: Any, config: Any) -> Any:
    if live is _ABSENT:
        return config
    kind = shape(field)
    if kind == DEDUCED:
        kind = MAP
        field = _DEDUCED_FIELD
    if kind in (STRUCT, MAP) and isinstance(live, dict) and isinstance(config, dict):
        if kind == STRUCT:
            struct = field.struct
            assert struct is not None
            return merge(struct, live, config)
        item = field.item or _DEDUCED_FIELD
        merged = dict(live)
        for key, value in config.items():
            merged[key] = _merge(item, live.get(key, _ABSENT), value)
        return merged
    if kind in (STRUCT, MAP) and isinstance(live, dict) and live and config is None:
        return live
    if kind in (KEYED, SET) and isinstance(live, list) and (isinstance(config, list) or config is None):
        return _merge_lists(field, live, config or [])
    return config


def _merge_lists(field: Field, live: list[Any], config: list[Any]) -> list[Any]:
    """Elements of `config` in their order, those only in `live` between them where they were: after the element
    that they followed, as far as the common elements keep their order."""
    item = field.item or _DEDUCED_FIELD
    left = [element_of(field, v) for v in live]
    right = [element_of(field, v) for v in config]
    in_live: dict[str, Any] = {}
    for element, value in zip(left, live, strict=True):
        in_live[element] = _ABSENT if element in in_live else value  # duplicates are not merged into
    in_config = dict(zip(right, config, strict=True))
    shared = iter([e for e in right if e in in_live])
    next_shared = next(shared, None)
    merged: list[Any] = []
    done: set[str] = set()
    i = j = 0
    while i < len(left) or j < len(right):
        if i < len(left) and j < len(right):
            element = left[i]
            if element == right[j]:
                merged.append(_merge(item, in_live[element], in_config[element]))
                done.add(element)
                i, j, next_shared = i + 1, j + 1, next(shared, None)
                continue
            if element in in_config and next_shared is not None and next_shared != element:
                i += 1  # shared, but its turn comes later
                continue
        if i < len(left):
            element = left[i]
            if element not in in_config:
                merged.append(live[i])
                i += 1
                continue
            if element in done:
                i += 1
        if j < len(right):
            element = right[j]
            merged.append(_merge(item, in_live.get(element, _ABSENT), in_config[element]))
            done.add(element)
            j += 1
            if next_shared == element:
                next_shared = next(shared, None)
    return merged


def remove(type_: TypeDef, obj: Obj, gone: FieldSet) -> Obj:
    """`obj` without the members of `gone`."""
    return _remove_keys(obj, gone, lambda key: field_in(type_, key))


def _remove_keys(obj: Obj, gone: FieldSet, field_of: Any) -> Obj:
    left: Obj = {}
    for key, value in obj.items():
        below = gone.get(f"f:{key}")
        if below is None:
            left[key] = value
        elif below and "." not in below:
            left[key] = _remove(field_of(key), value, below)
    return left


def _remove(field: Field, value: Any, gone: FieldSet) -> Any:
    kind = shape(field)
    if kind == DEDUCED:
        kind = MAP if isinstance(value, dict) else LEAF
        field = _DEDUCED_FIELD
    if kind == STRUCT and isinstance(value, dict):
        struct = field.struct
        assert struct is not None
        return remove(struct, value, gone)
    item = field.item or _DEDUCED_FIELD
    if kind == MAP and isinstance(value, dict):
        return _remove_keys(value, gone, lambda key: item)
    if kind in (KEYED, SET) and isinstance(value, list):
        left = []
        for inner in value:
            below = gone.get(element_of(field, inner))
            if below is None:
                left.append(inner)
            elif below and "." not in below:
                left.append(_remove(item, inner, below))
        return left
    return {} if isinstance(value, dict) else [] if isinstance(value, list) else None


# ---- checking what is applied ---------------------------------------------------------------------------


def faults(type_: TypeDef, obj: Obj) -> list[str]:
    """Why this cannot be applied: `.spec.foo: field not declared in schema`. Empty when it can."""
    found: list[str] = []
    _check_struct(type_, obj, "", found)
    return found


def _check_struct(type_: TypeDef, obj: Obj, path: str, found: list[str]) -> None:
    for key, value in obj.items():
        field = type_.fields.get(key)
        if field is None:
            if not type_.open:
                found.append(f"{path}.{key}: field not declared in schema")
                return  # upstream stops at the first of a struct
            continue
        _check(field, value, f"{path}.{key}", found)


def _check(field: Field, value: Any, path: str, found: list[str]) -> None:
    if value is None:
        return
    kind = field.type
    if kind == "object":
        if not isinstance(value, dict):
            found.append(f"{path}: expected map, got {_go_value(value)}")
        elif (struct := field.struct) is not None:
            _check_struct(struct, value, path, found)
    elif kind == "map":
        if not isinstance(value, dict):
            found.append(f"{path}: expected map, got {_go_value(value)}")
        else:
            for key, inner in value.items():
                _check(field.item or _DEDUCED_FIELD, inner, f"{path}.{key}", found)
    elif kind == "array":
        if not isinstance(value, list):
            found.append(f"{path}: expected list, got {_go_value(value)}")
        else:
            _check_list(field, value, path, found)
    elif kind in ("string", "time", "microtime", "duration", "bytes"):
        if not isinstance(value, str):
            found.append(f"{path}: expected string, got {_go_value(value)}")
    elif kind in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            go = {str: "string", bool: "bool", list: "[]interface {}"}.get(type(value), "map[string]interface {}")
            found.append(f"{path}: expected numeric (int or float), got {go}")
    elif kind == "boolean" and not isinstance(value, bool):
        found.append(f"{path}: expected boolean, got {_go_value(value)}")


def _check_list(field: Field, values: list[Any], path: str, found: list[str]) -> None:
    keyed = shape(field) in (KEYED, SET)
    seen: set[str] = set()
    for i, value in enumerate(values):
        element = f"[{i}]"
        if keyed:
            try:
                key = element_of(field, value)
            except BadList as e:
                found.append(f"{path}: element {i}: {e}")
                return
            element = fieldset.show((key,))
            if key in seen:
                found.append(f"{path}: duplicate entries for key {element}")
            seen.add(key)
        _check(field.item or _DEDUCED_FIELD, value, path + element, found)


def _go_value(value: Any) -> str:
    if isinstance(value, str):
        return orjson.dumps(value).decode()
    if isinstance(value, dict):
        return f"map[{' '.join(f'{k}:{_plain(v)}' for k, v in sorted(value.items()))}]"
    return _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{' '.join(map(_plain, value))}]"
    return "<nil>" if value is None else str(value)
