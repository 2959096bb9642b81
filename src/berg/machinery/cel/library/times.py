"""Timestamps and durations: reading, writing, their parts.

Source: cel-spec doc/langdef.md "Timezones"; cel-go common/types/{timestamp,duration}.go.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

from berg.machinery import duration as go_duration
from berg.machinery.cel.library import on
from berg.machinery.cel.library.operators import moment
from berg.machinery.cel.values import Duration, EvaluationError, Timestamp

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))")
_ZONE = re.compile(r"([+-]?)(\d\d):(\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 10**9


@on("timestamp", "string")
def timestamp(text: str) -> Timestamp:
    match = _RFC3339.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        year, month, day, hour, minute, second = (int(g) for g in match.groups()[:6])
        at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise EvaluationError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}"') from None
    nanos = (at - _EPOCH) // timedelta(seconds=1) * _SECOND
    nanos += int((match[7] or "0")[:9].ljust(9, "0"))
    if match[9]:
        offset = (int(match[10]) * 3600 + int(match[11]) * 60) * _SECOND
        nanos -= offset if match[9] == "+" else -offset
    return moment(nanos)


@on("timestamp", "int")
def timestamp_of_seconds(seconds: int) -> Timestamp:
    return moment(seconds * _SECOND)


@on("timestamp", "timestamp")
@on("duration", "duration")
def same(value: Any) -> Any:
    return value


@on("duration", "string")
def duration(text: str) -> Duration:
    try:
        return Duration(go_duration.parse(text))
    except ValueError:
        raise EvaluationError(f'time: invalid duration "{text}"') from None


@on("duration", "int")
def duration_of_nanos(nanos: int) -> Duration:
    return Duration(nanos)


def written(value: Timestamp) -> str:
    at = _at(value, None)
    fraction = int(value) % _SECOND
    tail = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{at.year:04d}-{at:%m-%dT%H:%M:%S}{tail}Z"


def written_duration(value: Duration) -> str:
    seconds, rest = divmod(abs(int(value)), _SECOND)
    tail = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{'-' if value < 0 else ''}{seconds}{tail}s"


def _at(value: Timestamp, zone: str | None) -> datetime:
    at = _EPOCH + timedelta(microseconds=int(value) // 1000)
    return at if zone is None else at.astimezone(_zone(zone))


def _zone(name: str) -> tzinfo:
    match = _ZONE.fullmatch(name)
    if match is not None:
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-offset if match[1] == "-" else offset)
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise EvaluationError(f"unknown time zone {name}") from None


_PARTS: dict[str, Any] = {
    "getFullYear": lambda t: t.year,
    "getMonth": lambda t: t.month - 1,
    "getDayOfYear": lambda t: t.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda t: t.day - 1,
    "getDate": lambda t: t.day,
    "getDayOfWeek": lambda t: t.isoweekday() % 7,
    "getHours": lambda t: t.hour,
    "getMinutes": lambda t: t.minute,
    "getSeconds": lambda t: t.second,
    "getMilliseconds": lambda t: t.microsecond // 1000,
}
for _name, _part in _PARTS.items():
    on(_name, "timestamp")(lambda t, part=_part: part(_at(t, None)))
    on(_name, "timestamp", "string")(lambda t, zone, part=_part: part(_at(t, zone)))
for _name, _unit in (("getHours", 3600 * _SECOND), ("getMinutes", 60 * _SECOND), ("getSeconds", _SECOND)):
    on(_name, "duration")(lambda d, unit=_unit: abs(int(d)) // unit * (-1 if d < 0 else 1))
on("getMilliseconds", "duration")(lambda d: abs(int(d)) // 10**6 * (-1 if d < 0 else 1))
