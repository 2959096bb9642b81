"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_conditions_of_request(*args: Any) -> list[FieldError]:
    return []


def validate_request(*args: Any) -> list[FieldError]:
    return []


def validate_request_status(*args: Any) -> list[FieldError]:
    return []
