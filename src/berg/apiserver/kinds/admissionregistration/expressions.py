"""Expressions in webhook configurations and policies have to compile, and to evaluate to what is asked of them.

Source: kubernetes pkg/apis/admissionregistration/validation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from berg.apiserver.kinds import checks
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, invalid_value, required, too_many

if TYPE_CHECKING:
    from berg.machinery.cel.admission import Compiler

_MAX_CONDITIONS = 64


def compiler(*, params: bool, composed: bool = True) -> Compiler:
    from berg.machinery.cel.admission import Compiler

    return Compiler(params=params, composed=composed)


def expression(
    using: Compiler, text: str, path: str, missing: str, *, wanted: str = "", variable: str = ""
) -> list[FieldError]:
    """`missing`: what is said of an empty one. `wanted`: what it evaluates to: `boolean`, `text`, `text_or_null`,
    `object`, `patch`; empty: anything. `variable`: the name it gives its value to."""
    from berg.machinery.cel import CompileError, admission

    if not text.strip():
        return [required(path, missing)]
    results = {
        "boolean": admission.BOOLEAN,
        "text": admission.TEXT,
        "text_or_null": admission.TEXT_OR_NULL,
        "object": admission.object_result(),
        "patch": admission.patch_result(),
    }
    try:
        if variable:
            using.variable(variable, text)
        else:
            mutating, message = wanted in ("object", "patch"), wanted == "text"  # messages ask nobody
            using.compile(text, results.get(wanted, ()), mutating=mutating, authorizer=not message)
    except CompileError as e:
        return [invalid_value(path, text, str(e))]
    return []


def match_conditions(conditions: list[Obj], path: str, *, params: bool = False) -> list[FieldError]:
    errors: list[FieldError] = []
    if len(conditions) > _MAX_CONDITIONS:
        errors.append(too_many(path, len(conditions), _MAX_CONDITIONS))
    using = compiler(params=params, composed=False)
    seen: set[str] = set()
    for i, condition in enumerate(conditions):
        at, name = f"{path}[{i}]", condition.get("name") or ""
        text = (condition.get("expression") or "").strip()
        errors += expression(using, text, f"{at}.expression", "", wanted="boolean")
        if not name:
            errors.append(required(f"{at}.name"))
            continue
        errors += checks.named(f"{at}.name", name, names.qualified_name)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
    return errors
