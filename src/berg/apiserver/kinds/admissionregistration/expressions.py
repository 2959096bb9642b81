"""Expressions in webhook configurations and policies have to compile.

Source: kubernetes pkg/apis/admissionregistration/validation.
"""

from __future__ import annotations

import re

from berg.apiserver.kinds import checks
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, invalid_value, required, too_many

_MAX_CONDITIONS = 64


_OF_REQUEST = frozenset({"object", "oldObject", "request", "authorizer", "namespaceObject"})
_OF_POLICY = _OF_REQUEST | {"variables"}
_TYPES = frozenset(
    {
        "bool",
        "bytes",
        "double",
        "dyn",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "timestamp",
        "duration",
        "type",
        "uint",
    }
)
_ROOMS = frozenset(
    {
        "base64",
        "cidr",
        "format",
        "ip",
        "jsonpatch",
        "math",
        "optional",
        "quantity",
        "semver",
        "sets",
        "strings",
        "url",
        "cel",
    }
)
"""where functions have their names"""
_macro_variables = re.compile(
    r"(?:\.(?:all|exists|exists_one|existsOne|filter|map|transformList|transformMap|transformMapEntry)|\bcel\.bind)"
    r"\(\s*(\w+)\s*,(?:\s*(\w+)\s*,)?"
)


def expression(
    text: str, path: str, missing: str, *, initializers: bool = False, of_policy: bool = True, params: bool = True
) -> list[FieldError]:
    """`missing`: what is said of an empty one. `initializers`: it may make objects, `Object{…}`."""
    from berg.apiserver.cel import CompileError, compile_expression

    if not text.strip():
        return [required(path, missing)]
    shown = text
    if initializers:
        from berg.apiserver.admission.policy.literals import as_maps

        text = as_maps(text)
    try:
        used = compile_expression(text).variables
    except CompileError as e:
        return [invalid_value(path, shown, f"compilation failed: {e}")]
    known = (_OF_POLICY if of_policy else _OF_REQUEST) | _TYPES | _ROOMS | ({"params"} if params else set())
    known |= {name for found in _macro_variables.findall(text) for name in found}
    return [invalid_value(path, shown, _undeclared(shown, name)) for name in sorted(used - known)]


def _undeclared(text: str, name: str) -> str:
    found = re.search(rf"(?<![\w.]){re.escape(name)}\b", text)
    before = text[: found.start()] if found else ""
    line, column = before.count("\n"), len(before) - (before.rfind("\n") + 1)
    where = f"ERROR: <input>:{line + 1}:{column + 1}: undeclared reference to '{name}' (in container '')"
    return f"compilation failed: {where}\n | {text.splitlines()[line]}\n | {'.' * column}^"


def match_conditions(conditions: list[Obj], path: str, *, params: bool = False) -> list[FieldError]:
    errors: list[FieldError] = []
    if len(conditions) > _MAX_CONDITIONS:
        errors.append(too_many(path, len(conditions), _MAX_CONDITIONS))
    seen: set[str] = set()
    for i, condition in enumerate(conditions):
        at, name = f"{path}[{i}]", condition.get("name") or ""
        text = (condition.get("expression") or "").strip()
        errors += expression(text, f"{at}.expression", "", of_policy=params, params=params)
        if not name:
            errors.append(required(f"{at}.name"))
            continue
        errors += checks.named(f"{at}.name", name, names.qualified_name)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
    return errors
