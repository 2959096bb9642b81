"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_claim(*args: Any) -> list[FieldError]:
    return []


def validate_claim_status_update(*args: Any) -> list[FieldError]:
    return []


def validate_claim_update(*args: Any) -> list[FieldError]:
    return []


def validate_persistent_volume(*args: Any) -> list[FieldError]:
    return []


def validate_persistent_volume_update(*args: Any) -> list[FieldError]:
    return []
