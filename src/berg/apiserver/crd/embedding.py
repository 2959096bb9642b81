"""Objects within objects: where a schema says `x-kubernetes-embedded-resource`, there is a whole one, with its kind,
its version and its metadata.

Source: k8s.io/apiextensions-apiserver pkg/apiserver/schema/objectmeta.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from berg.machinery import names, status
from berg.machinery.status import FieldError, Obj

_VERSION = re.compile(r"[^/]+(/[^/]+)?")


def embeds(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    inner = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return bool(schema.get("x-kubernetes-embedded-resource")) or any(map(embeds, inner))


def faults(value: Any, schema: Any, path: str = "") -> Iterator[FieldError]:
    if not isinstance(schema, dict):
        return
    if isinstance(value, dict):
        if schema.get("x-kubernetes-embedded-resource"):
            yield from _object(value, path)
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, inner in value.items():
            if name in properties:
                yield from faults(inner, properties[name], f"{path}.{name}" if path else name)
            elif more is not None:
                yield from faults(inner, more, f"{path}[{name}]")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from faults(inner, schema.get("items"), f"{path}[{i}]")


def _object(obj: Obj, path: str) -> Iterator[FieldError]:
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if not version:
        yield status.required(f"{path}.apiVersion")
    elif not isinstance(version, str) or not _VERSION.fullmatch(version):
        why = f"unexpected GroupVersion string: {version}"
        yield status.invalid_value(f"{path}.apiVersion", version, why)
    if not kind:
        yield status.required(f"{path}.kind")
    elif isinstance(kind, str) and (bad := names.dns1035_label(kind.lower())):
        why = f"may have mixed case, but should otherwise match: {','.join(bad)}"
        yield status.invalid_value(f"{path}.kind", kind, why)
    name = (obj.get("metadata") or {}).get("name")
    for bad_name in names.path_segment(name) if isinstance(name, str) and name else ():
        yield status.invalid_value(f"{path}.metadata.name", name, bad_name)
