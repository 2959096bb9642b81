"""A CRD's structural schema as a `TypeDef`, so that custom resources take the same paths as built-in kinds.

Source: k8s.io/apiextensions-apiserver pkg/apiserver/schema (structural schemas, `x-kubernetes-*`).
"""

from __future__ import annotations

from typing import Any

from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef, object_meta

_SCALARS = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}


def type_of_crd(
    group: str, version: str, kind: str, schema: Obj | None, *, preserve_unknown_fields: bool = False
) -> TypeDef:
    """The type of one version of a CRD from its `openAPIV3Schema`. Without a schema everything but the head
    (apiVersion, kind, metadata) is unknown, or kept when `preserve_unknown_fields`."""
    name = f"{'.'.join(reversed(group.split('.')))}.{version}.{kind}"
    root = _struct(schema or {}, name)
    return TypeDef(
        name,
        {**root.fields, **_head()},
        gvk=(group, version, kind),
        open=root.open or preserve_unknown_fields,
        map_type=root.map_type,
    )


def _head() -> dict[str, Field]:
    return {
        "apiVersion": Field("apiVersion", "string"),
        "kind": Field("kind", "string"),
        "metadata": Field("metadata", "object", struct=object_meta()),
    }


def _struct(schema: Obj, name: str) -> TypeDef:
    required = set(schema.get("required") or ())
    fields = {
        key: field_of_schema(key, inner, f"{name}.{key}", required=key in required)
        for key, inner in (schema.get("properties") or {}).items()
    }
    if schema.get("x-kubernetes-embedded-resource"):
        fields.update(_head())
    return TypeDef(
        name,
        fields,
        open=bool(schema.get("x-kubernetes-preserve-unknown-fields")),
        map_type=schema.get("x-kubernetes-map-type") or "",
    )


def field_of_schema(key: str, schema: Obj, name: str, *, required: bool = False) -> Field:
    common: dict[str, Any] = {
        "required": required,
        "nullable": bool(schema.get("nullable")),
        "default": schema.get("default"),
        "open": bool(schema.get("x-kubernetes-preserve-unknown-fields")),
        "list_type": schema.get("x-kubernetes-list-type") or "",
        "list_keys": tuple(schema.get("x-kubernetes-list-map-keys") or ()),
        "map_type": schema.get("x-kubernetes-map-type") or "",
    }
    kind = schema.get("type") or ""
    if schema.get("x-kubernetes-int-or-string"):
        return Field(key, "intorstring", **common)
    if kind == "array":
        items = schema.get("items") or {}
        return Field(key, "array", item=field_of_schema("", items, name), **common)
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict) and not schema.get("properties"):
        return Field(key, "map", item=field_of_schema("", additional, name), **common)
    if additional is True and not schema.get("properties"):
        return Field(key, "map", item=Field("", "any", open=True, nullable=True), **common)
    if kind == "object" or schema.get("properties") or schema.get("x-kubernetes-embedded-resource"):
        struct = _struct(schema, name)
        if not struct.fields and struct.open:
            return Field(key, "any", **common)
        return Field(key, "object", struct=struct, **common)
    if kind in _SCALARS:
        return Field(key, _SCALARS[kind], **common)
    return Field(key, "any", **common)
