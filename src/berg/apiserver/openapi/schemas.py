"""Built-in types as JSON schemas, and everything they refer to.

A schema is written from the bundle's `TypeDef`; what OpenAPI says beyond that (enumerations, unions, odd defaults) is
a merge patch over it, `data/openapi.json`, which is read when the first document is asked for. v2's form is made from
v3's. Descriptions are not ours to carry; where a package with upstream's is installed, they come from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import orjson

from berg.machinery import bundle, schema
from berg.machinery.patch import merge
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_API = "io.k8s.apimachinery.pkg."
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
_V3 = "#/components/schemas/"
_GVK = "x-kubernetes-group-version-kind"
_SCALARS: dict[str, Obj] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "double": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
}
_ZEROS: Obj = {"string": "", "bool": False, "int32": 0, "int64": 0, "double": 0}
_WIRES = {
    "quantity": f"{_API}api.resource.Quantity",
    "intorstring": f"{_API}util.intstr.IntOrString",
    "time": f"{_META}Time",
    "microtime": f"{_META}MicroTime",
    "duration": f"{_META}Duration",
    "fieldsv1": f"{_META}FieldsV1",
    "raw": f"{_API}runtime.RawExtension",
    "json": f"{_EXTENSIONS}JSON",
    "schemaorarray": f"{_EXTENSIONS}JSONSchemaPropsOrArray",
    "schemaorbool": f"{_EXTENSIONS}JSONSchemaPropsOrBool",
    "schemaorstrings": f"{_EXTENSIONS}JSONSchemaPropsOrStringArray",
}
"""what is written in a way of its own → the type's name"""
NAMED: dict[str, Obj] = {
    _WIRES["quantity"]: {"oneOf": [{"type": "string"}, {"type": "number"}]},
    _WIRES["intorstring"]: {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    _WIRES["time"]: {"type": "string", "format": "date-time"},
    _WIRES["microtime"]: {"type": "string", "format": "date-time"},
    _WIRES["duration"]: {"type": "string"},
    _WIRES["fieldsv1"]: {"type": "object"},
    _WIRES["raw"]: {"type": "object"},
    f"{_META}Patch": {"type": "object"},
}


class Schemas:
    """Gathers schemas under their names, as v3 or, with `v2`, as v2 writes them. `stands`: what stands in every group
    (`DeleteOptions`) is said to be of these group versions."""

    def __init__(self, *, v2: bool = False, stands: Callable[[str, str], bool] = lambda group, version: True) -> None:
        self.prefix = "#/definitions/" if v2 else _V3
        self.v2 = v2
        self._stands = stands
        self.found: dict[str, Obj] = {}
        self._waiting: list[str] = []

    def ref(self, name: str) -> Obj:
        """A reference to the type, whose schema will be there after `settle()`."""
        if name not in self.found:
            self.found[name] = {}
            self._waiting.append(name)
        return {"$ref": self.prefix + name}

    def settle(self) -> None:
        while self._waiting:
            name = self._waiting.pop()
            if not self.found[name]:
                shown = self._placed(written(name))
                self.found[name] = in_v2(shown) if self.v2 else shown
                for inner in references(shown):
                    self.ref(inner)

    def _placed(self, shown: Obj) -> Obj:
        kinds = shown.get(_GVK) or ()
        if len(kinds) < 2:
            return shown
        return {**shown, _GVK: [k for k in kinds if self._stands(k["group"], k["version"])]}


def written(name: str) -> Obj:
    """The schema of a built-in type as v3 has it, with descriptions where there are any."""
    more = bundle.openapi().get(name) or {}
    shown = NAMED.get(name)
    if shown is None:
        shown = _object(schema.type_named(name)) if name in bundle.type_index() else {}
    return merge.apply(_described(shown, descriptions(name)), more)


def _object(type_: TypeDef) -> Obj:
    shown: Obj = {"type": "object"}
    required = [f.name for f in type_.fields.values() if f.required]
    if required:
        shown["required"] = required
    properties = {name: _field(field) for name, field in type_.fields.items()}
    if properties:
        shown["properties"] = properties
    if type_.gvk is not None:
        shown[_GVK] = [gvk(*type_.gvk)]
    if type_.map_type:
        shown["x-kubernetes-map-type"] = type_.map_type
    return shown


def _field(field: Field) -> Obj:
    shown = _value(field)
    if "$ref" in shown:  # which may have no neighbours
        shown = {"allOf": [shown]}
        if not field.pointer and field.wire in ("object", "raw", "quantity"):
            shown["default"] = {}
    if field.default is not None:
        shown["default"] = field.default
    elif field.required and not field.pointer and field.wire in _ZEROS:
        shown["default"] = _ZEROS[field.wire]
    if field.list_type:
        shown["x-kubernetes-list-type"] = field.list_type
    if field.list_keys:
        shown["x-kubernetes-list-map-keys"] = list(field.list_keys)
    if field.map_type and field.type != "array":
        shown["x-kubernetes-map-type"] = field.map_type
    if field.patch_strategy:
        shown["x-kubernetes-patch-strategy"] = ",".join(sorted(field.patch_strategy))
    if field.patch_key:
        shown["x-kubernetes-patch-merge-key"] = field.patch_key
    return shown


def _value(field: Field) -> Obj:
    scalar = _SCALARS.get(field.wire)
    if scalar is not None:
        return dict(scalar)
    named = _WIRES.get(field.wire)
    if named is not None:
        return {"$ref": _V3 + named}
    if field.type == "array" and field.item is not None:
        return {"type": "array", "items": _value(field.item)}
    if field.type == "map" and field.item is not None:
        return {"type": "object", "additionalProperties": _value(field.item)}
    if field.type == "object":
        struct = field.struct
        return {"$ref": _V3 + struct.name} if struct is not None else {"type": "object"}
    return {}


def _described(shown: Obj, texts: dict[str, str]) -> Obj:
    if not texts:
        return shown
    properties = {
        n: {"description": texts[n], **p} if texts.get(n) else p for n, p in shown.get("properties", {}).items()
    }
    described = {**shown, **({"properties": properties} if properties else {})}
    return {"description": texts[""], **described} if texts.get("") else described


def in_v2(shown: Obj) -> Obj:
    """A v3 schema as v2 has it: references with neighbours, no defaults, no `oneOf`."""
    found: Obj = {}
    for key, value in shown.items():
        if key == "properties":
            found[key] = {name: in_v2(one) for name, one in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            found[key] = in_v2(value)
        elif key == "allOf":
            found.update(in_v2(value[0]))
        elif key == "$ref":
            found[key] = value.replace(_V3, "#/definitions/")
        elif key == "oneOf":
            found.setdefault("type", "string")
        elif key != "default":
            found[key] = value
    return found


def references(shown: Any) -> Iterator[str]:
    """Names of what a v3 schema refers to."""
    if isinstance(shown, dict):
        ref = shown.get("$ref")
        if isinstance(ref, str) and ref.startswith(_V3):
            yield ref.removeprefix(_V3)
        for inner in shown.values():
            yield from references(inner)
    elif isinstance(shown, list):
        for inner in shown:
            yield from references(inner)


def gvk(group: str, version: str, kind: str) -> Obj:
    return {"group": group, "kind": kind, "version": version}


@cache
def _definitions() -> dict[str, Any]:
    """Upstream's definitions with their words, from the package kubernetes-validate when it is installed."""
    from importlib.util import find_spec

    spec = find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        return {}
    from pathlib import Path

    path = Path(spec.origin).parent / "kubernetes-json-schema" / "v1.37.0-local" / "_definitions.json"
    try:
        found: dict[str, Any] = orjson.loads(path.read_bytes())["$defs"]
    except (OSError, ValueError, KeyError):
        return {}
    return found


def descriptions(name: str) -> dict[str, str]:
    """Field → text; "" is the type's own."""
    found = _definitions().get(name)
    if found is None:
        return {}
    texts = {n: p.get("description", "") for n, p in (found.get("properties") or {}).items()}
    texts[""] = found.get("description", "")
    return texts
