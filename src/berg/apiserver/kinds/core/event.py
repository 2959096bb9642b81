"""Events, in core/v1 and events.k8s.io/v1: one stored kind, two spellings.

Source: kubernetes pkg/registry/core/event, pkg/apis/core/validation/events.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj

_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def involved(event: Obj) -> Obj:
    return event.get("involvedObject") or event.get("regarding") or {}


def _either(event: Obj, *keys: str) -> str:
    for key in keys:
        if found := event.get(key):
            return str(found)
    return ""


def _first_seen(event: Obj) -> str:
    return cells.since(_either(event, "firstTimestamp", "deprecatedFirstTimestamp", "eventTime") or None)


def _last_seen(event: Obj) -> str:
    if series := event.get("series"):
        return cells.since(series.get("lastObservedTime"))
    last = _either(event, "lastTimestamp", "deprecatedLastTimestamp")
    return cells.since(last) if last else _first_seen(event)


def _count(event: Obj) -> int:
    if series := event.get("series"):
        return int(series.get("count") or 0)
    return int(event.get("count") or event.get("deprecatedCount") or 1)


def _source(event: Obj) -> Obj:
    return event.get("source") or event.get("deprecatedSource") or {}


def _reporter(event: Obj) -> str:
    source = _source(event)
    component = source.get("component") or _either(event, "reportingComponent", "reportingController")
    host = source.get("host") or event.get("reportingInstance")
    return f"{component}, {host}" if host else component


def _object(event: Obj) -> str:
    target = involved(event)
    kind, name = (target.get("kind") or "").lower(), target.get("name")
    return f"{kind}/{name}" if name else kind


class EventStrategy(Strategy):
    metadata_checks = (0, 0, 0)
    has_status = False
    generation = False
    allow_create_on_update = True
    columns = [
        Column("Last Seen", _last_seen),
        Column("Type", cells.at("type")),
        Column("Reason", cells.at("reason")),
        Column("Object", _object),
        Column("Subobject", lambda e: involved(e).get("fieldPath") or "", priority=1),
        Column("Source", _reporter, priority=1),
        Column("Message", lambda e: _either(e, "message", "note").strip()),
        Column("First Seen", _first_seen, priority=1),
        Column("Count", _count, priority=1),
        Column("Name", cells.name, format="name", priority=1),
    ]

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        """Anything that fits into a path."""
        return names.path_segment(name)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.event_validation import validate_event

        return validate_event(obj, ctx.resource)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.event_validation import validate_event_update

        return validate_event_update(obj, old, ctx.resource)

    def _selectable(self, obj: Obj, reference: str, component: str) -> dict[str, str]:
        target = involved(obj)
        reporter = _either(obj, "reportingComponent", "reportingController")
        found = {f"{reference}.{key}": str(target.get(key) or "") for key in _REFERENCE}
        found["reason"] = obj.get("reason") or ""
        found["type"] = obj.get("type") or ""
        found[component] = reporter
        return found


@strategy_for("", "events")
class CoreEventStrategy(EventStrategy):
    field_labels = (
        *(f"involvedObject.{key}" for key in _REFERENCE),
        "reason",
        "reportingComponent",
        "source",
        "type",
    )

    def default(self, obj: Obj) -> None:
        """Fields that are written even when empty."""
        obj.setdefault("source", {})
        obj.setdefault("reportingComponent", "")
        obj.setdefault("reportingInstance", "")
        for key in ("firstTimestamp", "lastTimestamp", "eventTime"):
            obj.setdefault(key, None)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        found = self._selectable(obj, "involvedObject", "reportingComponent")
        return {**found, "source": _source(obj).get("component") or found["reportingComponent"]}


@strategy_for("events.k8s.io", "events")
class EventsEventStrategy(EventStrategy):
    field_labels = (*(f"regarding.{key}" for key in _REFERENCE), "reason", "reportingController", "type")

    def default(self, obj: Obj) -> None:
        obj.setdefault("eventTime", None)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return self._selectable(obj, "regarding", "reportingController")
