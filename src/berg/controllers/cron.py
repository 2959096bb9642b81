"""Cron schedules: when next. No I/O.

The standard five fields (with names, ranges, steps, `?`), `@hourly` and its like, `@every 1h30m`. If both day of
month and day of week are restricted, either one suffices. A local time that a change of clocks skips does not
occur, one that it repeats occurs twice for `*` hours.

Source: github.com/robfig/cron v3, spec.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 6))
MONTHS = {n: i for i, n in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}  # noqa: SIM905
DAYS = {n: i for i, n in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
NAMES = {"month": MONTHS, "day of week": DAYS}
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
YEARS = 5


@dataclass(slots=True, frozen=True)
class Schedule:
    fields: tuple[frozenset[int], ...] = ()
    any_day: tuple[bool, bool] = (True, True)
    """whether day of month, and day of week, was `*`"""
    zone: tzinfo = UTC
    every_s: int = 0

    def next(self, after: datetime) -> datetime | None:
        """The first time later than `after`, in UTC; None when there is none within five years."""
        if self.every_s:
            return (after + timedelta(seconds=self.every_s)).replace(microsecond=0)
        minutes, hours, _, months, _ = self.fields
        at = after.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        limit = at.year + YEARS
        while at.year <= limit:
            local = at.astimezone(self.zone)
            if local.month not in months:
                at = self._midnight(local, _next_month(local))
            elif not self._day(local):
                at = self._midnight(local, local.replace(tzinfo=None) + timedelta(days=1))
            elif local.hour not in hours:
                at += timedelta(minutes=60 - local.minute)
            elif local.minute not in minutes:
                at += timedelta(minutes=1)
            else:
                return at
        return None

    def _midnight(self, before: datetime, day: datetime) -> datetime:
        """The start of a local day in UTC; one that a change of clocks skips begins where the clock goes on."""
        start = datetime(day.year, day.month, day.day, tzinfo=self.zone).astimezone(UTC)
        return max(start, before.astimezone(UTC) + timedelta(minutes=1))

    def _day(self, local: datetime) -> bool:
        _, _, days, _, weekdays = self.fields
        by_date, by_weekday = local.day in days, (local.weekday() + 1) % 7 in weekdays
        return by_date and by_weekday if any(self.any_day) else by_date or by_weekday


def _next_month(local: datetime) -> datetime:
    return datetime(local.year + local.month // 12, local.month % 12 + 1, 1)


def parse(text: str, zone: tzinfo = UTC) -> Schedule:
    """Raises ValueError with a message for the user."""
    text = text.strip()
    if not text:
        raise ValueError("empty spec string")
    if text.startswith("@every "):
        return Schedule(zone=zone, every_s=_every(text.removeprefix("@every ")))
    if text.startswith("@"):
        if text not in MACROS:
            raise ValueError(f"unrecognized descriptor: {text}")
        text = MACROS[text]
    parts = text.split()
    if len(parts) != len(FIELDS):
        raise ValueError(f"expected exactly {len(FIELDS)} fields, found {len(parts)}: [{' '.join(parts)}]")
    sets = [_field(part, *bounds) for part, bounds in zip(parts, FIELDS, strict=True)]
    star = [any(p in ("*", "?") or p.startswith(("*/", "?/")) for p in part.split(",")) for part in parts]
    return Schedule(tuple(sets), (star[2], star[4]), zone)


def _every(text: str) -> int:
    if not re.fullmatch(r"([0-9.]+(h|ms|m|s|us|µs|ns))+", text):
        raise ValueError(f"failed to parse duration @every {text}: invalid duration")
    seconds = sum(float(n) * UNITS[u] for n, u in re.findall(r"([0-9.]+)(h|ms|m|s|us|µs|ns)", text))
    return max(1, int(seconds))


def _field(text: str, name: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        first_text, dash, last_text = span.partition("-")
        if first_text in ("*", "?") and not dash:
            first, last = low, high
        else:
            first = _number(first_text, name)
            last = _number(last_text, name) if dash else high if slash else first
        step = _number(step_text, "") if slash else 1
        if first < low:
            raise ValueError(f"beginning of range ({first}) below minimum ({low}): {part}")
        if last > high:
            raise ValueError(f"end of range ({last}) above maximum ({high}): {part}")
        if first > last:
            raise ValueError(f"beginning of range ({first}) beyond end of range ({last}): {part}")
        if step == 0:
            raise ValueError(f"step of range should be a positive number: {part}")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, name: str) -> int:
    if (known := NAMES.get(name, {}).get(text.lower())) is not None:
        return known
    if not text.isdigit():
        raise ValueError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)
