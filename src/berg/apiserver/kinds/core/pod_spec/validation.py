"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_pod_create(*args: Any) -> list[FieldError]:
    return []


def validate_template(*args: Any) -> list[FieldError]:
    return []
