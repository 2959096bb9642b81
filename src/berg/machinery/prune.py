"""Dropping what a schema does not name, and filling in the defaults that it names. Generic over `TypeDef`: CRDs
above all; built-in kinds are decoded with `berg.machinery.decode`, which prunes on its way.

Both work in place. Source: k8s.io/apiextensions-apiserver pkg/apiserver/schema/{pruning,defaulting}.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.codec.json import clone
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef


def prune(type_: TypeDef, obj: Obj) -> list[str]:
    """Removes every field that `type_` does not know; returns their paths (`spec.a[0].b`), sorted."""
    unknown: list[str] = []
    _prune_struct(type_, obj, "", unknown)
    unknown.sort()
    return unknown


def _prune_struct(type_: TypeDef, obj: Obj, path: str, unknown: list[str]) -> None:
    fields = type_.fields
    for key in list(obj):
        field = fields.get(key)
        if field is not None:
            value = obj[key]
            if value.__class__ is dict or value.__class__ is list:
                _prune_value(field, value, f"{path}.{key}" if path else key, unknown)
        elif not type_.open:
            unknown.append(f"{path}.{key}" if path else key)
            del obj[key]


def _prune_value(field: Field, value: Any, path: str, unknown: list[str]) -> None:
    if value.__class__ is dict:
        struct = field.struct
        if struct is not None:
            _prune_struct(struct, value, path, unknown)
        elif field.item is not None and field.type == "map":
            for key, inner in value.items():
                if inner.__class__ is dict or inner.__class__ is list:
                    _prune_value(field.item, inner, f"{path}.{key}", unknown)
        elif field.type == "object" and not field.open:
            unknown.extend(f"{path}.{key}" for key in value)
            value.clear()
    elif field.item is not None and field.type == "array":
        for i, inner in enumerate(value):
            if inner.__class__ is dict or inner.__class__ is list:
                _prune_value(field.item, inner, f"{path}[{i}]", unknown)


def default(type_: TypeDef, obj: Obj) -> None:
    """Sets what is missing, or null where null is not allowed, to the schema's default."""
    fields = type_.fields
    for name, field in fields.items():
        if field.default is not None and (name not in obj or (obj[name] is None and not field.nullable)):
            obj[name] = clone(field.default)
    for name, value in obj.items():
        field_ = fields.get(name)
        if field_ is not None and (value.__class__ is dict or value.__class__ is list):
            _default_value(field_, value)


def _default_value(field: Field, value: Any) -> None:
    struct = field.struct
    if struct is not None and value.__class__ is dict:
        default(struct, value)
    item = field.item
    if item is None:
        return
    pairs = value.items() if value.__class__ is dict else enumerate(value)
    for key, inner in list(pairs):
        if inner is None and not item.nullable and item.default is not None:
            value[key] = inner = clone(item.default)
        if inner.__class__ is dict or inner.__class__ is list:
            _default_value(item, inner)


def drop_nulls(type_: TypeDef, obj: Obj) -> None:
    """Removes nulls where the schema neither allows null nor has a default: they mean "not set"."""
    for name, value in list(obj.items()):
        field = type_.fields.get(name)
        if field is None:
            continue
        if value is None and not field.nullable and field.default is None:
            del obj[name]
        elif value.__class__ is dict or value.__class__ is list:
            _drop_nulls_value(field, value)


def _drop_nulls_value(field: Field, value: Any) -> None:
    struct = field.struct
    if struct is not None and value.__class__ is dict:
        drop_nulls(struct, value)
        return
    item = field.item
    if item is None:
        return
    if value.__class__ is dict:
        for key in [k for k, v in value.items() if v is None and not item.nullable and item.default is None]:
            del value[key]
        for inner in value.values():
            _drop_nulls_value(item, inner)
    elif value.__class__ is list:
        for inner in value:
            _drop_nulls_value(item, inner)
