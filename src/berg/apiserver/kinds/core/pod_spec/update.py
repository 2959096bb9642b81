"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def keep_all_but_ephemeral_containers(*args: Any) -> None: ...


def keep_all_but_resources(*args: Any) -> None: ...


def validate_ephemeral_containers_update(*args: Any) -> list[FieldError]:
    return []


def validate_pod_update(*args: Any) -> list[FieldError]:
    return []


def validate_resize(*args: Any) -> list[FieldError]:
    return []
