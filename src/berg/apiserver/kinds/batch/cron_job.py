"""CronJobs.

Source: kubernetes pkg/registry/batch/cronjob/strategy.go, pkg/apis/batch/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.batch.job import failure_policy_defaults, job_spec_warnings
from berg.apiserver.kinds.core.pod_template import template_defaults
from berg.apiserver.kinds.workload import WorkloadStrategy, selector_column
from berg.apiserver.registry.strategy import Column, Context, strategy_for
from berg.machinery.status import FieldError, Obj


def _job_spec(obj: Obj) -> Obj:
    return ((obj.get("spec") or {}).get("jobTemplate") or {}).get("spec") or {}


def _last_schedule(obj: Obj) -> str:
    last = (obj.get("status") or {}).get("lastScheduleTime")
    return cells.since(last) if last else "<none>"


@strategy_for("batch", "cronjobs")
class CronJobStrategy(WorkloadStrategy):
    spec_defaults = (
        ("concurrencyPolicy", "Allow"),
        ("suspend", False),
        ("successfulJobsHistoryLimit", 3),
        ("failedJobsHistoryLimit", 1),
    )
    columns = [
        cells.NAME,
        Column("Schedule", cells.at("spec.schedule")),
        Column("Timezone", cells.at("spec.timeZone", "<none>")),
        Column("Suspend", lambda o: "True" if (o.get("spec") or {}).get("suspend") else "False", "boolean"),
        Column("Active", lambda o: len((o.get("status") or {}).get("active") or ()), "integer"),
        Column("Last Schedule", _last_schedule),
        cells.AGE,
        *cells.containers_and_images(lambda o: (_job_spec(o).get("template") or {}).get("spec") or {}),
        selector_column("spec.jobTemplate.spec.selector"),
    ]

    def default(self, obj: Obj) -> None:
        super().default(obj)
        spec = _job_spec(obj)
        template_defaults(spec.get("template"))
        failure_policy_defaults(spec)

    def template_of(self, obj: Obj) -> tuple[Obj, str]:
        return _job_spec(obj).get("template") or {}, "spec.jobTemplate.spec.template"

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.batch.cron_validation import validate_cron_job

        return validate_cron_job(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.batch.cron_validation import validate_cron_job_update

        return validate_cron_job_update(obj, old)

    def spec_warnings(self, obj: Obj) -> Sequence[str]:
        return job_spec_warnings(_job_spec(obj), "spec.jobTemplate.spec")

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        found = list(super().warnings(ctx, obj, old))
        if old is not None and "TZ" in ((obj.get("spec") or {}).get("schedule") or ""):
            found.append(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see "
                "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            )
        return found
