"""Quantities: `250m`, `1.5Gi`, `1e3`: exact numbers with a preferred way of writing them.

A quantity is a whole number of nano-units inside (an int, so sums and comparisons are exact), with the format it
was written in. More precise input is rounded up, as upstream does.

Source: k8s.io/apimachinery pkg/api/resource/quantity.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache
from typing import Literal

Format = Literal["DecimalSI", "BinarySI", "DecimalExponent"]

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_NAMES = {power: suffix for suffix, power in _DECIMAL.items()}
_BINARY_NAMES = {power: suffix for suffix, power in _BINARY.items()}
_SHAPE = re.compile(r"^([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(?:([KMGTPE]i)|([numkMGTPE])|([eE][+-]?[0-9]{1,4}))?$")
_NANO = 10**9
_LIMIT = (2**63 - 1) * _NANO
"""Larger numbers are capped here, as upstream caps at 2^63-1."""

ERR_FORMAT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@dataclass(frozen=True, slots=True, order=False)
class Quantity:
    nano: int
    format: Format = "DecimalSI"

    def value(self) -> int:
        """Whole units, rounded up (away from zero)."""
        return _divide_away(self.nano, _NANO)

    def milli(self) -> int:
        return _divide_away(self.nano, 10**6)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano + other.nano, self.format if self.nano else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano - other.nano, self.format if self.nano else other.format)

    def __lt__(self, other: Quantity) -> bool:
        return self.nano < other.nano

    def __le__(self, other: Quantity) -> bool:
        return self.nano <= other.nano

    def same(self, other: Quantity) -> bool:
        return self.nano == other.nano

    def __str__(self) -> str:
        """The canonical form: no fraction, the largest suffix that keeps it exact."""
        if self.nano == 0:
            return "0"
        sign, nano = ("-", -self.nano) if self.nano < 0 else ("", self.nano)
        if self.format == "BinarySI" and nano % _NANO == 0 and (number := nano // _NANO) >= 1024:
            power = 0
            while power < 6 and number % 1024 == 0:
                number //= 1024
                power += 1
            return f"{sign}{number}{_BINARY_NAMES.get(power, '')}"
        power = -9
        while power < 18 and nano % 1000 == 0:
            nano //= 1000
            power += 3
        if self.format == "DecimalExponent":
            return f"{sign}{nano}" + (f"e{power}" if power else "")
        return f"{sign}{nano}{_DECIMAL_NAMES[power]}"


def _divide_away(number: int, by: int) -> int:
    return -(-number // by) if number >= 0 else number // by


@lru_cache(maxsize=4096)
def parse(text: str) -> Quantity:
    """Raises ValueError with upstream's message."""
    match = _SHAPE.match(text)
    if not text or match is None:
        raise ValueError(ERR_FORMAT)
    sign, digits, binary, decimal, exponent = match.groups()
    number = Decimal(digits)
    kind: Format = "DecimalSI"
    if binary:
        number *= 1024 ** _BINARY[binary]
        kind = "BinarySI"
    elif decimal:
        number = number.scaleb(_DECIMAL[decimal])
    elif exponent:
        number = number.scaleb(max(-40, min(40, int(exponent[1:]))))
        kind = "DecimalExponent"
    if sign == "-":
        number = -number
    nano = int((number * _NANO).to_integral_value(ROUND_CEILING if number > 0 else ROUND_FLOOR))
    return Quantity(max(-_LIMIT, min(_LIMIT, nano)), kind)


def of(value: str | int | float) -> Quantity:
    """From what may stand in an object: JSON allows a number where a quantity is meant."""
    return parse(value if isinstance(value, str) else str(value))


def value(text: str | int | float) -> int:
    """Whole units, rounded up: bytes of a memory quantity."""
    return of(text).value()


def milli(text: str | int | float) -> int:
    """Thousandths, rounded up: millicores of a cpu quantity."""
    return of(text).milli()


def canonical(text: str | int | float) -> str:
    return _canonical(text if isinstance(text, str) else str(text))


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    return str(parse(text))


def from_milli(number: int, format: Format = "DecimalSI") -> Quantity:
    return Quantity(number * 10**6, format)


def from_value(number: int, format: Format = "DecimalSI") -> Quantity:
    return Quantity(number * _NANO, format)
