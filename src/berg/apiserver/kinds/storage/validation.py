"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_csi_driver(*args: Any) -> list[FieldError]:
    return []


def validate_csi_node(*args: Any) -> list[FieldError]:
    return []


def validate_storage_class(*args: Any) -> list[FieldError]:
    return []
