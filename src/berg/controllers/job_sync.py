"""One pass over one Job: what its pods say, whether that ends it, how many pods to make or delete.

What comes of it is written down by job_tracking.py.

Source: pkg/controller/job/job_controller.go, syncJob and manageJob.
"""

from __future__ import annotations

import asyncio

from berg.controllers import job_policy as policy
from berg.controllers.job_indexes import Indexes
from berg.controllers.job_tracking import Tracking
from berg.controllers.objects import copied, find_condition, namespace_is_terminating, time_of
from berg.controllers.ownership import api_ref
from berg.controllers.pods import (
    BURST,
    BatchFailed,
    from_template,
    is_ready,
    is_terminating,
    phase,
    slow_start,
    victims,
)
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.status import ApiError, Obj

GENERATED_MAX = 58
"""what the API server keeps of a generateName"""


class Sync(Tracking):
    """`await Sync(…).run(satisfied=…)`: one pass. `satisfied`: the informer knows all that was asked for before."""

    async def run(self, *, satisfied: bool) -> None:
        self._count()
        if not self.status.get("startTime") and not self.suspended:
            self.status["startTime"] = rfc3339(self.c.clock.now())
        self._decide_failure()
        if policy.is_indexed(self.job):
            self._decide_by_index()
        active = len(self.active)
        problem: BaseException | None = None
        if self.end is not None:
            deleted, problem = await self._delete_active()
            if deleted != active or not satisfied:
                self.end = None  # some are left whose finalizers must not be removed yet
            active -= deleted
        else:
            managed = satisfied and not meta.is_deleting(self.job)
            if managed:
                active, problem = await self._manage()
            wanted = self.completions
            complete = self.succeeded > 0 if wanted is None else self.succeeded >= wanted
            if complete and active == 0:
                self.end = self._condition(
                    "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"
                )
            elif managed:
                self._note_suspension()
        self.status.update(active=active, ready=max(0, self.ready), terminating=max(0, self.terminating))
        await self._track()
        if problem is not None:
            raise problem

    def _count(self) -> None:
        uncounted = self.status["uncountedTerminatedPods"]
        counted_ok, counted_bad = set(uncounted.get("succeeded") or ()), set(uncounted.get("failed") or ())
        new_ok = [p for p in self._valid(counted_ok) if phase(p) == "Succeeded"]
        new_bad = [p for p in self._valid(counted_bad) if policy.has_failed(p, self.job)]
        self.succeeded = self.status.get("succeeded", 0) + len(new_ok) + len(counted_ok)
        counting = sum(policy.judge(self.job, p).counts for p in new_bad)
        self.failed = self.status.get("failed", 0) + counting + len(counted_bad)
        self.backoff = self.c.backoffs.get(self.key, policy.Backoff()).after(new_ok, new_bad)

    def _valid(self, uncounted: set[str]) -> list[Obj]:
        """Pods whose outcome is not in the status yet."""
        found = []
        for p in self.pods:
            uid = meta.uid(p)
            if not policy.is_tracked(p) or uid in uncounted or uid in self.released:
                continue
            if not policy.is_indexed(self.job) or self._index(p) is not None:
                found.append(p)
        return found

    # -- does it end?

    def _fail(self, reason: str, message: str) -> None:
        self.end = self._condition("FailureTarget", reason, message)

    def _decide_failure(self) -> None:
        conditions = self.status.get("conditions") or []
        met = find_condition(conditions, "SuccessCriteriaMet")
        target = find_condition(conditions, "FailureTarget")
        if met is not None and met["status"] == "True":
            self.end = met
            return
        if target is not None and target["status"] == "True":
            self.end = self._condition("Failed", target["reason"], target["message"])
            return
        for p in self.pods:
            if policy.has_failed(p, self.job) and (text := policy.judge(self.job, p).message):
                self._fail("PodFailurePolicy", text)
                return
        deadline = self.spec.get("activeDeadlineSeconds")
        if self.failed > self.spec.get("backoffLimit", 6) or policy.restarts_exhausted(self.job, self.pods):
            self._fail("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        elif deadline is not None and not self.suspended and (start := time_of(self.status.get("startTime"))):
            left = deadline - (self.c.clock.now() - start).total_seconds()
            if left <= 0:
                self._fail("DeadlineExceeded", "Job was active longer than specified deadline")
            else:
                self.c.queue.add_after(self.key, left)

    def _decide_by_index(self) -> None:
        completions = self.completions or 0
        self.done_before = Indexes.parse(self.status.get("completedIndexes"), completions)
        new = {
            i
            for p in self.pods
            if phase(p) == "Succeeded" and policy.is_tracked(p) and (i := self._index(p)) is not None
        }
        self.done = self.done_before.union(Indexes.of(new))
        self.succeeded = len(self.done)
        if policy.per_index(self.job):
            failed = {
                i
                for p in self.pods
                if policy.is_tracked(p) and (i := self._index(p)) is not None and policy.index_failed(self.job, p)
            }
            self.failed_indexes = Indexes.parse(self.status.get("failedIndexes"), completions).union(Indexes.of(failed))
            if self.end is None:
                limit = self.spec.get("maxFailedIndexes")
                count = len(self.failed_indexes)
                if limit is not None and count > limit:
                    text = "Job has exceeded the specified maximal number of failed indexes"
                    self._fail("MaxFailedIndexesExceeded", text)
                elif count and count + len(self.done) >= completions:
                    self._fail("FailedIndexes", "Job has failed indexes")
            self._hold_failed()
        if self.end is None and (text2 := policy.succeeded_by_policy(self.job, self.done)) is not None:
            self.end = self._condition("SuccessCriteriaMet", "SuccessPolicy", text2)

    def _hold_failed(self) -> None:
        running = {policy.index_of(p) for p in self.active}
        for p in self._valid(set()):
            i = self._index(p)
            if i is None or i in running or not policy.has_failed(p, self.job):
                continue
            if i in self.done or i in (self.failed_indexes or Indexes()):
                continue
            held = self.held.get(i)
            if held is None or policy.absolute_failures(held) < policy.absolute_failures(p):
                self.held[i] = p

    # -- pods

    async def _delete_active(self) -> tuple[int, BaseException | None]:
        """Their finalizers stay: they are removed when the pods have been counted."""

        async def one(pod: Obj) -> None:
            try:
                await self.c.control.delete(self.job, pod)
            except ApiError as e:
                if e.code not in (404, 409):
                    raise

        results = await asyncio.gather(*(one(p) for p in self.active), return_exceptions=True)
        failed = [r for r in results if isinstance(r, BaseException)]
        deleted = len(self.active) - len(failed)
        self.terminating += deleted
        self.ready = 0
        return deleted, failed[0] if failed else None

    async def _manage(self) -> tuple[int, BaseException | None]:
        """Makes or deletes pods, never both in one pass. How many are active then."""
        active = len(self.active)
        self.action = "tracking"
        if self.suspended:
            return await self._remove(self.active)
        parallelism, wanted = self.spec.get("parallelism", 1), self.completions
        if wanted is None:
            target = active if self.succeeded else parallelism
        else:
            target = max(0, min(wanted - self.succeeded, parallelism))
        surplus = self._surplus(max(0, active - target))[:BURST]
        if surplus:
            return await self._remove(surplus)
        place_held = self.terminating if policy.replaces_only_failed(self.job) else 0
        missing = min(target - place_held - active, BURST)
        if missing <= 0:
            return active, None
        now = self.c.clock.now()
        if not policy.per_index(self.job):
            wait_s = policy.wait_after(self.backoff.failures, self.backoff.last, now)
            if wait_s > 0:
                self.c.queue.add_after(self.key, wait_s)
                return active, None
        indexes: list[int | None] = [None] * missing
        if policy.is_indexed(self.job):
            numbers, wait_s = self._free_indexes(missing)
            if wait_s > 0:
                self.c.queue.add_after(self.key, wait_s)
            if not numbers:
                return active, None
            indexes = list(numbers)
        return await self._create(indexes)

    def _surplus(self, at_least: int) -> list[Obj]:
        """Pods too many: with indexes, those that share one or have none that is valid go first."""
        found: list[Obj] = []
        left = self.active
        if policy.is_indexed(self.job):
            left = []
            by_index: dict[int | None, list[Obj]] = {}
            for p in self.active:
                by_index.setdefault(self._index(p), []).append(p)
            for i, sharing in by_index.items():
                extra = victims(sharing, len(sharing) - (i is not None), [], self.c.clock.now())
                found += extra
                left += [p for p in sharing if p not in extra]
        if len(found) < at_least:
            found += victims(left, at_least - len(found), [], self.c.clock.now())
        return found

    def _free_indexes(self, count: int) -> tuple[list[int], float]:
        taken = self.done.union(Indexes.of(i for p in self.active if (i := policy.index_of(p)) is not None))
        if policy.replaces_only_failed(self.job):
            leaving = (policy.index_of(p) for p in self.pods if is_terminating(p))
            taken = taken.union(Indexes.of(i for i in leaving if i is not None))
        if self.failed_indexes is not None:
            taken = taken.union(self.failed_indexes)
        numbers = taken.missing(count, self.completions or 0)
        if not policy.per_index(self.job):
            return numbers, 0.0
        now = self.c.clock.now()
        waits = {}
        for i in numbers:
            held = self.held.get(i)
            failures = policy.absolute_failures(held) + 1 if held is not None else 0
            waits[i] = policy.wait_after(failures, policy.finished_at(held) if held is not None else None, now)
        later = [w for w in waits.values() if w > 0]
        return [i for i in numbers if waits[i] == 0], min(later, default=0.0)

    async def _remove(self, pods: list[Obj]) -> tuple[int, BaseException | None]:
        """Deletes pods that do not count: their finalizer goes first."""
        self.action = "pods_deleted"
        self.c.expectations.expect(self.key, deletes={meta.uid(p) for p in pods})

        async def one(pod: Obj) -> None:
            try:
                if policy.is_tracked(pod):
                    await self.c._remove_finalizer(pod)
                await self.c.control.delete(self.job, pod)
            except ApiError as e:
                self.c.expectations.deleted(self.key, meta.uid(pod))
                if e.code not in (404, 409):
                    raise

        results = await asyncio.gather(*(one(p) for p in pods), return_exceptions=True)
        failed = [r for r in results if isinstance(r, BaseException)]
        gone = len(pods) - len(failed)
        self.terminating += gone
        self.ready -= sum(map(is_ready, pods))
        return len(self.active) - gone, failed[0] if failed else None

    async def _create(self, indexes: list[int | None]) -> tuple[int, BaseException | None]:
        self.action = "pods_created"
        self.c.expectations.expect(self.key, adds=len(indexes))
        template = self._template()

        async def one(n: int) -> None:
            try:
                await self.c.control.create(self.job, self._pod(template, indexes[n]))
            except ApiError as e:
                if not namespace_is_terminating(e):
                    raise

        try:
            await slow_start(len(indexes), one)
        except BatchFailed as e:
            self.c.expectations.added(self.key, len(indexes) - e.done)
            return len(self.active) + e.done, e.error
        return len(self.active) + len(indexes), None

    def _template(self) -> Obj:
        template = copied(self.spec["template"])
        md = template.setdefault("metadata", {})
        finalizers = md.get("finalizers") or []
        md["finalizers"] = finalizers if policy.FINALIZER in finalizers else [*finalizers, policy.FINALIZER]
        if policy.is_indexed(self.job):
            source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{policy.INDEX}']"}}
            for field in ("initContainers", "containers"):
                for container in template["spec"].get(field) or ():
                    env = container.setdefault("env", [])
                    if all(e["name"] != "JOB_COMPLETION_INDEX" for e in env):
                        env.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": source})
        return template

    def _pod(self, template: Obj, index: int | None) -> Obj:
        pod = from_template(template, self.job, api_ref(self.job, self.c.resource))
        if index is None:
            return pod
        name, md = meta.name(self.job), pod["metadata"]
        tail = f"-{index}-"
        md["generateName"] = f"{name[: GENERATED_MAX - len(tail)]}{tail}"
        md["annotations"][policy.INDEX] = md["labels"][policy.INDEX] = str(index)
        if policy.per_index(self.job):
            md["annotations"].update(policy.next_failure_counts(self.job, self.held.get(index)))
        pod["spec"] = {**pod["spec"], "hostname": f"{name}-{index}"}
        return pod
