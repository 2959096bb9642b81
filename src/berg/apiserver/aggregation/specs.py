"""OpenAPI of other servers as part of this one's: cut down to what they are asked for here, and merged.

Two servers may give different things the same name. The one that comes later is renamed (`NAME_v2`), with all
references to it, so that nothing changes for who knew the first. Shared parameters are written out.

Source: k8s.io/kube-openapi pkg/aggregator, k8s.io/kube-aggregator pkg/controllers/openapi/aggregator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from berg.machinery.status import Obj

_DEFINITIONS, _PARAMETERS = "#/definitions/", "#/parameters/"
_SCHEMAS = "#/components/schemas/"
_GVK = "x-kubernetes-group-version-kind"


def filtered(document: Obj, prefix: str) -> Obj:
    """A v2 document with only the paths below `prefix`, and the definitions that these need."""
    shared = document.get("parameters") or {}
    paths = {p: _inlined(item, shared) for p, item in (document.get("paths") or {}).items() if p.startswith(prefix)}
    return {"paths": paths, "definitions": _needed(paths, document.get("definitions") or {})}


def _needed(paths: Obj, definitions: Obj) -> Obj:
    needed: set[str] = set()
    waiting = list(_references(paths))
    while waiting:
        name = waiting.pop()
        if name not in needed and name in definitions:
            needed.add(name)
            waiting += _references(definitions[name])
    return {name: definition for name, definition in definitions.items() if name in needed}


def merge(into: Obj, other: Obj) -> None:
    """Adds a v2 document's paths and definitions; of the same path, the one that is there stays."""
    paths = {p: item for p, item in other["paths"].items() if p not in into["paths"]}
    if not paths:
        return
    known: Obj = into["definitions"]
    given = _needed(paths, other["definitions"])
    renamed: dict[str, str] = {}
    for name, definition in given.items():
        if name in known and not _same(known[name], definition):
            renamed[name] = _free_name(name, definition, known, given, set(renamed.values()))
    for name, definition in given.items():
        target = renamed.get(name, name)
        if target not in known:
            known[target] = _rewritten(definition, renamed)
        else:
            known[target] = _with_kinds(known[target], definition)
    into["paths"].update(_rewritten(paths, renamed))


def to_v3(document: Obj) -> Obj:
    """A v2 document as v3, for a server that has no other."""

    def schema(value: Any) -> Any:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                return {**value, "$ref": value["$ref"].replace(_DEFINITIONS, _SCHEMAS)}
            return {k: schema(v) for k, v in value.items()}
        return [schema(v) for v in value] if isinstance(value, list) else value

    shared = document.get("parameters") or {}
    paths = {}
    for path, item in (document.get("paths") or {}).items():
        plain: Obj = _inlined(item, shared)
        shown: Obj = {k: [_parameter(p, schema) for p in v] for k, v in plain.items() if k == "parameters"}
        for method, operation in plain.items():
            if method != "parameters":
                shown[method] = _operation(operation, schema)
        paths[path] = shown
    return {
        "openapi": "3.0.0",
        "info": document.get("info") or {},
        "paths": paths,
        "components": {"schemas": schema(document.get("definitions") or {})},
    }


def _operation(operation: Obj, schema: Callable[[Any], Any]) -> Obj:
    shown = {k: v for k, v in operation.items() if k not in ("parameters", "responses", "consumes", "produces")}
    parameters = operation.get("parameters") or []
    shown["parameters"] = [_parameter(p, schema) for p in parameters if p.get("in") != "body"]
    for body in (p for p in parameters if p.get("in") == "body"):
        types = operation.get("consumes") or ["*/*"]
        shown["requestBody"] = {"content": {t: {"schema": schema(body.get("schema") or {})} for t in types}}
    types = operation.get("produces") or ["application/json"]
    shown["responses"] = {
        code: {
            "description": told.get("description", ""),
            **({"content": {t: {"schema": schema(told["schema"])} for t in types}} if "schema" in told else {}),
        }
        for code, told in (operation.get("responses") or {}).items()
    }
    return shown


def _parameter(parameter: Obj, schema: Callable[[Any], Any]) -> Obj:
    outside = ("name", "in", "description", "required")
    inside = {k: v for k, v in parameter.items() if k not in outside}
    return {**{k: v for k, v in parameter.items() if k in outside}, "schema": schema(inside)}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str) and ref.startswith(_DEFINITIONS):
            yield ref.removeprefix(_DEFINITIONS)
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _inlined(value: Any, shared: Obj) -> Any:
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str) and ref.startswith(_PARAMETERS):
            return shared.get(ref.removeprefix(_PARAMETERS), value)
        return {k: _inlined(v, shared) for k, v in value.items()}
    return [_inlined(v, shared) for v in value] if isinstance(value, list) else value


def _rewritten(value: Any, renamed: dict[str, str]) -> Any:
    if not renamed:
        return value
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str) and ref.removeprefix(_DEFINITIONS) in renamed:
            return {**value, "$ref": _DEFINITIONS + renamed[ref.removeprefix(_DEFINITIONS)]}
        return {k: _rewritten(v, renamed) for k, v in value.items()}
    return [_rewritten(v, renamed) for v in value] if isinstance(value, list) else value


def _same(one: Obj, other: Obj) -> bool:
    """But for the kinds they are said to stand for, and for their words."""
    return bool(_bare(one) == _bare(other))


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        said = {k: v for k, v in value.items() if k not in (_GVK, "default")}
        if isinstance(said.get("description"), str):
            del said["description"]
        return {k: _bare(v) for k, v in said.items()}
    return [_bare(v) for v in value] if isinstance(value, list) else value


def _free_name(name: str, definition: Obj, known: Obj, given: Obj, taken: set[str]) -> str:
    number = 2
    while True:
        found = f"{name}_v{number}"
        if found in known and _same(known[found], definition):
            return found
        if found not in known and found not in given and found not in taken:
            return found
        number += 1


def _with_kinds(known: Obj, other: Obj) -> Obj:
    more = [k for k in other.get(_GVK) or () if k not in (known.get(_GVK) or ())]
    return {**known, _GVK: [*(known.get(_GVK) or ()), *more]} if more else known
