"""What OpenAPI publishes of custom resources: their schemas, with what every object has.

v2 cannot say everything: junctors go, and where something may be null or unknown, so do types and properties,
because its readers take what is listed there for all that there may be.

Source: k8s.io/apiextensions-apiserver pkg/controller/openapi/builder, pkg/controller/openapi/v2.
"""

from __future__ import annotations

from typing import Any

import orjson

from berg.apiserver.openapi.schemas import descriptions
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_JUNCTORS = ("allOf", "oneOf", "anyOf", "not")


def openapi_schemas(spec: Obj, r: Resource, *, v2: bool = False) -> tuple[Obj, Obj]:
    """The schema of a custom resource and of its list. References are v3's also where the rest is v2's."""
    version = next(v for v in spec["versions"] if v["name"] == r.version)
    given: Obj | None = (version.get("schema") or {}).get("openAPIV3Schema")
    gvk = {"group": r.group, "kind": r.kind, "version": r.version}
    if given is None or (v2 and (given.get(_PRESERVE) or spec.get("preserveUnknownFields"))):
        shown: Obj = {"type": "object"}
    else:
        shown = orjson.loads(orjson.dumps(given))
        _unfold(shown)
        if v2:
            _narrow(shown)
        shown.setdefault("properties", {}).update(_every_object(v2))
        _embedded(shown, v2)
    shown["x-kubernetes-group-version-kind"] = [gvk]
    name = ".".join([*reversed(r.group.split(".")), r.version, r.kind])
    listed: Obj = {
        "type": "object",
        "description": f"{r.list_kind} is a list of {r.kind}",
        "required": ["items"],
        "properties": {
            **_every_object(v2, of="ListMeta"),
            "items": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}},
        },
        "x-kubernetes-group-version-kind": [{**gvk, "kind": r.list_kind}],
    }
    if version.get("selectableFields"):
        fields = [{"fieldPath": f["jsonPath"].removeprefix(".")} for f in version["selectableFields"]]
        shown["x-kubernetes-selectable-fields"] = listed["x-kubernetes-selectable-fields"] = fields
    return shown, listed


def _ref(name: str, v2: bool) -> Obj:
    ref = {"$ref": f"#/components/schemas/{name}"}
    return ref if v2 else {"allOf": [ref]}


def _every_object(v2: bool, *, of: str = "ObjectMeta") -> dict[str, Obj]:
    texts = descriptions(f"io.k8s.api.core.v1.{'ConfigMapList' if of == 'ListMeta' else 'ConfigMap'}")
    plain = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _ref(_META + of, v2)}
    return {f: {"description": texts[f], **what} if texts.get(f) else what for f, what in plain.items()}


def _below(schema: Obj) -> list[Obj]:
    found: list[Any] = [*(schema.get("properties") or {}).values(), schema.get("items")]
    found.append(schema.get("additionalProperties"))
    return [s for s in found if isinstance(s, dict)]


def _embedded(schema: Obj, v2: bool) -> None:
    for one in _below(schema):
        _embedded(one, v2)
    if schema.get(_EMBEDDED) and not (v2 and schema.get(_PRESERVE)):
        schema.setdefault("properties", {}).update(_every_object(v2))
        required = schema.setdefault("required", [])
        required += [f for f in ("kind", "apiVersion") if f not in required]


def _unfold(schema: Obj) -> None:
    """In place: what may be an integer or a string says so, if it does not yet."""
    if schema.get("x-kubernetes-int-or-string"):
        first = (schema.get("allOf") or [{}])[0]
        if schema.get("anyOf") is None:
            if first.get("anyOf") != _INT_OR_STRING:
                schema["anyOf"] = _INT_OR_STRING
        elif schema["anyOf"] != _INT_OR_STRING:
            schema["allOf"] = [{"anyOf": _INT_OR_STRING}, *(schema.get("allOf") or ())]
    for one in _below(schema):
        _unfold(one)


def _narrow(schema: Obj) -> None:
    """In place, to what v2 can say."""
    for junctor in _JUNCTORS:
        schema.pop(junctor, None)
    nullable, preserve = schema.pop("nullable", False), schema.get(_PRESERVE)
    if nullable:
        schema.pop("type", None)
    if nullable or preserve:
        schema.pop("items", None)
        schema.pop("properties", None)
    if (schema.get("type") == "array" and "items" not in schema) or (preserve and schema.get("type") == "object"):
        schema.pop("type")
    may_be_null = {n for n, s in (schema.get("properties") or {}).items() if s.get("nullable")}
    required = [n for n in schema.get("required") or () if n not in may_be_null]
    values = schema.get("additionalProperties")
    if not required or (isinstance(values, dict) and values.get("nullable")):
        schema.pop("required", None)
    else:
        schema["required"] = required
    for one in _below(schema):
        _narrow(one)
