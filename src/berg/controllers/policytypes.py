"""Are a policy's expressions of the right types for the kinds that it matches?

Checked are validations and their messages, once for each kind that the policy's rules name outright (at most ten, and
no wildcards). What does not fit is a warning in the policy's status; it changes nothing about how requests are judged.

Source: k8s.io/apiserver pkg/admission/plugin/policy/validating/typechecking.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from berg.machinery import schema
from berg.machinery.cel import CompileError
from berg.machinery.cel.admission import Compiler
from berg.machinery.cel.kinds import object_type
from berg.machinery.cel.schema import shape_of
from berg.machinery.cel.types import DYN, Type, struct
from berg.machinery.resources import builtin
from berg.machinery.status import Obj

MOST = 10

Kind = tuple[str, str, str]
"""group, version, kind"""
Custom = Mapping[tuple[str, str], Mapping[str, tuple[str, Obj]]]
"""(group, version) → plural → kind and schema, of what is not built in"""


def custom_versions(policy: Obj) -> set[tuple[str, str]]:
    """Groups and versions that must be asked for before the policy can be checked."""
    spec = policy.get("spec") or {}
    known = {(r.group, r.version) for r in builtin().all}
    named = {(group, version) for group, version, _ in _named(spec)}
    group, _, version = ((spec.get("paramKind") or {}).get("apiVersion") or "").rpartition("/")
    return {v for v in named | {(group, version)} if v[1]} - known


def warnings(policy: Obj, custom: Custom) -> list[Obj]:
    spec = policy.get("spec") or {}
    kinds = [(kind, of) for kind in _kinds(spec, custom) if (of := _type(kind, custom)) is not None]
    params = _param_type(spec, custom)
    found = []
    for i, validation in enumerate(spec.get("validations") or ()):
        for field in ("expression", "messageExpression"):
            text = validation.get(field)
            told = [t for kind, of in kinds if (t := _told(spec, text, kind, of, params))] if text else []
            if told:
                found.append({"fieldRef": f"spec.validations[{i}].{field}", "warning": "\n".join(told)})
    return found


def _told(spec: Obj, text: str, kind: Kind, of: Type, params: Type | None) -> str:
    compiler = Compiler(params=spec.get("paramKind") is not None, object_type=of, params_type=params or DYN)
    for variable in spec.get("variables") or ():
        try:
            compiler.variable(variable["name"], variable["expression"])
        except CompileError:
            continue  # of unknown type then
    try:
        compiler.checked(text)
    except CompileError as e:
        return f"{_group_version(kind)}, Kind={kind[2]}: {e}\n"
    return ""


def _group_version(kind: Kind) -> str:
    return f"{kind[0]}/{kind[1]}"


def _named(spec: Obj) -> Iterator[tuple[str, str, str]]:
    """Group, version and resource, where a rule says all three outright."""
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        groups, versions = rule.get("apiGroups") or (), rule.get("apiVersions") or ()
        if any("*" in text for text in (*groups, *versions)):
            continue
        plurals = [p for p in sorted(rule.get("resources") or ()) if "*" not in p and "/" not in p]
        yield from product(sorted(groups), sorted(versions), plurals)


def _kinds(spec: Obj, custom: Custom) -> list[Kind]:
    found: set[Kind] = set()
    for group, version, plural in _named(spec):
        known = builtin().get(group, version, plural)
        own = custom.get((group, version), {}).get(plural)
        kind = known.kind if known is not None else own[0] if own is not None else ""
        if kind:
            found.add((group, version, kind))
        if len(found) == MOST:
            break
    return sorted(found)


def _type(kind: Kind, custom: Custom) -> Type | None:
    """None when nothing is known of it."""
    group, version, name = kind
    of = schema.type_of(group, version, name)
    if of is not None:
        return object_type(of, name)
    for other, body in custom.get((group, version), {}).values():
        shape = shape_of(body, root=True, name=name) if other == name else None
        if shape is not None:
            meta = object_type(schema.object_meta(), f"{name}.metadata")
            return struct(name, {**(shape.type.fields or {}), "metadata": meta})
    return None


def _param_type(spec: Obj, custom: Custom) -> Type | None:
    kind = spec.get("paramKind") or {}
    group, _, version = (kind.get("apiVersion") or "").rpartition("/")
    return _type((group, version, kind.get("kind") or ""), custom) if version else None
