"""To be filled in."""

from __future__ import annotations

from typing import Any

from berg.machinery.status import FieldError


def validate_daemon_set(*args: Any) -> list[FieldError]:
    return []


def validate_daemon_set_update(*args: Any) -> list[FieldError]:
    return []


def validate_deployment(*args: Any) -> list[FieldError]:
    return []


def validate_deployment_update(*args: Any) -> list[FieldError]:
    return []


def validate_replica_counts(*args: Any) -> list[FieldError]:
    return []


def validate_replica_set(*args: Any) -> list[FieldError]:
    return []


def validate_replica_set_update(*args: Any) -> list[FieldError]:
    return []


def validate_replication_controller(*args: Any) -> list[FieldError]:
    return []


def validate_stateful_set(*args: Any) -> list[FieldError]:
    return []


def validate_stateful_set_status(*args: Any) -> list[FieldError]:
    return []


def validate_stateful_set_update(*args: Any) -> list[FieldError]:
    return []
