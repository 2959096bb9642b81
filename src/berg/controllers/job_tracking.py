"""What one pass over a Job writes down: outcomes counted once, conditions, the two writes of its status.

The order is what makes the count right: a pod's UID (or index) is written to the status, then its finalizer is
removed, then the UID makes way for a higher counter. Wherever that stops, the next pass goes on.

Source: pkg/controller/job/job_controller.go, trackJobStatusAndRemoveFinalizers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from berg.controllers import job_policy as policy
from berg.controllers.job_indexes import Indexes
from berg.controllers.objects import compact, copied, find_condition
from berg.controllers.pods import is_active, is_ready, is_terminating, phase
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.controllers.job import JobController

MAX_UNCOUNTED = 500


class PartlyRemoved(Exception):
    """Of some pods the finalizer could not be removed."""

    def __init__(self, done: set[str], error: BaseException) -> None:
        super().__init__(str(error))
        self.done, self.error = done, error


class Tracking:
    """The state of a pass. `job["status"]` is a copy that may be changed."""

    def __init__(self, controller: JobController, key: str, job: Obj, pods: list[Obj]) -> None:
        self.c, self.key = controller, key
        self.job: Obj = {**job, "status": copied(job.get("status") or {})}
        self.pods = pods
        self.before = copied(self.status)
        self.active = [p for p in pods if is_active(p)]
        self.ready = sum(map(is_ready, self.active))
        self.terminating = sum(map(is_terminating, pods))
        self.released = controller.released.get(key, set())
        self.status.setdefault("uncountedTerminatedPods", {})
        self.action = "reconciling"
        """for the metrics: what this pass came to do"""
        self.end: Obj | None = None
        """the condition that ends the job, or is about to"""
        self.backoff = policy.Backoff()
        self.succeeded = self.failed = 0
        self.done_before = self.done = Indexes()
        self.failed_indexes: Indexes | None = None
        self.held: dict[int, Obj] = {}
        """by index: failed pods that keep their finalizer until their replacement carries on their count"""

    @property
    def status(self) -> Obj:
        return self.job["status"]

    @property
    def spec(self) -> Obj:
        return self.job["spec"]

    @property
    def completions(self) -> int | None:
        return self.spec.get("completions")

    @property
    def mode(self) -> str:
        return self.spec.get("completionMode") or "NonIndexed"

    @property
    def suspended(self) -> bool:
        return bool(self.spec.get("suspend"))

    def _index(self, pod: Obj) -> int | None:
        i = policy.index_of(pod)
        return i if i is not None and i < (self.completions or 0) else None

    def _condition(self, type: str, reason: str, message: str, status: str = "True") -> Obj:
        now = rfc3339(self.c.clock.now())
        return {
            "type": type,
            "status": status,
            "lastProbeTime": now,
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }

    def _ensure(self, type: str, status: str, reason: str, message: str) -> bool:
        """Source: ensureJobConditionStatus: a condition that was never there is not put there to say False."""
        conditions = self.status.setdefault("conditions", [])
        old = find_condition(conditions, type)
        if old is None:
            if status == "False":
                return False
            conditions.append(self._condition(type, reason, message, status))
            return True
        if (old["status"], old.get("reason"), old.get("message")) == (status, reason, message):
            return False
        old.update(self._condition(type, reason, message, status))
        return True

    def _note_suspension(self) -> None:
        if self.suspended:
            if self._ensure("Suspended", "True", "JobSuspended", "Job suspended"):
                self.c.event(self.job, "Normal", "Suspended", "Job suspended")
                self.status.pop("startTime", None)
        elif self._ensure("Suspended", "False", "JobResumed", "Job resumed"):
            self.c.event(self.job, "Normal", "Resumed", "Job resumed")
            # The deadline counts the time that the job is allowed to run.
            self.status["startTime"] = rfc3339(self.c.clock.now())

    async def _track(self) -> None:
        tracked = {meta.uid(p) for p in self.pods if policy.is_tracked(p) and meta.uid(p) not in self.released}
        self._settle(tracked)
        countable, at_limit = self._collect()
        self._note_end()
        await self._flush()
        self.c.backoffs[self.key] = self.backoff
        if countable:
            try:
                tracked -= await self.c.remove_finalizers(self.key, countable)
            except PartlyRemoved as e:
                self._settle(tracked - e.done)
                await self._flush()
                raise e.error from None
        self._settle(tracked)
        finished = not at_limit and self._finish()
        await self._flush()
        if finished and self.end is not None:
            self._tell(self.end)

    def _settle(self, tracked: set[str]) -> None:
        """UIDs whose pods have lost their finalizer make way for a higher counter."""
        uncounted = self.status["uncountedTerminatedPods"]
        for field in ("succeeded", "failed"):
            uids = uncounted.get(field) or []
            left = [u for u in uids if u in tracked]
            if len(left) != len(uids):
                self.status[field] = self.status.get(field, 0) + len(uids) - len(left)
            if left:
                uncounted[field] = left
            else:
                uncounted.pop(field, None)

    def _collect(self) -> tuple[list[Obj], bool]:
        """Notes outcomes in the status; gives the pods whose finalizer may go once that is written."""
        uncounted: dict[str, list[str]] = self.status["uncountedTerminatedPods"]
        known = {f: set(uncounted.get(f) or ()) for f in ("succeeded", "failed")}
        failing = self.end is not None and self.end["type"] in ("FailureTarget", "Failed")
        new_indexes: set[int] = set()
        countable: list[Obj] = []
        noted, at_limit = sum(map(len, known.values())), False
        for p in sorted(self.pods, key=lambda p: policy.index_of(p) or 0):
            uid, failed = meta.uid(p), policy.has_failed(p, self.job)
            if not policy.is_tracked(p) or uid in self.released or not self._may_release(p, failed):
                continue
            countable.append(p)
            if phase(p) == "Succeeded" and uid not in known["failed"]:
                if policy.is_indexed(self.job):
                    i = self._index(p)
                    if i is not None and i not in self.done_before:
                        new_indexes.add(i)
                        noted += 1
                elif uid not in known["succeeded"]:
                    uncounted.setdefault("succeeded", []).append(uid)
                    noted += 1
            elif (failed or failing) and uid not in known["failed"]:
                valid = not policy.is_indexed(self.job) or self._index(p) is not None
                verdict = policy.judge(self.job, p)
                if verdict.action:
                    self.c.policies.inc(verdict.action)
                if valid and verdict.counts:
                    uncounted.setdefault("failed", []).append(uid)
                    noted += 1
            if noted >= MAX_UNCOUNTED:
                at_limit = True  # the rest comes in the next pass, which the status brings
                break
        if policy.is_indexed(self.job):
            self._note_indexes(new_indexes)
        return countable, at_limit

    def _note_indexes(self, new: set[int]) -> None:
        done = self.done_before.union(Indexes.of(new))
        self.status["succeeded"] = len(done)
        self.status["completedIndexes"] = str(done)
        if self.failed_indexes is not None:
            self.status["failedIndexes"] = str(self.failed_indexes)

    def _may_release(self, pod: Obj, failed: bool) -> bool:
        if meta.is_deleting(self.job) or self.end is not None or phase(pod) == "Succeeded":
            return True
        if not failed:
            return False
        i = self._index(pod)
        held = self.held.get(i) if i is not None else None
        return held is None or meta.uid(held) != meta.uid(pod)

    def _note_end(self) -> None:
        """The interim condition, and the final one in its place in `end`."""
        if self.end is None:
            return
        final = {"FailureTarget": "Failed", "SuccessCriteriaMet": "Complete"}.get(self.end["type"])
        if final is None:
            return
        conditions = self.status.setdefault("conditions", [])
        if find_condition(conditions, self.end["type"]) is None:
            conditions.append(self.end)
        self.end = self._condition(final, self.end["reason"], self.end["message"])

    def _finish(self) -> bool:
        if self.end is None or self.terminating > 0 or any(self.status["uncountedTerminatedPods"].values()):
            return False
        self._ensure(self.end["type"], "True", self.end["reason"], self.end["message"])
        if self.end["type"] == "Complete":
            self.status["completionTime"] = self.end["lastTransitionTime"]
        return True

    async def _flush(self) -> None:
        keep = ("ready", "terminating", "uncountedTerminatedPods", "failedIndexes")
        status = compact(self.status, keep=keep)
        if status == self.before:
            return
        written = await self.c.put_status(self.key, {**self.job, "status": status})
        for field in ("succeeded", "failed"):
            if (more := status.get(field, 0) - self.before.get(field, 0)) > 0:
                self.c.pods_finished.inc(self.mode, field, by=more)
        self.before = copied(status)
        self.job = {**written, "status": copied(status)}

    def _tell(self, end: Obj) -> None:
        event = self.c.event
        self.c.finished.inc(self.mode, end["reason"], "succeeded" if end["type"] == "Complete" else "failed")
        if end["type"] == "Complete":
            if self.completions is not None and self.status.get("succeeded", 0) > self.completions:
                text = "Too many succeeded pods running after completion count reached"
                event(self.job, "Warning", "TooManySucceededPods", text)
            event(self.job, "Normal", "Completed", "Job completed")
        else:
            event(self.job, "Warning", end["reason"], end["message"])
