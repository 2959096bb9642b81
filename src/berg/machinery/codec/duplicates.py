"""JSON in which a key stands twice, as Go decodes it into a typed object: what comes later does not replace what came
before, it is decoded on top of it.

    a struct         gets the fields that are named later, keeps the others
    a map            gets the keys that are named later, keeps the others
    a list           has the later length; a struct in it keeps what the later one at its place leaves out
    null             empties maps, lists and pointers, and leaves structs and scalars as they are

Only asked for when a quick look has shown that there are such keys (`json.loads_strict`).

Source: encoding/json as in sigs.k8s.io/json, decode.go.
"""

from __future__ import annotations

import json
from typing import Any

from berg.machinery.quoting import quote
from berg.machinery.typedef import Field, TypeDef

_MAX_FAULTS = 100


class Members(list[Any]):
    """An object's pairs as they stand."""


def typed(data: bytes, type_: TypeDef) -> tuple[Any, list[str]]:
    """The value, without fields that the type does not know, and the messages of strict decoding in the order of
    the document. `data` is JSON that could be read."""
    root = json.loads(data.decode("utf-8", "replace"), object_pairs_hook=Members)
    if not isinstance(root, Members):
        return root, []
    faults: dict[str, None] = {}
    return _struct(root, type_, "", None, faults), list(faults)[:_MAX_FAULTS]


def _struct(pairs: Members, type_: TypeDef, path: str, before: Any, faults: dict[str, None]) -> dict[str, Any]:
    made: dict[str, Any] = dict(before) if isinstance(before, dict) else {}
    seen = set()
    for key, value in pairs:
        here = f"{path}.{key}" if path else key
        field = type_.fields.get(key)
        if field is None and not (not path and key in ("kind", "apiVersion")):
            faults[f"unknown field {quote(here)}"] = None
            continue
        if key in seen:
            faults[f"duplicate field {quote(here)}"] = None
        seen.add(key)
        if value is None and field is not None and key in made:
            if field.pointer or field.type in ("map", "array"):
                made[key] = None
            continue
        made[key] = _value(value, field, here, made.get(key), faults)
    return made


def _value(value: Any, field: Field | None, path: str, before: Any, faults: dict[str, None]) -> Any:
    if isinstance(value, Members):
        if field is not None and field.type == "map":
            return _map(value, field, path, before, faults)
        if field is not None and field.struct is not None and field.type == "object":
            return _struct(value, field.struct, path, before, faults)
        return {key: _value(inner, None, path, None, faults) for key, inner in value}
    if isinstance(value, list):
        item = field.item if field is not None else None
        old = before if isinstance(before, list) else []
        return [
            _value(inner, item, f"{path}[{i}]", old[i] if i < len(old) else None, faults)
            for i, inner in enumerate(value)
        ]
    return value


def _map(pairs: Members, field: Field, path: str, before: Any, faults: dict[str, None]) -> dict[str, Any]:
    made: dict[str, Any] = dict(before) if isinstance(before, dict) else {}
    seen = set()
    for key, value in pairs:
        here = f"{path}.{key}"
        if key in seen:
            faults[f"duplicate field {quote(here)}"] = None
        seen.add(key)
        made[key] = _value(value, field.item, here, None, faults)  # each value is decoded afresh
    return made
