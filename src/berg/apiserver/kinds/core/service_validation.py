"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def service_warnings(*args: Any) -> list[str]:
    return []


def validate_service(*args: Any) -> list[FieldError]:
    return []


def validate_service_update(*args: Any) -> list[FieldError]:
    return []
