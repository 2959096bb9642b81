"""Objects within objects: where a schema says `x-kubernetes-embedded-resource`, there is a whole one, with its kind,
its version and its metadata. Their metadata is decoded as that of every object, and validated so.

Source: k8s.io/apiextensions-apiserver pkg/apiserver/schema/objectmeta.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson

from berg.apiserver.registry import objectmeta
from berg.machinery import names, schema, status
from berg.machinery.status import FieldError, Obj


class Unfit(ValueError):
    """It cannot be decoded."""


def embeds(schema_: Any) -> bool:
    if not isinstance(schema_, dict):
        return False
    inner = [*(schema_.get("properties") or {}).values(), schema_.get("items"), schema_.get("additionalProperties")]
    return bool(schema_.get("x-kubernetes-embedded-resource")) or any(map(embeds, inner))


def walk(value: Any, schema_: Any, path: str = "") -> Iterator[tuple[Obj, str]]:
    """Each object that is embedded, and where."""
    if not isinstance(schema_, dict):
        return
    if isinstance(value, dict):
        if schema_.get("x-kubernetes-embedded-resource"):
            yield value, path
        properties, more = schema_.get("properties") or {}, schema_.get("additionalProperties")
        for name, inner in value.items():
            if name in properties:
                yield from walk(inner, properties[name], f"{path}.{name}" if path else name)
            elif more is not None:
                yield from walk(inner, more, f"{path}[{name}]")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from walk(inner, schema_.get("items"), f"{path}[{i}]")


def coerce(obj: Obj, schema_: Obj) -> list[str]:
    """Decodes the metadata of what is embedded, in place; the paths of unknown fields, sorted. Raises Unfit."""
    unknown: list[str] = []
    for one, path in walk(obj, schema_):
        for key in ("apiVersion", "kind"):
            if key in one and not isinstance(one[key], str):
                raise Unfit(_unfit(f"{path}.{key}", one[key], "must be a string"))
        if "metadata" in one:
            one["metadata"], found = decoded(one["metadata"], f"{path}.metadata")
            unknown += [f"{path}.metadata.{name}" for name in found]
    return sorted(unknown)


def decoded(meta: Any, path: str) -> tuple[Obj, list[str]]:
    """As every object's metadata. Raises Unfit."""
    if meta is None:
        return {}, []
    given = orjson.loads(orjson.dumps(meta, default=float))
    try:
        if not isinstance(meta, dict):
            raise schema.WrongType(not_metadata(meta))
        return meta, schema.decode(schema.object_meta(), meta)
    except schema.WrongType as e:
        raise Unfit(_unfit(path, given, str(e))) from None


def not_metadata(value: Any) -> str:
    kinds = {list: "array", str: "string", bool: "bool"}
    return f"json: cannot unmarshal {kinds.get(type(value), 'number')} into Go value of type v1.ObjectMeta"


def _unfit(path: str, value: Any, why: str) -> str:
    return str(status.invalid_value(path, value, why))


def faults(obj: Obj, schema_: Obj) -> Iterator[FieldError]:
    for one, path in walk(obj, schema_):
        yield from _object(one, path)


def _object(obj: Obj, path: str) -> Iterator[FieldError]:
    for key in ("apiVersion", "kind"):
        if key not in obj:
            yield status.required(f"{path}.{key}")
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if version == "":
        yield status.invalid_value(f"{path}.apiVersion", version, "must not be empty")
    elif isinstance(version, str) and version.count("/") > 1:
        yield status.invalid_value(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}")
    if kind == "":
        yield status.invalid_value(f"{path}.kind", kind, "must not be empty")
    elif isinstance(kind, str) and (bad := names.dns1035_label(kind.lower())):
        why = f"may have mixed case, but should otherwise match: {','.join(bad)}"
        yield status.invalid_value(f"{path}.kind", kind, why)
    meta = obj.get("metadata")
    if isinstance(meta, dict):
        for error in objectmeta.validate_embedded(meta):
            yield replace(error, field=f"{path}.{error.field}")
