"""What an event may look like: leniently for those of the core group, strictly for those of events.k8s.io.

Source: kubernetes pkg/apis/core/validation/events.go.
"""

from __future__ import annotations

from berg.apiserver.kinds import checks, immutable
from berg.machinery import names
from berg.machinery.resources import Resource
from berg.machinery.status import FieldError, Obj, invalid_value, required

_LIMIT = 128
_NOTE_LIMIT = 1024
_UNSET = "needs to be unset"
_KEPT = (
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "reason",  # twice, as upstream
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
)
_NAMES = {"reportingComponent": "reportingController"}


def validate_event(obj: Obj, resource: Resource) -> list[FieldError]:
    """`obj` has the core group's fields, whatever group it came in."""
    errors = _common(obj, resource)
    if not resource.group:
        return errors
    for key in ("generateName", "name"):
        errors += checks.named(f"metadata.{key}", name) if (name := obj["metadata"].get(key)) else []
    errors += _series(obj)
    if not obj.get("eventTime"):
        errors.append(required("eventTime"))
    if obj.get("type") not in ("Normal", "Warning"):
        errors.append(invalid_value("type", "", f"has invalid value: {obj.get('type') or ''}"))
    errors += [invalid_value(k, "", _UNSET) for k in ("firstTimestamp", "lastTimestamp", "count") if obj.get(k)]
    source = obj.get("source") or {}
    if source.get("component") or source.get("host"):
        errors.append(invalid_value("source", "", _UNSET))
    return errors


def validate_event_update(obj: Obj, old: Obj, resource: Resource) -> list[FieldError]:
    errors = _common(obj, resource)
    if not resource.group:
        return errors
    if obj.get("series") != old.get("series"):
        errors += _series(obj)
    for key in _KEPT:
        for error in immutable.immutable(obj, old, key):
            errors.append(invalid_value(_NAMES.get(key, key), error.value, immutable.MESSAGE))
    return errors


def _series(obj: Obj) -> list[FieldError]:
    series = obj.get("series")
    errors: list[FieldError] = []
    if series is not None:
        if (series.get("count") or 0) < 2:
            errors.append(invalid_value("series.count", "", "should be at least 2"))
        if not series.get("lastObservedTime"):
            errors.append(required("series.lastObservedTime"))
    return errors


def _common(obj: Obj, resource: Resource) -> list[FieldError]:
    namespace = (obj.get("metadata") or {}).get("namespace") or ""
    about = (obj.get("involvedObject") or {}).get("namespace") or ""
    mismatch = invalid_value("involvedObject.namespace", about, "does not match event.namespace")
    errors: list[FieldError] = []
    if not obj.get("eventTime"):
        if namespace not in ((about,) if about else ("", "default")):
            errors.append(mismatch)
    else:
        if not about and namespace not in ("default", "kube-system"):
            errors.append(mismatch)
        errors += _told(obj, resource)
    return errors + checks.named("namespace", namespace)


def _told(obj: Obj, resource: Resource) -> list[FieldError]:
    controller = obj.get("reportingComponent") or ""
    path = "reportingController" if resource.group else "reportingComponent"
    errors = [] if controller else [required(path)]
    errors += checks.named(path, controller, names.qualified_name)
    for key in ("reportingInstance", "action", "reason"):
        value = obj.get(key) or ""
        if not value:
            errors.append(required(key))
        if len(value.encode()) > _LIMIT:
            errors.append(invalid_value(key, "", f"can have at most {_LIMIT} characters"))
    if len((obj.get("message") or "").encode()) > _NOTE_LIMIT:
        errors.append(invalid_value("message", "", f"can have at most {_NOTE_LIMIT} characters"))
    return errors
