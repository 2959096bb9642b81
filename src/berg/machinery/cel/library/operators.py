"""Arithmetic, comparison, membership, optionals.

Source: cel-spec doc/langdef.md; cel-go common/types.
"""

from __future__ import annotations

import math
from typing import Any

from berg.machinery.cel.library import on
from berg.machinery.cel.values import (
    NONE,
    Duration,
    EvaluationError,
    Optional,
    Timestamp,
    UInt,
    contains,
    equal,
    joined,
)

_EARLIEST, _LATEST = -62135596800 * 10**9, 253402300800 * 10**9 - 1

on("_==_", "any", "any")(equal)


@on("_!=_", "any", "any")
def unequal(a: Any, b: Any) -> bool:
    return not equal(a, b)


@on("!_", "bool")
def negation(a: bool) -> bool:
    return not a


@on("@not_strictly_false", "any")
def not_strictly_false(a: Any) -> bool:
    return a is not False


# ---- arithmetic


def _signed(value: int) -> int:
    if not -(1 << 63) <= value < 1 << 63:
        raise EvaluationError("integer overflow")
    return value


def _unsigned(value: int) -> UInt:
    if not 0 <= value < 1 << 64:
        raise EvaluationError("unsigned integer overflow")
    return UInt(value)


def _span(value: int) -> Duration:
    if not -(1 << 63) <= value < 1 << 63:
        raise EvaluationError("duration overflow")
    return Duration(value)


def moment(value: int) -> Timestamp:
    if not _EARLIEST <= value <= _LATEST:
        raise EvaluationError("timestamp overflow")
    return Timestamp(value)


def _divided(a: int, b: int) -> int:
    if b == 0:
        raise EvaluationError("division by zero")
    quotient = abs(int(a)) // abs(int(b))
    return quotient if (a < 0) == (b < 0) else -quotient


def _rest(a: int, b: int) -> int:
    if b == 0:
        raise EvaluationError("modulus by zero")
    return int(a) - int(b) * _divided(a, b)


def _ratio(a: float, b: float) -> float:
    try:
        return a / b
    except ZeroDivisionError:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)


def _float_times(a: float, b: float) -> float:
    return a * b


on("_+_", "int", "int")(lambda a, b: _signed(a + b))
on("_+_", "uint", "uint")(lambda a, b: _unsigned(int(a) + int(b)))
on("_+_", "double", "double")(lambda a, b: a + b)
on("_+_", "string", "string")(lambda a, b: a + b)
on("_+_", "bytes", "bytes")(lambda a, b: a + b)
on("_+_", "list", "list")(joined)
on("_+_", "duration", "duration")(lambda a, b: _span(int(a) + int(b)))
on("_+_", "duration", "timestamp")(lambda a, b: moment(int(a) + int(b)))
on("_+_", "timestamp", "duration")(lambda a, b: moment(int(a) + int(b)))
on("_-_", "int", "int")(lambda a, b: _signed(a - b))
on("_-_", "uint", "uint")(lambda a, b: _unsigned(int(a) - int(b)))
on("_-_", "double", "double")(lambda a, b: a - b)
on("_-_", "duration", "duration")(lambda a, b: _span(int(a) - int(b)))
on("_-_", "timestamp", "duration")(lambda a, b: moment(int(a) - int(b)))
on("_-_", "timestamp", "timestamp")(lambda a, b: _span(int(a) - int(b)))
on("_*_", "int", "int")(lambda a, b: _signed(a * b))
on("_*_", "uint", "uint")(lambda a, b: _unsigned(int(a) * int(b)))
on("_*_", "double", "double")(_float_times)
on("_/_", "int", "int")(lambda a, b: _signed(_divided(a, b)))
on("_/_", "uint", "uint")(lambda a, b: _unsigned(_divided(a, b)))
on("_/_", "double", "double")(_ratio)
on("_%_", "int", "int")(_rest)
on("_%_", "uint", "uint")(lambda a, b: UInt(_rest(a, b)))
on("-_", "int")(lambda a: _signed(-a))
on("-_", "double")(lambda a: -a)


# ---- comparison

for _kind in ("string", "bytes", "bool", "timestamp", "duration"):
    on("_<_", _kind, _kind)(lambda a, b: a < b)
    on("_<=_", _kind, _kind)(lambda a, b: a <= b)
    on("_>_", _kind, _kind)(lambda a, b: a > b)
    on("_>=_", _kind, _kind)(lambda a, b: a >= b)
on("_<_", "number", "number")(lambda a, b: a < b)
on("_<=_", "number", "number")(lambda a, b: a <= b)
on("_>_", "number", "number")(lambda a, b: a > b)
on("_>=_", "number", "number")(lambda a, b: a >= b)


@on("@in", "any", "list")
def in_list(value: Any, values: list[Any]) -> bool:
    return contains(values, value)


@on("@in", "any", "map")
def in_map(key: Any, values: dict[Any, Any]) -> bool:
    try:
        return key in values
    except TypeError:
        return False


# ---- optionals


@on("optional.none")
def none() -> Optional:
    return NONE


@on("optional.of", "any")
def present(value: Any) -> Optional:
    return Optional(value)


@on("optional.ofNonZeroValue", "any")
def present_unless_zero(value: Any) -> Optional:
    zero = value == _EARLIEST if type(value) is Timestamp else not value
    return NONE if zero else Optional(value)


@on("value", "optional_type")
def value_of(found: Optional) -> Any:
    if not found.present:
        raise EvaluationError("optional.none() dereference")
    return found.value


@on("hasValue", "optional_type")
def has_value(found: Optional) -> bool:
    return found.present


def _unwrapped(values: list[Any]) -> list[Any]:
    for v in values:
        if not isinstance(v, Optional):
            raise EvaluationError(f"value {v} is not optional")
    return [v.value for v in values if v.present]


on("optional.unwrap", "list")(_unwrapped)
on("unwrapOpt", "list")(_unwrapped)
