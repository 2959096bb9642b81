"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_limit_range(*args: Any) -> list[FieldError]:
    return []


def validate_resource_quota(*args: Any) -> list[FieldError]:
    return []


def validate_resource_quota_status(*args: Any) -> list[FieldError]:
    return []


def validate_resource_quota_update(*args: Any) -> list[FieldError]:
    return []
