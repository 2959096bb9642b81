"""Jobs: the selector is made by the server, from the job's own uid.

Source: kubernetes pkg/registry/batch/job/strategy.go, pkg/apis/batch/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.workload import WorkloadStrategy, count, selector_column
from berg.apiserver.registry.strategy import Column, Context, strategy_for
from berg.machinery.clock import parse_rfc3339
from berg.machinery.status import FieldError, Obj

NAME_LABELS = ("job-name", "batch.kubernetes.io/job-name")
UID_LABELS = ("controller-uid", "batch.kubernetes.io/controller-uid")
MAX_INT32 = 2**31 - 1


def job_spec_defaults(spec: Obj) -> None:
    if spec.get("parallelism") is None:
        if spec.get("completions") is None:
            spec["completions"] = 1
        spec["parallelism"] = 1
    if spec.get("backoffLimit") is None:
        spec["backoffLimit"] = 6 if spec.get("backoffLimitPerIndex") is None else MAX_INT32
    if spec.get("completionMode") is None:
        spec["completionMode"] = "NonIndexed"
    if spec.get("suspend") is None:
        spec["suspend"] = False
    if spec.get("podReplacementPolicy") is None:
        spec["podReplacementPolicy"] = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    if spec.get("manualSelector") is None:
        spec["manualSelector"] = False
    failure_policy_defaults(spec)


def failure_policy_defaults(spec: Obj) -> None:
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"


def _template_labels(obj: Obj) -> Obj | None:
    found: Obj | None = ((obj["spec"].get("template") or {}).get("metadata") or {}).get("labels")
    return found


def generate_selector(obj: Obj) -> None:
    """What the user set stands; validation refuses what does not fit."""
    spec, metadata = obj["spec"], obj["metadata"]
    template = spec.setdefault("template", {})
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    for label in NAME_LABELS:
        labels.setdefault(label, metadata.get("name") or "")
    for label in UID_LABELS:
        labels.setdefault(label, metadata.get("uid") or "")
    if spec.get("selector") is None:
        spec["selector"] = {}
    if spec["selector"].get("matchLabels") is None:
        spec["selector"]["matchLabels"] = {}
    spec["selector"]["matchLabels"].setdefault(UID_LABELS[1], metadata.get("uid") or "")


_STATUS = (
    ("Complete", "Complete"),
    ("Failed", "Failed"),
    ("", "Terminating"),
    ("Suspended", "Suspended"),
    ("FailureTarget", "FailureTarget"),
    ("SuccessCriteriaMet", "SuccessCriteriaMet"),
)


def _status(obj: Obj) -> str:
    for condition, word in _STATUS:
        if cells.has_condition(obj, condition) if condition else obj["metadata"].get("deletionTimestamp"):
            return word
    return "Running"


def _completions(obj: Obj) -> str:
    spec = obj.get("spec") or {}
    succeeded = count("status.succeeded")(obj)
    if spec.get("completions") is not None:
        return f"{succeeded}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(obj: Obj) -> str:
    status = obj.get("status") or {}
    if not status.get("startTime"):
        return ""
    start = parse_rfc3339(status["startTime"])
    end = parse_rfc3339(status["completionTime"]) if status.get("completionTime") else cells.now()
    took: timedelta = end - start
    return cells.human_duration(took)


def job_spec_warnings(spec: Obj, path: str) -> list[str]:
    if spec.get("completionMode") != "Indexed" or (spec.get("completions") or 0) <= 100_000:
        return []
    if (spec.get("parallelism") or 0) <= 10_000:
        return []
    return [
        f"{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
        "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
    ]


@strategy_for("batch", "jobs")
class JobStrategy(WorkloadStrategy):
    metadata_checks = (1, 1, 1)
    orphans = True
    field_labels = ("status.successful",)
    columns = [
        cells.NAME,
        Column("Status", _status),
        Column("Completions", _completions),
        Column("Duration", _duration),
        cells.AGE,
        *cells.containers_and_images(cells.template_spec),
        selector_column(),
    ]

    def default(self, obj: Obj) -> None:
        super().default(obj)
        spec = obj["spec"]
        job_spec_defaults(spec)
        if (labels := _template_labels(obj)) and not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = labels  # one map: what is added to the template's is added here

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        super().prepare_for_create(ctx, obj)
        metadata, labels = obj["metadata"], _template_labels(obj)
        own = metadata.get("labels")
        inherited = not own or own is labels or (metadata.get("generateName") and own == labels)
        if not obj["spec"].get("manualSelector"):
            generate_selector(obj)
        if inherited and (labels := _template_labels(obj)):
            metadata["labels"] = dict(labels)

    def canonicalize(self, obj: Obj) -> None:
        if not obj["metadata"].get("labels") and (labels := _template_labels(obj)):
            obj["metadata"]["labels"] = dict(labels)  # as reading it would

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.batch.validation import validate_job

        return validate_job(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.batch.validation import validate_job_update

        return validate_job_update(obj, old)

    def spec_warnings(self, obj: Obj) -> Sequence[str]:
        return job_spec_warnings(obj.get("spec") or {}, "spec")

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.batch.job_status import validate_job_status_update

        return validate_job_status_update(obj, old)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"status.successful": str(count("status.succeeded")(obj))}
