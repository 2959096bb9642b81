"""To be filled in."""

from __future__ import annotations

from typing import Any


def pod_warnings(*args: Any) -> list[str]:
    return []


def template_warnings(*args: Any) -> list[str]:
    return []
