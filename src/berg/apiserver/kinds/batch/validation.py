"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_cron_job(*args: Any) -> list[FieldError]:
    return []


def validate_cron_job_update(*args: Any) -> list[FieldError]:
    return []


def validate_job(*args: Any) -> list[FieldError]:
    return []


def validate_job_update(*args: Any) -> list[FieldError]:
    return []
