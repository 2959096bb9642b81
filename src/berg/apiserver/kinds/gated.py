"""Fields that a feature gate guards: dropped while it is off, unless the object has had them before.

Source: kubernetes pkg/api/*/util.go, pkg/registry/*/strategy.go dropDisabledFields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from berg.apiserver.registry.strategy import Context
from berg.machinery.status import Obj


def drop_disabled(ctx: Context, gate: str, new: Obj, old: Obj | None, *paths: str) -> None:
    """In place. Paths are dotted, `*` for each element of a list or value of a map."""
    found = [(holder, path) for path in paths for holder in _holders(new, path.split("."))]
    if not found or ctx.enabled(gate):
        return
    if old is not None and any(True for path in paths for _ in _holders(old, path.split("."))):
        return
    for holder, path in found:
        del holder[path.rpartition(".")[2]]


def _holders(value: Any, steps: list[str]) -> Iterator[Obj]:
    """The objects that have the last step's field."""
    step, *rest = steps
    if step == "*":
        for inner in value.values() if isinstance(value, dict) else value or ():
            yield from _holders(inner, rest)
    elif isinstance(value, dict) and value.get(step) is not None:
        if rest:
            yield from _holders(value[step], rest)
        else:
            yield value
