"""Faults that a write did not make are let be: old objects stay writable under a stricter schema.

A fault is let be when the value that has it, or one that it lies in, is what it was before. What it was before is
only known where old and new belong together: fields, values of maps, and elements of lists that have keys.

Source: KEP-4008, k8s.io/apiserver pkg/cel/common/equality.go.
"""

from __future__ import annotations

import re
from time import perf_counter
from typing import Any

from berg.apiserver.crd.figures import RATCHETED
from berg.machinery.status import FieldError, Obj

_STEP = re.compile(r"\[(\d+)\]|([^.\[]+)")


def made_now(errors: list[FieldError], obj: Any, old: Any, schema: Obj, *, at: str = "") -> list[FieldError]:
    """The faults that this write has to answer for. `schema`, `obj` and `old` lie at path `at`."""
    if not errors:
        return errors
    started = perf_counter()
    found = [e for e in errors if not _known(e, obj, old, schema, at)]
    RATCHETED.observe(perf_counter() - started)
    return found


def _known(fault: FieldError, new: Any, old: Any, schema: Obj, at: str) -> bool:
    path = fault.field.removeprefix(at) if fault.field != "<nil>" else ""
    steps = [(int(index), "") if index else (-1, name) for index, name in _STEP.findall(path)]
    if fault.type == "FieldValueRequired" and steps:
        steps.pop()  # the fault of what lacks it
    if not at and steps and steps[0][1] in ("apiVersion", "kind"):
        return False
    for index, name in steps:
        if new == old:
            return True
        if name:
            if not (isinstance(new, dict) and isinstance(old, dict) and name in new and name in old):
                return False
            new, old = new[name], old[name]
            inner = (schema.get("properties") or {}).get(name) or schema.get("additionalProperties")
        else:
            keys = schema.get("x-kubernetes-list-map-keys")
            if schema.get("x-kubernetes-list-type") != "map" or not keys or index >= len(new):
                return False
            new = new[index]
            before = [o for o in old or () if all(_at(o, k) == _at(new, k) for k in keys)]
            if not before:
                return False
            old, inner = before[0], schema.get("items")
        if not isinstance(inner, dict):
            return False
        schema = inner
    return bool(new == old)


def _at(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
