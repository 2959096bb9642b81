"""What the cells of server-side tables are made of: ages, labels, images, counts.

A kind's columns stand with the kind; here is what several of them write alike. Times are told relative to
`now()`, which the server's clock answers (`use_clock`).

Source: kubernetes pkg/printers/internalversion, apimachinery pkg/util/duration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

from berg.apiserver.registry.strategy import Column
from berg.machinery.clock import Clock, RealClock, parse_rfc3339
from berg.machinery.status import Obj

_REAL = RealClock()
_clock: ContextVar[Clock] = ContextVar("clock of the tables", default=_REAL)


def use_clock(clock: Clock) -> None:
    """Makes `clock` tell the ages in this task's tables."""
    _clock.set(clock)


def now() -> datetime:
    return _clock.get().now()


def human_duration(d: timedelta) -> str:
    """Two or three significant figures: `5d`, `3h12m`, `2y41d`."""
    total = d.total_seconds()
    seconds = int(total)
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        return _pair(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return _pair(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = days // 365
    if hours < 24 * 365 * 8:
        return _pair(years, "y", days % 365, "d")
    return f"{years}y"


def _pair(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def since(timestamp: str | None) -> str:
    """How long ago, or `<unknown>`."""
    return human_duration(now() - parse_rfc3339(timestamp)) if timestamp else "<unknown>"


def age(obj: Obj) -> str:
    return since(obj["metadata"].get("creationTimestamp"))


def name(obj: Obj) -> str:
    return obj["metadata"].get("name", "")


NAME = Column("Name", name, format="name")
AGE = Column("Age", age)


def at(path: str, default: Any = "") -> Callable[[Obj], Any]:
    """A cell that shows the value at `spec.nodeName`, or `default`."""
    keys = path.split(".")

    def value(obj: Obj) -> Any:
        found: Any = obj
        for key in keys:
            if not isinstance(found, dict):
                return default
            found = found.get(key)
        return default if found is None else found

    return value


def labels(found: Mapping[str, str] | None) -> str:
    """`a=b,c=d`, or `<none>`."""
    return ",".join(f"{k}={v}" for k, v in sorted(found.items())) if found else "<none>"


_OPERATORS = {"In": " in ", "NotIn": " notin "}


def label_selector(selector: Obj | None, empty: str = "<none>") -> str:
    """A `LabelSelector` in the syntax of `kubectl -l`."""
    if selector is None:
        return empty
    terms = [(k, f"{k}={v}") for k, v in (selector.get("matchLabels") or {}).items()]
    for e in selector.get("matchExpressions") or ():
        key, operator, values = e.get("key", ""), e.get("operator"), sorted(e.get("values") or ())
        if operator in _OPERATORS:
            terms.append((key, f"{key}{_OPERATORS[operator]}({','.join(values)})"))
        else:
            terms.append((key, key if operator == "Exists" else f"!{key}"))
    terms.sort(key=lambda term: term[0])
    return ",".join(text for _, text in terms) or empty


def containers_and_images(pod_spec: Callable[[Obj], Obj]) -> list[Column]:
    """The two wide columns of everything that has a pod template."""
    return [
        Column("Containers", lambda o: _join(pod_spec(o), "name"), priority=1),
        Column("Images", lambda o: _join(pod_spec(o), "image"), priority=1),
    ]


def template_spec(obj: Obj) -> Obj:
    return ((obj.get("spec") or {}).get("template") or {}).get("spec") or {}


def _join(pod_spec: Obj, key: str) -> str:
    return ",".join(c.get(key) or "" for c in pod_spec.get("containers") or ())


def some(items: Sequence[str], limit: int = 3, none: str = "<unset>", total: int | None = None) -> str:
    """The first `limit` items, and how many more there are."""
    total = len(items) if total is None else total
    text = ",".join(items[:limit])
    if total > limit:
        return f"{text} + {total - limit} more..."
    return text or none


def condition(obj: Obj, kind: str) -> Obj | None:
    for c in (obj.get("status") or {}).get("conditions") or ():
        if c.get("type") == kind:
            return c
    return None


def has_condition(obj: Obj, kind: str) -> bool:
    found = condition(obj, kind)
    return found is not None and found.get("status") == "True"


_ACCESS_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def access_modes(modes: Iterable[str] | None) -> str:
    given = set(modes or ())
    return ",".join(short for mode, short in _ACCESS_MODES.items() if mode in given)


def is_default(obj: Obj, *annotations: str) -> bool:
    found = obj["metadata"].get("annotations") or {}
    return any(found.get(a) == "true" for a in annotations)
