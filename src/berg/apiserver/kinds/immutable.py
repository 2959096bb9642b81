"""Fields that may not change once an object is there.

Source: apimachinery pkg/api/validation ValidateImmutableField.
"""

from __future__ import annotations

from typing import Any

from berg.apiserver.kinds.sameness import same, same_field
from berg.machinery.status import FieldError, Obj, invalid_value
from berg.machinery.typedef import Field, type_of

MESSAGE = "field is immutable"


def look_up(obj: Obj, path: str) -> Any:
    found: Any = obj
    for key in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def field_at(obj: Obj, path: str) -> Field | None:
    """What is known of this field of an object that says its kind."""
    group, _, version = (obj.get("apiVersion") or "").rpartition("/")
    type_ = type_of(group, version, obj.get("kind") or "")
    return type_.at(*path.split(".")) if type_ else None


def immutable(obj: Obj, old: Obj, *paths: str, detail: str = MESSAGE) -> list[FieldError]:
    errors: list[FieldError] = []
    for path in paths:
        new, before, field = look_up(obj, path), look_up(old, path), field_at(obj, path)
        if not (same(new, before) if field is None else same_field(field, new, before)):
            errors.append(invalid_value(path, new, detail))
    return errors
