"""How fast a scale may move: stabilization windows, rate policies, bounds. No I/O.

Source: pkg/controller/podautoscaler/horizontal.go, normalizeDesiredReplicas*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from berg.machinery.status import Obj

UP: Obj = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
DOWN: Obj = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}


@dataclass(slots=True)
class Past:
    """What one autoscaler did and wanted lately; times are monotonic seconds."""

    recommendations: list[tuple[float, int]] = field(default_factory=list)
    ups: list[tuple[float, int]] = field(default_factory=list)
    downs: list[tuple[float, int]] = field(default_factory=list)

    def note_scale(self, now: float, before: int, after: int) -> None:
        if after > before:
            self.ups.append((now, after - before))
        elif after < before:
            self.downs.append((now, before - after))

    def trim(self, now: float, window: float) -> None:
        for events in (self.recommendations, self.ups, self.downs):
            events[:] = [e for e in events if now - e[0] <= window]


@dataclass(slots=True)
class Bounded:
    replicas: int
    able: tuple[str, str]
    """reason and message of AbleToScale"""
    limited: tuple[str, str, str]
    """status, reason and message of ScalingLimited"""


READY = ("ReadyForNewScale", "recommended size matches current size")
DOWN_STABLE = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
UP_STABLE = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)
IN_RANGE = ("False", "DesiredWithinRange", "the desired count is within the acceptable range")
TOO_MANY = ("True", "TooManyReplicas", "the desired replica count is more than the maximum replica count")
TOO_FEW = ("True", "TooFewReplicas", "the desired replica count is less than the minimum replica count")
UP_LIMIT = ("True", "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
DOWN_LIMIT = ("True", "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")


def rules(hpa: Obj, direction: str) -> Obj:
    return {**(UP if direction == "scaleUp" else DOWN), **((hpa["spec"].get("behavior") or {}).get(direction) or {})}


def bound(hpa: Obj, past: Past, current: int, wanted: int, now: float, down_window: float) -> Bounded:
    """What `wanted` becomes."""
    low, high = hpa["spec"].get("minReplicas", 1), hpa["spec"]["maxReplicas"]
    up, down = rules(hpa, "scaleUp"), rules(hpa, "scaleDown")
    up_window = up.get("stabilizationWindowSeconds") or 0
    window = down.get("stabilizationWindowSeconds")
    window = down_window if window is None else window
    stable = _stabilized(past, current, wanted, now, up_window, window)
    past.recommendations.append((now, wanted))
    able = READY if stable == wanted else DOWN_STABLE if stable > wanted else UP_STABLE
    if stable > current:
        limit = _limit_up(up, past, current, now)
        if stable > min(limit, high):
            return Bounded(min(limit, high), able, TOO_MANY if high < limit else UP_LIMIT)
    elif stable < current:
        limit = _limit_down(down, past, current, now)
        if stable < max(limit, low):
            return Bounded(max(limit, low), able, TOO_FEW if low > limit else DOWN_LIMIT)
    if stable > high:
        return Bounded(high, able, TOO_MANY)
    if stable < low:
        return Bounded(low, able, TOO_FEW)
    return Bounded(stable, able, IN_RANGE)


def _stabilized(past: Past, current: int, wanted: int, now: float, up_window: float, down_window: float) -> int:
    """Up only to the lowest of the recent recommendations, down only to the highest."""
    lowest = min((r for t, r in past.recommendations if now - t < up_window), default=wanted)
    highest = max((r for t, r in past.recommendations if now - t < down_window), default=wanted)
    result = max(current, min(lowest, wanted))
    if wanted < current:
        result = min(current, max(highest, wanted))
    return result


def _limit_up(rule: Obj, past: Past, current: int, now: float) -> int:
    if rule["selectPolicy"] == "Disabled":
        return current
    found = []
    for p in rule["policies"]:
        start = current - _sum(past.ups, now, p) + _sum(past.downs, now, p)
        if p["type"] == "Pods":
            found.append(start + p["value"])
        else:
            found.append(math.ceil(start * (1 + p["value"] / 100)))
    return min(found) if rule["selectPolicy"] == "Min" else max(found)


def _limit_down(rule: Obj, past: Past, current: int, now: float) -> int:
    if rule["selectPolicy"] == "Disabled":
        return current
    found = []
    for p in rule["policies"]:
        start = current + _sum(past.downs, now, p) - _sum(past.ups, now, p)
        if p["type"] == "Pods":
            found.append(start - p["value"])
        else:
            found.append(math.floor(start * (1 - p["value"] / 100)))
    return max(found) if rule["selectPolicy"] == "Min" else min(found)


def _sum(events: list[tuple[float, int]], now: float, policy: Obj) -> int:
    return sum(n for t, n in events if now - t < policy["periodSeconds"])
