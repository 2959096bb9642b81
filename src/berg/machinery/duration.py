"""Go's durations as text: `1h30m0s`, `300ms`. Inside: whole nanoseconds."""

from __future__ import annotations

import re
from decimal import Decimal

from berg.machinery.quoting import quote

_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"[+-]?(?:0|(?:{_PART.pattern})+)")


def parse(text: str) -> int:
    """Nanoseconds. Raises ValueError with Go's message."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(_fault(text))
    total = sum(int(Decimal(number) * _UNIT_NS[unit]) for number, unit in _PART.findall(text))
    return -total if text.startswith("-") else total


def _fault(text: str) -> str:
    """What Go finds wrong, reading from left to right."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    while rest:
        number = _NUMBER.match(rest)
        if number is None or number[0] == ".":
            break
        unit = _UNIT.match(rest, number.end())
        assert unit is not None
        if not unit[0]:
            return f"time: missing unit in duration {quote(text)}"
        if unit[0] not in _UNIT_NS:
            return f"time: unknown unit {quote(unit[0])} in duration {quote(text)}"
        rest = rest[unit.end() :]
    return f"time: invalid duration {quote(text)}"


_NUMBER = re.compile(r"[0-9]*\.?[0-9]*(?<=[0-9.])")
_UNIT = re.compile(r"[^0-9.]*")


def seconds(text: str) -> float:
    return parse(text) / 1e9


def show(nanoseconds: int) -> str:
    """As Go's Duration.String."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left < 1_000_000_000:
        unit = "ns" if left < 1_000 else "µs" if left < 1_000_000 else "ms"
        return f"{sign}{_decimal(left, _UNIT_NS[unit])}{unit}"
    hours, left = divmod(left, _UNIT_NS["h"])
    minutes, left = divmod(left, _UNIT_NS["m"])
    text = f"{_decimal(left, _UNIT_NS['s'])}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else sign + text


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    if not fraction:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{fraction:0{digits}}".rstrip("0")
