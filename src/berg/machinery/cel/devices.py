"""Expressions that select devices, in resource claims and device classes.

Source: k8s.io/dynamic-resource-allocation cel/compile.go.
"""

from __future__ import annotations

from functools import cache, lru_cache

from berg.machinery.cel.environment import CompileError, Environment, Expression
from berg.machinery.cel.types import BOOL, STRING, read, struct


@cache
def _environment() -> Environment:
    device = {
        "driver": STRING,
        "allowMultipleAllocations": BOOL,
        "attributes": read("map(string,map(string,dyn))"),
        "capacity": read("map(string,map(string,kubernetes.Quantity))"),
    }
    return Environment({"device": struct("kubernetes.DRADevice", device)})


@lru_cache(maxsize=1024)
def compile_selector(text: str) -> Expression:
    """Raises CompileError, whose text says all."""
    try:
        compiled = _environment().compile(text)
    except CompileError as e:
        raise CompileError(f"{e.stage}: {e}") from None
    if compiled.result.kind not in ("bool", "dyn"):
        raise CompileError(f"must evaluate to bool or the unknown type, not {compiled.result}")
    return compiled
