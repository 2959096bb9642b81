"""What a Job's pods mean for it: which failed, which failures count, how long to wait, when it has succeeded. No I/O.

Source: pkg/controller/job/{pod_failure_policy,success_policy,backoff_utils}.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from berg.controllers.job_indexes import Indexes
from berg.controllers.objects import time_of
from berg.controllers.pods import condition as pod_condition
from berg.controllers.pods import phase
from berg.machinery import meta
from berg.machinery.status import Obj

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
INDEX_IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
BACKOFF_S = 10.0
MAX_BACKOFF_S = 600.0


def is_indexed(job: Obj) -> bool:
    return job["spec"].get("completionMode") == "Indexed"


def per_index(job: Obj) -> bool:
    return job["spec"].get("backoffLimitPerIndex") is not None


def replaces_only_failed(job: Obj) -> bool:
    """Whether a pod that is terminating still holds its place."""
    return job["spec"].get("podReplacementPolicy") == "Failed" or job["spec"].get("podFailurePolicy") is not None


def is_tracked(pod: Obj) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def index_of(pod: Obj) -> int | None:
    text = meta.annotations(pod).get(INDEX, "")
    return int(text) if text.isdigit() else None


def has_failed(pod: Obj, job: Obj) -> bool:
    """A deleted pod counts as failed at once: on a node that is gone it would never get to that phase."""
    if phase(pod) == "Failed":
        return True
    return not replaces_only_failed(job) and meta.is_deleting(pod) and phase(pod) != "Succeeded"


@dataclass(slots=True)
class Verdict:
    """What the pod failure policy says of one failed pod."""

    action: str = ""
    counts: bool = True
    message: str = ""
    """for FailJob: why"""


def judge(job: Obj, pod: Obj) -> Verdict:
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or ()):
        action = rule["action"]
        text = ""
        if (wanted := rule.get("onExitCodes")) is not None:
            if (c := _exit(pod, wanted)) is not None:
                code = c["state"]["terminated"]["exitCode"]
                text = f"Container {c['name']} for pod {meta.key(pod)} failed with exit code {code}"
        elif (c := _matching_condition(pod, rule.get("onPodConditions") or [])) is not None:
            text = f"Pod {meta.key(pod)} has condition {c['type']}"
        if not text:
            continue
        if action == "FailJob":
            return Verdict(action, True, f"{text} matching FailJob rule at index {number}")
        return Verdict(action, action != "Ignore")
    return Verdict()


def _exit(pod: Obj, wanted: Obj) -> Obj | None:
    status = pod.get("status") or {}
    for c in [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]:
        ended = (c.get("state") or {}).get("terminated")
        if ended is None or not ended.get("exitCode"):
            continue
        if wanted.get("containerName") and wanted["containerName"] != c["name"]:
            continue
        if (ended["exitCode"] in wanted["values"]) == (wanted["operator"] == "In"):
            return c
    return None


def _matching_condition(pod: Obj, patterns: list[Obj]) -> Obj | None:
    for c in (pod.get("status") or {}).get("conditions") or ():
        if any(c["type"] == p["type"] and c["status"] == (p.get("status") or "True") for p in patterns):
            return c
    return None


def succeeded_by_policy(job: Obj, done: Indexes) -> str | None:
    """The message, when a rule of the success policy is met."""
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        count, text = rule.get("succeededCount"), rule.get("succeededIndexes")
        if text is not None:
            wanted = Indexes.parse(text, job["spec"]["completions"])
            common = wanted.common(done)
            met = bool(wanted) and (common == len(wanted) or (count is not None and common >= count))
        else:
            met = count is not None and len(done) >= count
        if met:
            return f"Matched rules at index {number}"
    return None


def restarts_exhausted(job: Obj, pods: list[Obj]) -> bool:
    """With restartPolicy OnFailure the kubelet restarts; its restarts are what counts against the limit."""
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    total = 0
    for pod in pods:
        if phase(pod) in ("Running", "Pending"):
            for field in ("initContainerStatuses", "containerStatuses"):
                total += sum(c.get("restartCount", 0) for c in pod["status"].get(field) or ())
    limit = job["spec"].get("backoffLimit", 6)
    return total > 0 if limit == 0 else total >= limit


def finished_at(pod: Obj) -> datetime:
    """When the last container ended; without that, the best that the pod says."""
    status = pod.get("status") or {}
    ends = [
        time_of(((c.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        for c in status.get("containerStatuses") or ()
    ]
    known = [e for e in ends if e is not None]
    if known and len(known) == len(ends):
        return max(known)
    ready = pod_condition(pod, "Ready")
    if ready is not None and ready["status"] == "False" and ready.get("lastTransitionTime"):
        return _time(ready["lastTransitionTime"])
    if meta.is_deleting(pod):
        grace = timedelta(seconds=pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        return _time(pod["metadata"]["deletionTimestamp"]) - grace
    return _time(pod["metadata"]["creationTimestamp"])


def _time(text: str) -> datetime:
    at = time_of(text)
    assert at is not None
    return at


def wait_after(failures: int, last: datetime | None, now: datetime) -> float:
    """Seconds left of the delay after so many failures in a row."""
    if failures == 0 or last is None:
        return 0.0
    delay = min(BACKOFF_S * 2.0 ** min(failures - 1, 30), MAX_BACKOFF_S)
    return max(0.0, delay - (now - last).total_seconds())


@dataclass(slots=True)
class Backoff:
    """Failures since the last success of one job."""

    failures: int = 0
    last: datetime | None = None

    def after(self, succeeded: list[Obj], failed: list[Obj]) -> Backoff:
        times = sorted(map(finished_at, failed))
        if not succeeded:
            return Backoff(self.failures + len(times), times[-1] if times else self.last)
        success = max(map(finished_at, succeeded))
        times = [t for t in times if t > success]
        return Backoff(len(times), times[-1] if times else None)


def index_failures(pod: Obj) -> int:
    return _count(pod, INDEX_FAILURES)


def _count(pod: Obj, name: str) -> int:
    text = meta.annotations(pod).get(name, "")
    return int(text) if text.isdigit() else 0


def absolute_failures(pod: Obj) -> int:
    return _count(pod, INDEX_FAILURES) + _count(pod, INDEX_IGNORED)


def index_failed(job: Obj, pod: Obj) -> bool:
    """Whether this pod's failure is the last one its index may have."""
    if not has_failed(pod, job):
        return False
    verdict = judge(job, pod)
    if verdict.action == "FailIndex":
        return True
    return verdict.counts and index_failures(pod) >= job["spec"]["backoffLimitPerIndex"]


def next_failure_counts(job: Obj, replaced: Obj | None) -> dict[str, str]:
    """The annotations by which a replacement knows of its index's failures."""
    if replaced is None:
        return {INDEX_FAILURES: "0"}
    counts = judge(job, replaced).counts
    found = {INDEX_FAILURES: str(index_failures(replaced) + counts)}
    if ignored := _count(replaced, INDEX_IGNORED) + (not counts):
        found[INDEX_IGNORED] = str(ignored)
    return found
