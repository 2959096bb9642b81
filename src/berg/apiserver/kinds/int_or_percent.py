"""Fields that hold a number or a percentage.

Source: kubernetes pkg/apis/apps/validation ValidatePositiveIntOrPercent; apimachinery pkg/util/intstr.
"""

from __future__ import annotations

import re
from typing import Any

from berg.apiserver.kinds import checks
from berg.machinery.status import FieldError, invalid_value

_percent = re.compile(r"[0-9]+%")
_PERCENT_MESSAGE = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
    "validation is '[0-9]+%')"
)


def percent(value: Any) -> int | None:
    return int(value[:-1]) if isinstance(value, str) and _percent.fullmatch(value) else None


def number(value: Any) -> int:
    """The number, or the percentage as a number; 0 for what is neither."""
    if isinstance(value, str):
        found = percent(value)
        return (int(value) if value.isdigit() else 0) if found is None else found
    return value or 0


def not_negative(path: str, value: Any) -> list[FieldError]:
    if isinstance(value, str):
        return [] if _percent.fullmatch(value) else [invalid_value(path, value, _PERCENT_MESSAGE)]
    return checks.not_negative(path, value)


def at_most_all(path: str, value: Any) -> list[FieldError]:
    found = percent(value)
    return [invalid_value(path, value, "must not be greater than 100%")] if found is not None and found > 100 else []
