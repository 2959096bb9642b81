"""What OpenAPI says of custom resources."""

from __future__ import annotations

from typing import Any

from berg.apiserver.crd.openapi import openapi_schemas
from berg.apiserver.openapi.schemas import descriptions
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

WIDGETS = Resource("example.com", "v1", "widgets", "Widget", True, list_kind="WidgetList")
OURS = ("apiVersion", "kind", "metadata")


def published(schema: Obj | None, *, v2: bool = False) -> Any:
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}} if schema is not None else {"name": "v1"}
    return openapi_schemas({"versions": [version]}, WIDGETS, v2=v2)[0]


def own(shown: Obj) -> Obj:
    """Without what every custom resource has."""
    properties = {n: p for n, p in shown.get("properties", {}).items() if n not in OURS}
    return {k: v for k, v in shown.items() if not k.endswith("version-kind")} | {"properties": properties}


def test_fields_of_every_object_are_told_as_those_of_built_in_kinds() -> None:
    texts = descriptions("io.k8s.api.core.v1.ConfigMap")
    shown = published({"type": "object"})
    for field in OURS:
        assert shown["properties"][field].get("description", "") == texts.get(field, "")


def test_v2_lists_nothing_where_anything_may_be() -> None:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {}}}
    gvk = [{"group": "example.com", "kind": "Widget", "version": "v1"}]
    assert published(anything, v2=True) == {"type": "object", "x-kubernetes-group-version-kind": gvk}
    assert published(None, v2=True) == published(None)
    assert "a" in published(anything)["properties"]


def test_v2_leaves_out_what_it_cannot_say() -> None:
    below = {
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {}}},
        "maybe": {"type": "array", "items": {"type": "string"}, "nullable": True},
        "one": {"type": "string", "anyOf": [{"minLength": 1}]},
    }
    schema = {"type": "object", "properties": below, "required": ["maybe", "one"]}
    assert own(published(schema, v2=True)) == {
        "type": "object",
        "properties": {
            "free": {"x-kubernetes-preserve-unknown-fields": True},
            "maybe": {},
            "one": {"type": "string"},
        },
        "required": ["one"],
    }
    assert own(published(schema)) == schema


def test_an_embedded_object_has_its_fields_too() -> None:
    schema = {"type": "object", "properties": {"in": {"type": "object", "x-kubernetes-embedded-resource": True}}}
    shown = published(schema)["properties"]["in"]
    assert set(OURS) == set(shown["properties"]) and shown["required"] == ["kind", "apiVersion"]
