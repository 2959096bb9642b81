"""Defaults of a schema are themselves what the schema allows: without unknown fields, valid, passing its rules.

Source: k8s.io/apiextensions-apiserver pkg/apiserver/schema/defaulting/validation.go.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from berg.apiserver.crd import list_types
from berg.apiserver.crd.values import below, compile_schema
from berg.machinery import schema as typed
from berg.machinery import status
from berg.machinery.status import FieldError, Obj


def faults(schema: Obj, path: str) -> list[FieldError]:
    return list(_node(schema, path, in_meta=False, root=True))


def _node(schema: Any, path: str, *, in_meta: bool, root: bool) -> Iterator[FieldError]:
    if not isinstance(schema, dict):
        return
    embedded = root or bool(schema.get("x-kubernetes-embedded-resource"))
    in_meta = in_meta and not embedded
    if schema.get("default") is not None:
        yield from _default(schema, f"{path}.default", in_meta=in_meta)
    yield from _node(schema.get("items"), f"{path}.items", in_meta=in_meta, root=False)
    for name, inner in (schema.get("properties") or {}).items():
        meta = in_meta or (embedded and name in ("metadata", "apiVersion", "kind"))
        yield from _node(inner, f"{path}.properties[{name}]", in_meta=meta, root=False)


def _default(schema: Obj, path: str, *, in_meta: bool) -> Iterator[FieldError]:
    value = schema["default"]
    if not in_meta:
        holder: Obj = {"default": copy.deepcopy(value)}
        of = typed.TypeDef("default", {"default": typed.field_of_schema("default", schema, "default")})
        if typed.prune(of, holder) or holder != {"default": value}:
            yield status.invalid_value(path, value, "must not have unknown fields")
    errors: list[FieldError] = []
    compile_schema(schema)("", value, errors)
    errors += list_types.faults(value, schema)
    yield from below(path, errors)
    if not errors and schema.get("x-kubernetes-validations"):
        yield from _ruled(schema, value, path)


def _ruled(schema: Obj, value: Any, path: str) -> Iterator[FieldError]:
    from berg.apiserver.crd.rules import compile_rules

    rules = compile_rules(schema, root=False)
    for old in (value, None):
        if found := rules.check(value, old, at=path):
            yield from found
            return
