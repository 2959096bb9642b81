"""Whether CronJobs are sound.

Source: kubernetes pkg/apis/batch/validation ValidateCronJobCreate.
"""

from __future__ import annotations

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.batch.schedule import schedule_fault, time_zone_faults
from berg.apiserver.kinds.batch.validation import validate_job_spec
from berg.machinery.status import FieldError, Obj, invalid_value, not_supported, required


def validate_cron_job(obj: Obj) -> list[FieldError]:
    errors = _cron_job_spec(obj.get("spec") or {}, None)
    name = obj["metadata"].get("name") or ""
    if len(name) > 52:
        errors.append(invalid_value("metadata.name", name, "must be no more than 52 characters"))
    return errors


def validate_cron_job_update(obj: Obj, old: Obj) -> list[FieldError]:
    return _cron_job_spec(obj.get("spec") or {}, old.get("spec") or {})


def _cron_job_spec(spec: Obj, before: Obj | None) -> list[FieldError]:
    errors: list[FieldError] = []
    schedule, zone, at = spec.get("schedule") or "", spec.get("timeZone"), "spec.schedule"
    if not schedule:
        errors.append(required(at))
    else:
        if fault := schedule_fault(schedule):
            errors.append(invalid_value(at, schedule, fault))
        allowed = before is not None and "TZ" in (before.get("schedule") or "")
        if "TZ" in schedule and allowed and zone is not None:
            why = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
            errors.append(invalid_value(at, schedule, why))
        elif "TZ" in schedule and not allowed:
            why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            errors.append(invalid_value(at, schedule, why))
    errors += checks.not_negative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    if before is None or before.get("timeZone") != zone:
        errors += [invalid_value("spec.timeZone", zone, fault) for fault in time_zone_faults(zone)]
    errors += checks.one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ["Allow", "Forbid", "Replace"])
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    errors += validate_job_spec(job, "spec.jobTemplate.spec")
    if job.get("selector") is not None:
        why = "`selector` will be auto-generated"
        errors.append(invalid_value("spec.jobTemplate.spec.selector", job["selector"], why))
    if job.get("manualSelector"):
        errors.append(not_supported("spec.jobTemplate.spec.manualSelector", True, ["nil", "false"]))
    for key in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        errors += checks.not_negative(f"spec.{key}", spec.get(key))
    return errors
