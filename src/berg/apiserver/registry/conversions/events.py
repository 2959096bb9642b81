"""Events of core/v1 and of events.k8s.io/v1: the same object under other field names.

Source: kubernetes pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

from berg.apiserver.registry.conversion import conversion
from berg.machinery.status import Obj

_NAMES = (
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
)


@conversion("events", "v1", "events.k8s.io/v1")
def to_events(obj: Obj) -> None:
    _rename(obj, _NAMES)
    for field in ("deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"):
        obj.setdefault(field, None)
    for field in ("reportingController", "reportingInstance"):
        if not obj.get(field):
            obj.pop(field, None)  # core's type always writes these, this group's only when there is something


@conversion("events", "events.k8s.io/v1", "v1")
def to_core(obj: Obj) -> None:
    _rename(obj, tuple((new, old) for old, new in _NAMES))
    obj.setdefault("involvedObject", {})
    obj.setdefault("source", {})


def _rename(obj: Obj, names: tuple[tuple[str, str], ...]) -> None:
    for old, new in names:
        if old in obj:
            obj[new] = obj.pop(old)
