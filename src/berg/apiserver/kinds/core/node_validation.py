"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_node(*args: Any) -> list[FieldError]:
    return []


def validate_node_update(*args: Any) -> list[FieldError]:
    return []
