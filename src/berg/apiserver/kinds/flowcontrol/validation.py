"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_flow_schema(*args: Any) -> list[FieldError]:
    return []


def validate_priority_level(*args: Any) -> list[FieldError]:
    return []
