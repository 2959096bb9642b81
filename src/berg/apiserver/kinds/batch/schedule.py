"""Cron schedules and time zones, as far as they must be sound.

Source: github.com/robfig/cron v3 parser.go (the messages are its own); kubernetes pkg/apis/batch/validation.
"""

from __future__ import annotations

import re

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_DAYS = "sun mon tue wed thu fri sat"
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: i for i, name in enumerate(_MONTHS.split(), 1)}),
    (0, 6, {name: i for i, name in enumerate(_DAYS.split())}),
)
_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_DURATION = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))*|0")
_ZONE_PART = re.compile(r"[A-Za-z.\-_0-9+]{1,14}")


def schedule_fault(schedule: str) -> str:
    """What is wrong with a schedule, or ""."""
    if schedule.startswith(("TZ=", "CRON_TZ=")):
        head, _, rest = schedule.partition(" ")
        zone = head.partition("=")[2]
        if not _known_zone(zone):
            return f"provided bad location {zone}: unknown time zone {zone}"
        schedule = rest.strip()
    if schedule.startswith("@"):
        if schedule.startswith("@every "):
            text = schedule.removeprefix("@every ")
            if _DURATION.fullmatch(text):
                return ""
            return f'failed to parse duration {schedule}: time: invalid duration "{text}"'
        return "" if schedule in _DESCRIPTORS else f"unrecognized descriptor: {schedule}"
    fields = schedule.split()
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    try:
        for text, (low, high, names) in zip(fields, _FIELDS, strict=True):
            for expression in filter(None, text.split(",")):
                _check_range(expression, low, high, names)
    except ValueError as e:
        return str(e)
    return ""


def _check_range(expression: str, low: int, high: int, names: dict[str, int]) -> None:
    parts = expression.split("/")
    bounds = parts[0].split("-")
    if bounds[0] in ("*", "?"):
        start, end = low, high
    else:
        start = end = _number(bounds[0], names)
        if len(bounds) == 2:
            end = _number(bounds[1], names)
        elif len(bounds) > 2:
            raise ValueError(f"too many hyphens: {expression}")
    step = 1
    if len(parts) == 2:
        step = _number(parts[1], {})
        if len(bounds) == 1:
            end = high
    elif len(parts) > 2:
        raise ValueError(f"too many slashes: {expression}")
    if start < low:
        raise ValueError(f"beginning of range ({start}) below minimum ({low}): {expression}")
    if end > high:
        raise ValueError(f"end of range ({end}) above maximum ({high}): {expression}")
    if start > end:
        raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {expression}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {expression}")


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not re.fullmatch(r"[-+]?\d+", text):
        raise ValueError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise ValueError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)


def _known_zone(zone: str) -> bool:
    from zoneinfo import ZoneInfo

    if zone in ("", "UTC", "Local"):
        return True
    try:
        ZoneInfo(zone)
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError, kept apart below
        return False
    except KeyError:
        return False
    return True


def time_zone_faults(zone: str | None) -> list[str]:
    if zone is None:
        return []
    if not zone:
        return ["timeZone must be nil or non-empty string"]
    for part in zone.split("/"):
        if part in (".", "..") or part.startswith("-") or not _ZONE_PART.fullmatch(part):
            return [f"unknown time zone {zone}"]
    faults = []
    if zone.lower() == "local":
        faults.append("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
    if not _known_zone(zone):
        faults.append(f"unknown time zone {zone}")
    return faults
