"""Fields that may not change once an object is there.

Source: apimachinery pkg/api/validation ValidateImmutableField.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError, Obj, invalid_value

MESSAGE = "field is immutable"


def look_up(obj: Obj, path: str) -> Any:
    found: Any = obj
    for key in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def _same(a: Any, b: Any) -> bool:
    return a == b or (not a and not b and a is not False and b is not False and a != 0 and b != 0)


def immutable(obj: Obj, old: Obj, *paths: str, detail: str = MESSAGE) -> list[FieldError]:
    """Missing and empty are the same, as in upstream's semantic equality."""
    errors: list[FieldError] = []
    for path in paths:
        new = look_up(obj, path)
        if not _same(new, look_up(old, path)):
            errors.append(invalid_value(path, new, detail))
    return errors
