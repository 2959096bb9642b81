"""Expressions in webhook configurations and policies have to compile.

Source: kubernetes pkg/apis/admissionregistration/validation.
"""

from __future__ import annotations

from berg.apiserver.kinds import checks
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, invalid_value, required, too_many

_MAX_CONDITIONS = 64


def expression(text: str, path: str, missing: str, *, initializers: bool = False) -> list[FieldError]:
    """`missing`: what is said of an empty one. `initializers`: it may make objects, `Object{…}`."""
    from berg.apiserver.cel import CompileError, compile_expression

    if not text.strip():
        return [required(path, missing)]
    shown = text
    if initializers:
        from berg.apiserver.admission.policy.literals import as_maps

        text = as_maps(text)
    try:
        compile_expression(text)
    except CompileError as e:
        return [invalid_value(path, shown, f"compilation failed: {e}")]
    return []


def match_conditions(conditions: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if len(conditions) > _MAX_CONDITIONS:
        errors.append(too_many(path, len(conditions), _MAX_CONDITIONS))
    seen: set[str] = set()
    for i, condition in enumerate(conditions):
        at, name = f"{path}[{i}]", condition.get("name") or ""
        errors += expression((condition.get("expression") or "").strip(), f"{at}.expression", "")
        if not name:
            errors.append(required(f"{at}.name"))
            continue
        errors += checks.named(f"{at}.name", name, names.qualified_name)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
    return errors
