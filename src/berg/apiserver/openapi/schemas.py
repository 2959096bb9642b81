"""Types as JSON schemas: a `TypeDef` and everything it refers to.

Descriptions are not ours to carry; where a package with upstream's is installed, they come from there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson

from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_API = "io.k8s.apimachinery.pkg."
_SCALARS: dict[str, Obj] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "double": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "duration": {"type": "string"},
    "json": {},
}
_ZEROS: Obj = {"string": "", "bool": False, "int32": 0, "int64": 0, "double": 0}
_NAMED: dict[str, tuple[str, Obj]] = {
    "quantity": (f"{_API}api.resource.Quantity", {"oneOf": [{"type": "string"}, {"type": "number"}]}),
    "intorstring": (
        f"{_API}util.intstr.IntOrString",
        {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    ),
    "time": (f"{_META}Time", {"type": "string", "format": "date-time"}),
    "microtime": (f"{_META}MicroTime", {"type": "string", "format": "date-time"}),
    "fieldsv1": (f"{_META}FieldsV1", {"type": "object"}),
    "raw": (f"{_API}runtime.RawExtension", {"type": "object"}),
}
_V2_NAMED = {
    "quantity": {"type": "string"},
    "intorstring": {"type": "string", "format": "int-or-string"},
}


class Schemas:
    """Gathers schemas under their names. `prefix` is where references point (`#/components/schemas/`)."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.v2 = prefix == "#/definitions/"
        self.found: dict[str, Obj] = {}
        self._waiting: list[TypeDef] = []

    def ref(self, name: str) -> Obj:
        return {"$ref": self.prefix + name}

    def add(self, type_: TypeDef) -> Obj:
        """A reference to the type, whose schema will be there after `settle()`."""
        if type_.name not in self.found:
            self.found[type_.name] = {}
            self._waiting.append(type_)
        return self.ref(type_.name)

    def settle(self) -> None:
        while self._waiting:
            type_ = self._waiting.pop()
            self.found[type_.name] = self._object(type_)

    def _object(self, type_: TypeDef) -> Obj:
        texts = descriptions(type_.name)
        shown: Obj = {}
        if texts.get(""):
            shown["description"] = texts[""]
        shown["type"] = "object"
        required = [f.name for f in type_.fields.values() if f.required]
        if required:
            shown["required"] = required
        properties = {}
        for name, field in type_.fields.items():
            properties[name] = self.field(field, texts.get(name, ""))
        if properties:
            shown["properties"] = properties
        if type_.gvk is not None:
            shown["x-kubernetes-group-version-kind"] = [gvk(*type_.gvk)]
        if type_.map_type:
            shown["x-kubernetes-map-type"] = type_.map_type
        return shown

    def field(self, field: Field, text: str = "") -> Obj:
        shown = self._value(field)
        if "$ref" in shown and not self.v2:
            shown = {"allOf": [shown]}
            if not field.pointer and field.wire == "object":
                shown["default"] = {}
        if text:
            shown = {"description": text, **shown}
        if field.default is not None:
            shown["default"] = field.default
        elif field.required and not field.pointer and not self.v2 and field.wire in _ZEROS:
            shown["default"] = _ZEROS[field.wire]
        if field.list_type:
            shown["x-kubernetes-list-type"] = field.list_type
        if field.list_keys:
            shown["x-kubernetes-list-map-keys"] = list(field.list_keys)
        if field.map_type and field.type != "array":
            shown["x-kubernetes-map-type"] = field.map_type
        if field.patch_strategy:
            shown["x-kubernetes-patch-strategy"] = ",".join(sorted(field.patch_strategy, reverse=True))
        if field.patch_key:
            shown["x-kubernetes-patch-merge-key"] = field.patch_key
        return shown

    def _value(self, field: Field) -> Obj:
        wire = field.wire
        scalar = _SCALARS.get(wire)
        if scalar is not None:
            return dict(scalar)
        named = _NAMED.get(wire)
        if named is not None:
            name, schema = named
            self.found.setdefault(name, _V2_NAMED.get(wire, schema) if self.v2 else schema)
            return self.ref(name)
        if field.type == "array" and field.item is not None:
            return {"type": "array", "items": self._value(field.item)}
        if field.type == "map" and field.item is not None:
            return {"type": "object", "additionalProperties": self._value(field.item)}
        if field.type == "object":
            struct = field.struct
            return self.add(struct) if struct is not None else {"type": "object"}
        return {}


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
