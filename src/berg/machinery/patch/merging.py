"""Merging what is applied into what is there, and removing a set of fields.

Source: sigs.k8s.io/structured-merge-diff typed/{merge,remove}.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.patch.fieldset import FieldSet
from berg.machinery.patch.shapes import (
    ABSENT,
    DEDUCED,
    FREE,
    KEYED,
    LEAF,
    MAP,
    SET,
    STRUCT,
    element_of,
    field_in,
    shape,
)
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef


def merge(type_: TypeDef, live: Obj, config: Obj) -> Obj:
    """`live` with everything that `config` says; lists of elements with keys are merged by them. Shares parts
    with both arguments, changes neither."""
    merged = dict(live)
    for key, value in config.items():
        merged[key] = _merge(field_in(type_, key), live.get(key, ABSENT), value)
    return merged


def _merge(field: Field, live: Any, config: Any) -> Any:
    if live is ABSENT:
        return config
    kind = shape(field)
    if kind == DEDUCED:
        kind = MAP
        field = FREE
    if kind in (STRUCT, MAP) and isinstance(live, dict) and isinstance(config, dict):
        if kind == STRUCT:
            struct = field.struct
            assert struct is not None
            return merge(struct, live, config)
        item = field.item or FREE
        merged = dict(live)
        for key, value in config.items():
            merged[key] = _merge(item, live.get(key, ABSENT), value)
        return merged
    if kind in (STRUCT, MAP) and isinstance(live, dict) and live and config is None:
        return live
    if kind in (KEYED, SET) and isinstance(live, list) and (isinstance(config, list) or config is None):
        return _merge_lists(field, live, config or [])
    return config


def _merge_lists(field: Field, live: list[Any], config: list[Any]) -> list[Any]:
    """Elements of `config` in their order, those only in `live` between them where they were: after the element
    that they followed, as far as the common elements keep their order."""
    item = field.item or FREE
    left = [element_of(field, v) for v in live]
    right = [element_of(field, v) for v in config]
    in_live: dict[str, Any] = {}
    for element, value in zip(left, live, strict=True):
        in_live[element] = ABSENT if element in in_live else value  # duplicates are not merged into
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
            merged.append(_merge(item, in_live.get(element, ABSENT), in_config[element]))
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
        field = FREE
    if kind == STRUCT and isinstance(value, dict):
        struct = field.struct
        assert struct is not None
        return remove(struct, value, gone)
    item = field.item or FREE
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
