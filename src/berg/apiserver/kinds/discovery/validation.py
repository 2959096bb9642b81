"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def endpoint_slice_warnings(*args: Any) -> list[str]:
    return []


def validate_endpoint_slice(*args: Any) -> list[FieldError]:
    return []


def validate_endpoint_slice_update(*args: Any) -> list[FieldError]:
    return []
