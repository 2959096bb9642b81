"""OpenAPI of other servers as part of this one's: cut down to what they are asked for here, and merged.

Two servers may give different things the same name. The one that comes later is renamed (`NAME_v2`), with all
references to it, so that nothing changes for who knew the first.

Source: k8s.io/kube-openapi pkg/aggregator, k8s.io/kube-aggregator pkg/controllers/openapi/aggregator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from berg.machinery.status import Obj

_SECTIONS = ("definitions", "parameters")
_DEFINITIONS, _PARAMETERS = "#/definitions/", "#/parameters/"
_SCHEMAS = "#/components/schemas/"
_GVK = "x-kubernetes-group-version-kind"


def filtered(document: Obj, prefix: str) -> Obj:
    """A v2 document with only the paths below `prefix`, and what these refer to."""
    paths = {p: item for p, item in (document.get("paths") or {}).items() if p.startswith(prefix)}
    return {"paths": paths, **_needed(paths, document)}


def _needed(paths: Obj, document: Obj) -> Obj:
    """Section → name → what `paths` refer to, directly or not."""
    needed: set[str] = set()
    waiting = list(_references(paths))
    while waiting:
        ref = waiting.pop()
        _, section, name = ref.split("/", 2)
        found = (document.get(section) or {}).get(name)
        if ref not in needed and found is not None:
            needed.add(ref)
            waiting += _references(found)
    return {
        section: {name: one for name, one in (document.get(section) or {}).items() if f"#/{section}/{name}" in needed}
        for section in _SECTIONS
    }


def merge(into: Obj, other: Obj) -> None:
    """Adds a v2 document's paths and what they refer to; of the same path, the one that is there stays."""
    paths = {p: item for p, item in other["paths"].items() if p not in into["paths"]}
    if not paths:
        return
    given = _needed(paths, other)
    renamed: dict[str, str] = {}
    for section in _SECTIONS:
        known = into.setdefault(section, {})
        for name, one in given[section].items():
            if name in known and not _same(known[name], one):
                free = _free_name(name, one, known, given[section], set(renamed.values()), section)
                renamed[f"#/{section}/{name}"] = f"#/{section}/{free}"
    for section in _SECTIONS:
        known = into[section]
        for name, one in given[section].items():
            target = renamed.get(f"#/{section}/{name}", name).rpartition("/")[2]
            if target not in known:
                known[target] = _rewritten(one, renamed)
            elif section == "definitions":
                known[target] = _with_kinds(known[target], one)
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
        if isinstance(ref, str) and ref.startswith((_DEFINITIONS, _PARAMETERS)):
            yield ref
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
        if isinstance(ref, str) and ref in renamed:
            return {**value, "$ref": renamed[ref]}
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


def _free_name(name: str, one: Obj, known: Obj, given: Obj, taken: set[str], section: str) -> str:
    number = 2
    while True:
        found = f"{name}_v{number}"
        if found in known and _same(known[found], one):
            return found
        if found not in known and found not in given and f"#/{section}/{found}" not in taken:
            return found
        number += 1


def _with_kinds(known: Obj, other: Obj) -> Obj:
    more = [k for k in other.get(_GVK) or () if k not in (known.get(_GVK) or ())]
    return {**known, _GVK: [*(known.get(_GVK) or ()), *more]} if more else known
