"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_ingress_class(*args: Any) -> list[FieldError]:
    return []


def validate_ingress_create(*args: Any) -> list[FieldError]:
    return []


def validate_ingress_update(*args: Any) -> list[FieldError]:
    return []
