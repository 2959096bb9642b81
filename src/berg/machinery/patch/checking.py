"""Whether something can be applied: it must fit its type, and its keyed lists must have their keys.

Source: sigs.k8s.io/structured-merge-diff typed/validate.
"""

from __future__ import annotations

from typing import Any

import orjson

from berg.machinery.patch import fieldset
from berg.machinery.patch.shapes import FREE, KEYED, SET, BadList, element_of, shape
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef


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
                _check(field.item or FREE, inner, f"{path}.{key}", found)
    elif kind == "array":
        if not isinstance(value, list):
            found.append(f"{path}: expected list, got {_go_value(value)}")
        else:
            _check_list(field, value, path, found)
    elif kind in ("string", "time", "microtime", "duration", "bytes"):
        if not isinstance(value, str):
            found.append(f"{path}: expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}")
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
        _check(field.item or FREE, value, path + element, found)


def _go_value(value: Any) -> str:
    """Go's `%v` of the value in its wrapping."""
    return f"&{{{_plain(value)}}}"


def _go_syntax(value: Any) -> str:
    """Go's `%#v`."""
    if isinstance(value, dict):
        inner = ", ".join(f"{orjson.dumps(k).decode()}:{_go_syntax(v)}" for k, v in sorted(value.items()))
        return f"map[string]interface {{}}{{{inner}}}"
    if isinstance(value, list):
        return f"[]interface {{}}{{{', '.join(map(_go_syntax, value))}}}"
    if value is None:
        return "interface {}(nil)"
    return orjson.dumps(value).decode()


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"map[{' '.join(f'{k}:{_plain(v)}' for k, v in sorted(value.items()))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(_plain, value))}]"
    return "<nil>" if value is None else str(value)
