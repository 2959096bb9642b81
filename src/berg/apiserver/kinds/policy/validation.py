"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_budget(*args: Any) -> list[FieldError]:
    return []


def validate_budget_status(*args: Any) -> list[FieldError]:
    return []
