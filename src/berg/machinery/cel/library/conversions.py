"""From one type to another: `int("7")`, `string(1.5)`, `type(x)`.

Source: cel-spec doc/langdef.md "List of Standard Definitions"; cel-go common/types.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from berg.machinery.cel import types
from berg.machinery.cel.declarations import type_names
from berg.machinery.cel.library import kind, on
from berg.machinery.cel.library.times import written, written_duration
from berg.machinery.cel.values import EvaluationError, Object, UInt

_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


def _same(value: Any) -> Any:
    return value


for _kind in ("bool", "bytes", "double", "int", "string", "uint"):
    on(_kind, _kind)(_same)


@on("bool", "string")
def truth(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise EvaluationError(
        f'type conversion error from string to bool: strconv.ParseBool: parsing "{text}": invalid syntax'
    )


@on("bytes", "string")
def octets(text: str) -> bytes:
    return text.encode()


@on("double", "int")
@on("double", "uint")
def real(value: int) -> float:
    return float(value)


@on("double", "string")
def real_of_text(text: str) -> float:
    try:
        if text.strip() != text or "_" in text:
            raise ValueError
        return float(text)
    except ValueError:
        raise EvaluationError(f'strconv.ParseFloat: parsing "{text}": invalid syntax') from None


@on("int", "double")
def whole(value: float) -> int:
    if not -(2.0**63) < value < 2.0**63:
        raise EvaluationError("integer overflow")
    return math.trunc(value)


@on("int", "uint")
@on("int", "duration")
def whole_of(value: int) -> int:
    if value >= 1 << 63:
        raise EvaluationError("integer overflow")
    return int(value)


@on("int", "timestamp")
def seconds(value: int) -> int:
    return int(value) // 10**9


@on("int", "string")
def whole_of_text(text: str) -> int:
    return _number(text, -(1 << 63), (1 << 63) - 1, "ParseInt")


@on("uint", "string")
def unsigned_of_text(text: str) -> UInt:
    return UInt(_number(text, 0, (1 << 64) - 1, "ParseUint"))


def _number(text: str, least: int, most: int, by: str) -> int:
    digits = text[1:] if text[:1] in ("+", "-") and least < 0 else text
    if not (digits.isascii() and digits.isdigit()):
        raise EvaluationError(f'strconv.{by}: parsing "{text}": invalid syntax')
    if len(digits) > 30 or not least <= int(text) <= most:
        raise EvaluationError(f'strconv.{by}: parsing "{text}": value out of range')
    return int(text)


@on("uint", "int")
def unsigned(value: int) -> UInt:
    if value < 0:
        raise EvaluationError("unsigned integer overflow")
    return UInt(value)


@on("uint", "double")
def unsigned_of_real(value: float) -> UInt:
    if not 0 <= value < 2.0**64:
        raise EvaluationError("unsigned integer overflow")
    return UInt(math.trunc(value))


# ---- to strings

on("string", "bool")(lambda value: "true" if value else "false")
on("string", "int")(str)
on("string", "uint")(lambda value: str(int(value)))
on("string", "timestamp")(written)
on("string", "duration")(written_duration)


@on("string", "bytes")
def text_of_octets(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise EvaluationError("invalid UTF-8 in bytes, cannot convert to string") from None


@on("string", "double")
def text_of_real(value: float) -> str:
    """Go's %g with as many digits as it takes."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    power = len(digits) + exponent - 1
    if -5 < power < 6:
        return format(Decimal(repr(value)).normalize(), "f")
    sign = "-" if value < 0 else ""
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'+' if power >= 0 else '-'}{abs(power):02d}"


@on("type", "any")
def type_of(value: Any) -> types.Type:
    if isinstance(value, Object):
        return types.struct(value.type, {})
    found: types.Type = type_names()[kind(value)].params[0]
    return found
