"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_event(*args: Any) -> list[FieldError]:
    return []


def validate_event_update(*args: Any) -> list[FieldError]:
    return []
