"""How a refused value reads in a message, where it is a struct: as Go prints the struct that upstream validates
(`berg.machinery.internal`). Only asked for when something is refused.

Source: apimachinery pkg/util/validation/field errors.go, ErrorBody.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from berg.machinery.internal import as_internal, unset
from berg.machinery.status import FieldError
from berg.machinery.typedef import TypeDef

_INDEX = re.compile(r"\[[^\]]*\]")


def errors_as_go(type_: TypeDef, errors: list[FieldError]) -> list[FieldError]:
    return [
        dataclasses.replace(e, value=_value(type_, e)) if e.value is None or isinstance(e.value, (dict, list)) else e
        for e in errors
    ]


def _value(type_: TypeDef, error: FieldError) -> Any:
    path = _INDEX.sub("", error.field)
    tried = (path, f"spec.{path}", path.replace("metadata.", "spec.", 1))  # some paths are told shorter than they are
    field = next((f for p in tried if (f := type_.at(*p.split(".")))), None)
    if field is None or not field.name:
        return error.value
    if error.value is None:
        return unset(field) if field.type in ("string", "integer", "boolean") else None
    if isinstance(error.value, dict) and field.type == "array":
        inside = error.field.endswith("]")  # else the struct around the list is what is told
        field = field.item if inside else type_.at(*path.split(".")[:-1])
    elif error.field.endswith("]") and field.item is not None:
        field = field.item
    return as_internal(field, error.value) if field else error.value
