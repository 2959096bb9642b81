"""Checks that the kinds of dynamic resource allocation share: bounded lists, names of pools, attributes and devices.

Source: kubernetes pkg/apis/resource/validation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.volume_sources import csi_driver_name
from berg.apiserver.kinds.label_selectors import validate_label_name
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, invalid_value, not_supported, required, too_long, too_many

EFFECTS = ("NoExecute", "NoSchedule", "None")
_LONGEST_POOL, _LONGEST_ID = 253, 32
_BINDING_CONDITIONS = 4
_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_identifier = re.compile(_IDENTIFIER)
_BAD_IDENTIFIER = (
    "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters "
    f"or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '{_IDENTIFIER}')"
)

driver_name = csi_driver_name


def items(
    path: str,
    given: Sequence[Any] | None,
    limit: int,
    check: Callable[[Any, str], Iterable[FieldError]],
    key: Callable[[Any], Any] | None = None,
    *,
    shown: Callable[[Any], Any] = lambda key: key,
) -> list[FieldError]:
    """`key`: what must differ among them, and how that is told. Nothing but their number is told when there are
    too many."""
    given = given or ()
    if len(given) > limit:
        return [too_many(path, len(given), limit)]
    errors: list[FieldError] = []
    for i, item in enumerate(given):
        errors += check(item, f"{path}[{i}]")
    if key is not None:
        seen: set[Any] = set()
        for i, item in enumerate(given):
            own = key(item)
            if own in seen:
                errors.append(duplicate(f"{path}[{i}]", shown(own)))
            seen.add(own)
    return errors


def pool_name(path: str, name: str) -> list[FieldError]:
    if not name:
        return [required(path)]
    errors = [too_long(path, "", _LONGEST_POOL)] if len(name) > _LONGEST_POOL else []
    for part in name.split("/"):
        errors += checks.named(path, part)
    return errors


def _c_identifier(path: str, name: str) -> list[FieldError]:
    errors = [too_long(path, "", _LONGEST_ID)] if len(name) > _LONGEST_ID else []
    return errors if _identifier.fullmatch(name) else [*errors, invalid_value(path, name, _BAD_IDENTIFIER)]


def qualified_name(path: str, name: str) -> list[FieldError]:
    """`model`, `gpu.example.com/model`."""
    parts = name.split("/")
    if len(parts) == 1:
        return _c_identifier(path, name)
    if len(parts) != 2:
        return []
    domain, own = parts
    errors = driver_name(path, domain) if domain else [invalid_value(path, "", "the domain must not be empty")]
    return errors + (_c_identifier(path, own) if own else [invalid_value(path, "", "the name must not be empty")])


def fully_qualified_name(path: str, name: str) -> list[FieldError]:
    errors = qualified_name(path, name)
    if "/" not in name:
        why = "a fully qualified name must be a domain and a name separated by a slash"
        errors.append(invalid_value(path, name, why))
    return errors


def taint(body: Obj, at: str) -> list[FieldError]:
    errors = validate_label_name(body.get("key") or "", f"{at}.key")
    if body.get("value"):
        errors += checks.named(f"{at}.value", body["value"], names.label_value)
    return errors + checks.one_of(f"{at}.effect", body.get("effect"), EFFECTS)


def toleration(body: Obj, at: str) -> list[FieldError]:
    operator, value, effect = body.get("operator") or "", body.get("value") or "", body.get("effect") or ""
    errors = validate_label_name(body["key"], f"{at}.key") if body.get("key") else []
    if operator == "Exists":
        if value:
            errors.append(invalid_value(f"{at}.value", value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        errors += checks.named(f"{at}.value", value, names.label_value)
    else:
        errors += checks.one_of(f"{at}.operator", operator, ("Equal", "Exists"))
    if effect and effect not in EFFECTS:
        errors.append(not_supported(f"{at}.effect", effect, EFFECTS))
    return errors


def binding_conditions(body: Obj, at: str) -> list[FieldError]:
    """What must be true, and what may not be, before a pod is bound to a node with the device."""
    given = {key: body.get(key) for key in ("bindingConditions", "bindingFailureConditions")}
    good, bad = given["bindingConditions"] or [], given["bindingFailureConditions"] or []
    errors: list[FieldError] = []
    for key, names_ in given.items():
        errors += items(f"{at}.{key}", names_, _BINDING_CONDITIONS, validate_label_name)
    for key, names_ in given.items():
        for i, name in enumerate(names_ or ()):
            path = f"{at}.{key}[{i}]"
            if name in (names_ or ())[:i]:
                errors.append(duplicate(path, name))
            if names_ is bad and name in good:
                why = "bindingFailureConditions must not overlap with bindingConditions"
                errors.append(invalid_value(path, name, why))
    for missing, used in (("bindingConditions", "bindingFailureConditions"),) * bool(bad) + (
        ("bindingFailureConditions", "bindingConditions"),
    ) * bool(good):
        if not given[missing]:
            errors.append(invalid_value(f"{at}.{missing}", given[missing], f"{missing} are required to use {used}"))
    return errors
