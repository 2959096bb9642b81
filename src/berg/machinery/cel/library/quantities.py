"""Quantities and versions.

Source: k8s.io/apiserver pkg/cel/library/{quantity,semverlib}.go.
"""

from __future__ import annotations

import re
from functools import total_ordering
from typing import Any

from berg.machinery import quantity as quantities
from berg.machinery.cel.library import on
from berg.machinery.cel.values import EvaluationError, Named
from berg.machinery.quantity import Quantity

_Q, _S = "kubernetes.Quantity", "kubernetes.Semver"


def _made(value: Quantity) -> Named:
    return Named(_Q, _Exact(value))


class _Exact:
    """A quantity that is equal to every other way of writing the same number."""

    __slots__ = ("of",)

    def __init__(self, of: Quantity) -> None:
        self.of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Exact) and self.of.same(other.of)

    def __hash__(self) -> int:
        return hash(self.of.nano)

    def __str__(self) -> str:
        return str(self.of)


@on("quantity", "string")
def quantity(text: str) -> Named:
    try:
        return _made(quantities.parse(text))
    except ValueError as e:
        raise EvaluationError(str(e)) from None


@on("isQuantity", "string")
def is_quantity(text: str) -> bool:
    try:
        quantities.parse(text)
    except ValueError:
        return False
    return True


def _compare(a: Named, b: Named) -> int:
    x, y = a.value, b.value
    if isinstance(x, _Exact):
        x, y = x.of.nano, y.of.nano
    return (x > y) - (x < y)


for _kind in (_Q, _S):
    on("compareTo", _kind, _kind)(_compare)
    on("isGreaterThan", _kind, _kind)(lambda a, b: _compare(a, b) > 0)
    on("isLessThan", _kind, _kind)(lambda a, b: _compare(a, b) < 0)


@on("sign", _Q)
def sign(a: Named) -> int:
    nano = a.value.of.nano
    return (nano > 0) - (nano < 0)


on("add", _Q, _Q)(lambda a, b: _made(a.value.of + b.value.of))
on("sub", _Q, _Q)(lambda a, b: _made(a.value.of - b.value.of))
on("add", _Q, "int")(lambda a, b: _made(a.value.of + quantities.from_value(b)))
on("sub", _Q, "int")(lambda a, b: _made(a.value.of - quantities.from_value(b)))


@on("isInteger", _Q)
def is_integer(a: Named) -> bool:
    return bool(a.value.of.nano % 10**9 == 0 and abs(a.value.of.nano) < 2**63 * 10**9)


@on("asInteger", _Q)
def as_integer(a: Named) -> int:
    if not is_integer(a):
        raise EvaluationError("cannot convert value to integer")
    return int(a.value.of.value())


@on("asApproximateFloat", _Q)
def as_float(a: Named) -> float:
    return float(a.value.of.nano / 10**9)


# ---- versions

_NUMBER = r"(0|[1-9]\d*)"
_PART = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PART}(?:\.{_PART})*))?(?:\+([0-9A-Za-z.-]+))?")


@total_ordering
class Version:
    """Build metadata has no say in which is the higher, nor in whether two are equal."""

    __slots__ = ("order", "text")

    def __init__(self, text: str, match: re.Match[str]) -> None:
        self.text = text
        pre = match[4]
        rest = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in pre.split(".")) if pre else ()
        self.order: tuple[Any, ...] = (int(match[1]), int(match[2]), int(match[3]), not pre, rest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.order == other.order

    def __lt__(self, other: Version) -> bool:
        return self.order < other.order

    def __hash__(self) -> int:
        return hash(self.order)

    def __str__(self) -> str:
        return self.text


def _normal(text: str) -> str:
    text = text.removeprefix("v")
    end = next((i for i, c in enumerate(text) if c in "-+"), len(text))
    numbers = text[:end].split(".")
    if all(p.isdigit() for p in numbers):
        numbers = [str(int(p)) for p in numbers] + ["0"] * (3 - len(numbers))
    return ".".join(numbers) + text[end:]


def _version(text: str, normalize: bool = False) -> Named:
    shown = _normal(text) if normalize else text
    match = _SEMVER.fullmatch(shown)
    if match is None:
        raise EvaluationError(_fault(shown))
    return Named(_S, Version(shown, match))


def _fault(text: str) -> str:
    if not text:
        return "Version string empty"
    if len(text.split(".", 2)) != 3:
        return "No Major.Minor.Patch elements found"
    return f"Invalid character(s) found in version {text!r}"


def _is_version(text: str, normalize: bool = False) -> bool:
    return _SEMVER.fullmatch(_normal(text) if normalize else text) is not None


on("semver", "string")(_version)
on("semver", "string", "bool")(_version)
on("isSemver", "string")(_is_version)
on("isSemver", "string", "bool")(_is_version)
on("major", _S)(lambda v: v.value.order[0])
on("minor", _S)(lambda v: v.value.order[1])
on("patch", _S)(lambda v: v.value.order[2])
