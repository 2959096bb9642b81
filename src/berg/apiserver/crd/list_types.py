"""Lists that are sets or maps: nothing stands in them twice.

Source: k8s.io/apiextensions-apiserver pkg/apiserver/schema/listtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from berg.machinery import status
from berg.machinery.status import FieldError, Obj


def declared(schema: Any) -> bool:
    """Whether there are such lists anywhere."""
    if not isinstance(schema, dict):
        return False
    inner = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return schema.get("x-kubernetes-list-type") in ("set", "map") or any(map(declared, inner))


def faults(value: Any, schema: Any, path: str = "") -> Iterator[FieldError]:
    if not isinstance(schema, dict):
        return
    if isinstance(value, dict):
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, inner in value.items():
            if isinstance(more, dict):
                yield from faults(inner, more, f"{path}[{name}]")
            if name in properties:
                yield from faults(inner, properties[name], f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        match schema.get("x-kubernetes-list-type"):
            case "set":
                yield from _duplicates(value, path)
            case "map":
                yield from _map(value, schema, path)
        for i, inner in enumerate(value):
            yield from faults(inner, schema.get("items"), f"{path}[{i}]")


def _map(items: list[Any], schema: Obj, path: str) -> Iterator[FieldError]:
    for i, item in enumerate(items):
        if item is not None and not isinstance(item, dict):
            why = "must be an object for an array of list-type map"
            yield status.invalid_value(f"{path}[{i}]", item, why)
            return
    names = schema.get("x-kubernetes-list-map-keys") or ()
    keys = [{name: item[name] for name in names if name in item} if item else {} for item in items]
    yield from _duplicates(keys, path)


def _duplicates(items: list[Any], path: str) -> Iterator[FieldError]:
    """Each is told of once, however often it comes."""
    seen: dict[bytes, int] = {}
    for i, item in enumerate(items):
        mark = orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
        seen[mark] = seen.get(mark, 0) + 1
        if seen[mark] == 2:
            yield status.duplicate(f"{path}[{i}]", item)
