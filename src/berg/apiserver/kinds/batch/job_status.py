"""Which changes of a Job's status are believed: a job that has ended stays as it ended.

Rules look only at what a change touches, so that a status that was odd before can still be written.

Source: kubernetes pkg/apis/batch/validation validateJobStatus, pkg/registry/batch/job getStatusValidationOptions.
"""

from __future__ import annotations

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.batch import indexes
from berg.apiserver.kinds.cells import condition, has_condition
from berg.machinery.status import OMITTED, FieldError, Obj, duplicate, invalid_value, required

_CONDITIONS = "status.conditions"


def _finished(obj: Obj) -> bool:
    return has_condition(obj, "Complete") or has_condition(obj, "Failed")


def validate_job_status_update(obj: Obj, old: Obj) -> list[FieldError]:
    status, before, spec = obj.get("status") or {}, old.get("status") or {}, obj.get("spec") or {}
    errors: list[FieldError] = []
    for key in ("active", "succeeded", "failed", "ready", "terminating"):
        errors += checks.not_negative(f"status.{key}", status.get(key))
    uncounted = status.get("uncountedTerminatedPods") or {}
    seen: set[str] = set()
    for key in ("succeeded", "failed"):
        for i, uid in enumerate(uncounted.get(key) or ()):
            at = f"status.uncountedTerminatedPods.{key}[{i}]"
            if not uid:
                errors.append(invalid_value(at, uid, "must not be empty"))
            elif uid in seen:
                errors.append(duplicate(at, uid))
            seen.add(uid)
    changed = {key for key in status.keys() | before.keys() if status.get(key) != before.get(key)}

    def turned(kind: str) -> bool:
        return has_condition(obj, kind) != has_condition(old, kind)

    def refuse(path: str, value: object, why: str) -> None:
        errors.append(invalid_value(path, value, why))

    complete, failed = has_condition(obj, "Complete"), has_condition(obj, "Failed")
    target, criteria = has_condition(obj, "FailureTarget"), has_condition(obj, "SuccessCriteriaMet")
    for one, other, wrong in (
        ("Complete", "Failed", complete and failed),
        ("Complete", "FailureTarget", complete and target),
    ):
        if wrong and (turned(one) or turned(other)):
            refuse(_CONDITIONS, OMITTED, f"cannot set {one}=True and {other}=true conditions")
    if failed and not target and (turned("Failed") or "failedIndexes" in changed):
        why = "cannot set Failed=True condition without the FailureTarget=true condition"
        refuse(_CONDITIONS, OMITTED, why)
    if complete and not criteria and (turned("Complete") or turned("SuccessCriteriaMet")):
        why = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"
        refuse(_CONDITIONS, OMITTED, why)
    if criteria and failed:
        refuse(_CONDITIONS, OMITTED, "cannot set SuccessCriteriaMet=True and Failed=true conditions")
    if criteria and target:
        refuse(_CONDITIONS, OMITTED, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
    for kind in ("Failed", "Complete", "FailureTarget"):
        if has_condition(old, kind) and not has_condition(obj, kind):
            refuse(_CONDITIONS, OMITTED, f"cannot disable the terminal {kind}=True condition")
    if has_condition(old, "SuccessCriteriaMet") and not criteria:
        refuse(_CONDITIONS, OMITTED, "cannot disable the SuccessCriteriaMet=True condition")
    errors += _times(obj, old, changed, turned("Complete"))
    if _finished(obj):
        errors += _at_the_end(obj, changed, _finished(old) != _finished(obj), spec)
    errors += _indexes(status, spec, changed)
    if (status.get("ready") or 0) > (status.get("active") or 0) and changed & {"ready", "active"}:
        refuse("status.ready", status.get("ready") or 0, "cannot set more ready pods than active")
    elastic = spec.get("completionMode") == "Indexed" and spec.get("completions") == spec.get("parallelism")
    for key in ("failed", "succeeded"):
        if (status.get(key) or 0) < (before.get(key) or 0) and not (key == "succeeded" and elastic):
            refuse(f"status.{key}", status.get(key) or 0, f"cannot decrease the {key} counter")
    return errors


def _times(obj: Obj, old: Obj, changed: set[str], completed: bool) -> list[FieldError]:
    status, before = obj.get("status") or {}, old.get("status") or {}
    start, end = status.get("startTime"), status.get("completionTime")
    errors: list[FieldError] = []
    if completed or "completionTime" in changed:
        if end is not None and not has_condition(obj, "Complete"):
            why = "cannot set completionTime when there is no Complete=True condition"
            errors.append(invalid_value("status.completionTime", end, why))
        if end is None and has_condition(obj, "Complete"):
            errors.append(required("status.completionTime", "completionTime is required for Complete jobs"))
    if start and end and end < start and changed & {"startTime", "completionTime"}:
        errors.append(invalid_value("status.completionTime", end, "must be equal to or after `startTime`"))
    if end is not None and before.get("completionTime") not in (None, end):
        errors.append(invalid_value("status.completionTime", end, "field is immutable"))
    suspended = condition(obj, "Suspended")
    resuming = has_condition(old, "Suspended") and (suspended or {}).get("status") == "False"
    running = not (obj.get("spec") or {}).get("suspend")
    if "startTime" in changed and before.get("startTime") and running and not resuming:
        why = "field is immutable for unsuspended job once set"
        errors.append(invalid_value("status.startTime", start, why))
    return errors


def _at_the_end(obj: Obj, changed: set[str], just_now: bool, spec: Obj) -> list[FieldError]:
    status = obj.get("status") or {}
    errors: list[FieldError] = []
    if (status.get("active") or 0) > 0 and (just_now or "active" in changed):
        errors.append(invalid_value("status.active", status["active"], "active>0 is invalid for finished job"))
    nothing_to_do = spec.get("suspend") and spec.get("completions") == 0
    if not status.get("startTime") and (just_now or "startTime" in changed) and not nothing_to_do:
        errors.append(required("status.startTime", "startTime is required for finished job"))
    uncounted = status.get("uncountedTerminatedPods") or {}
    if any(uncounted.values()) and (just_now or "uncountedTerminatedPods" in changed):
        errors.append(invalid_value("status.uncountedTerminatedPods", uncounted, "must be empty for finished job"))
    if (status.get("terminating") or 0) > 0 and (just_now or "terminating" in changed):
        why = "terminating>0 is invalid for finished job"
        errors.append(invalid_value("status.terminating", status["terminating"], why))
    return errors


def _indexes(status: Obj, spec: Obj, changed: set[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    completions = spec.get("completions")
    done, failed = status.get("completedIndexes") or "", status.get("failedIndexes")
    if "completedIndexes" in changed:
        if completions is not None and (fault := indexes.fault(done, completions)):
            errors.append(invalid_value("status.completedIndexes", done, f"error parsing completedIndexes: {fault}"))
        if done and spec.get("completionMode") != "Indexed":
            why = "cannot set non-empty completedIndexes when non-indexed completion mode"
            errors.append(invalid_value("status.completedIndexes", done, why))
    if failed is None:
        return errors
    if "failedIndexes" in changed:
        if spec.get("backoffLimitPerIndex") is None:
            why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
            errors.append(invalid_value("status.failedIndexes", failed, why))
        elif completions is not None and (fault := indexes.fault(failed, completions)):
            errors.append(invalid_value("status.failedIndexes", failed, f"error parsing failedIndexes: {fault}"))
    if changed & {"failedIndexes", "completedIndexes"} and completions is not None:
        both = indexes.overlap(done, failed, completions)
        if both is not None:
            why = f"failedIndexes and completedIndexes overlap at index: {both}"
            errors.append(invalid_value("status.failedIndexes", failed, why))
    return errors
