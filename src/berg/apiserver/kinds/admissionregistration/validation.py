"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_policy(*args: Any) -> list[FieldError]:
    return []


def validate_policy_binding(*args: Any) -> list[FieldError]:
    return []


def validate_webhooks(*args: Any) -> list[FieldError]:
    return []
