"""The checks that almost every kind makes of a single field: one of a set, a range, a name, a quantity.

Each returns the faults, none when the field is good. Supported values are told sorted, as upstream tells sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from berg.machinery import names, quantity
from berg.machinery.status import FieldError, Obj, invalid_value, not_supported, required

NOT_NEGATIVE = "must be greater than or equal to 0"
POSITIVE = "must be greater than 0"
NOT_INTEGER = "must be an integer"
MAX_INT32 = 2**31 - 1


def not_negative(path: str, value: int | None) -> list[FieldError]:
    return [invalid_value(path, value, NOT_NEGATIVE)] if value is not None and value < 0 else []


def positive(path: str, value: int | None) -> list[FieldError]:
    return [invalid_value(path, value, POSITIVE)] if value is not None and value <= 0 else []


def between(path: str, value: int, low: int, high: int) -> list[FieldError]:
    if low <= value <= high:
        return []
    return [invalid_value(path, value, f"must be between {low} and {high}, inclusive")]


def one_of(path: str, value: Any, supported: Sequence[str], *, empty: str | None = "") -> list[FieldError]:
    """`empty`: the detail of the Required that an empty value gets; None: it is just not supported."""
    if value in supported:
        return []
    if not value and empty is not None:
        return [required(path, empty)]
    return [not_supported(path, value or "", supported)]


def named(path: str, value: str, check: Callable[[str], Iterable[str]] = names.dns1123_subdomain) -> list[FieldError]:
    return [invalid_value(path, value, text) for text in check(value)]


def required_name(
    path: str, value: str | None, check: Callable[[str], Iterable[str]] = names.dns1123_subdomain
) -> list[FieldError]:
    return named(path, value, check) if value else [required(path)]


def present(holder: Obj, path: str, *keys: str) -> list[FieldError]:
    """Required, for each of `keys` that is missing or empty under `path`."""
    return [required(f"{path}.{key}") for key in keys if not holder.get(key)]


def port_number(path: str, value: int) -> list[FieldError]:
    return [invalid_value(path, value, text) for text in names.port_number(value)]


def port(path: str, value: Any) -> list[FieldError]:
    """A number or a name."""
    if isinstance(value, str):
        return [invalid_value(path, value, text) for text in names.port_name(value)]
    return port_number(path, value if isinstance(value, int) else 0)


def is_integer_resource(name: str) -> bool:
    """Counted, not measured: objects in quotas, and everything that is not Kubernetes' own."""
    return name in _OBJECT_COUNTS or is_extended(name)


_OBJECT_COUNTS = frozenset(
    {
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    }
)


def is_native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """A device or the like: its name has a domain of its own."""
    if is_native(name) or name.startswith("requests."):
        return False
    return not names.qualified_name(f"requests.{name}")


def amount(path: str, name: str, value: Any) -> list[FieldError]:
    """A quantity of the resource `name`: not negative, whole where it is counted."""
    try:
        q = quantity.of(value)
    except ValueError as e:
        return [invalid_value(path, value, str(e))]
    errors: list[FieldError] = []
    if q.nano < 0:
        errors.append(invalid_value(path, str(q), NOT_NEGATIVE))
    if is_integer_resource(name) and q.milli() % 1000:
        errors.append(invalid_value(path, str(q), NOT_INTEGER))
    return errors
