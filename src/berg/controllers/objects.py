"""Small things about objects that several controllers need."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import orjson

from berg.machinery.clock import parse_rfc3339
from berg.machinery.status import ApiError, Obj


def copied(obj: Obj) -> Obj:
    """A deep copy that may be changed: what an informer holds may not."""
    return orjson.loads(orjson.dumps(obj))


def compact(status: Obj, *, keep: tuple[str, ...] = ()) -> Obj:
    """Without the zero values, which do not appear on the wire, except for those in `keep`."""
    return {k: v for k, v in status.items() if k in keep or ((v is not None and v not in ("", 0, [], {})) or v is True)}


def replicas(obj: Obj) -> int:
    """`spec.replicas`, 1 when unset."""
    n = (obj.get("spec") or {}).get("replicas")
    return 1 if n is None else int(n)


def scaled(value: int | str | None, total: int, *, round_up: bool) -> int:
    """An IntOrString that may be a percentage of `total`. Raises ValueError on anything else."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        raise ValueError(f"invalid value for IntOrString: {value!r}")
    portion = int(value[:-1]) * total / 100
    return math.ceil(portion) if round_up else math.floor(portion)


def time_of(text: str | None) -> datetime | None:
    return parse_rfc3339(text) if text else None


def created(obj: Obj) -> str:
    """RFC 3339 in UTC compares as text."""
    return obj["metadata"].get("creationTimestamp") or ""


def by_age(obj: Obj) -> tuple[str, str]:
    """Sort key: oldest first, then by name."""
    return created(obj), obj["metadata"]["name"]


def has_cause(error: ApiError, cause: str) -> bool:
    return any(c.get("reason") == cause for c in (error.details or {}).get("causes") or ())


def namespace_is_terminating(error: ApiError) -> bool:
    """Nothing can be created there any more, and nothing need be."""
    return has_cause(error, "NamespaceTerminating")


def put_condition(conditions: list[Obj], new: Obj) -> list[Obj]:
    """`new` in its type's place; unless status and reason are the same, when the old one stays as it is.

    The transition time of the old one stays while the status does not change.
    """
    for old in conditions:
        if old["type"] == new["type"]:
            if old["status"] == new["status"]:
                if old.get("reason") == new.get("reason"):
                    return conditions
                new = {**new, "lastTransitionTime": old.get("lastTransitionTime")}
            break
    return [*(c for c in conditions if c["type"] != new["type"]), new]


def without_condition(conditions: list[Obj], type: str) -> list[Obj]:
    return [c for c in conditions if c["type"] != type]


def find_condition(conditions: list[Obj], type: str) -> Obj | None:
    return next((c for c in conditions if c["type"] == type), None)


def conditions_of(obj: Obj) -> list[Obj]:
    return list((obj.get("status") or {}).get("conditions") or [])


def nested(obj: Obj, *path: str) -> Any:
    """`obj[path…]`, or None where it ends early."""
    at: Any = obj
    for part in path:
        if not isinstance(at, dict):
            return None
        at = at.get(part)
    return at
