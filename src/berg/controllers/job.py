"""Jobs: pods that run to completion, each outcome counted exactly once.

A pod carries a finalizer until its outcome is in the Job's status, so that none is lost however it goes away.
Counting is in two steps: the pod's UID is put among `uncountedTerminatedPods` (or its index among the completed
ones); then its finalizer is removed; then the UID makes way for a higher counter. Wherever this is interrupted, it
goes on from what the objects say.

The end is in two steps as well: SuccessCriteriaMet or FailureTarget is written first, Complete or Failed only when
no pod is left running.

One pass is a `Sync` (job_sync.py) that writes down what it found (job_tracking.py); policies and arithmetic are in
job_policy.py and job_indexes.py.

Source: pkg/controller/job/job_controller.go.
"""

from __future__ import annotations

import asyncio

from berg.client.expectations import Expectations
from berg.controllers.context import APIController, Context
from berg.controllers.job_policy import FINALIZER, Backoff, is_tracked
from berg.controllers.job_sync import Sync
from berg.controllers.job_tracking import PartlyRemoved
from berg.controllers.objects import conditions_of
from berg.controllers.ownership import Claims, index_by_controller, owned_or_orphans, resolve
from berg.controllers.pods import PodControl
from berg.machinery import meta
from berg.machinery.labels import Selector
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

MANAGER = "kubernetes.io/job-controller"
SYNC_LABELS = ("action", "completion_mode", "result")
SECONDS = [0.004 * 2**i for i in range(15)]


def is_finished(job: Obj) -> bool:
    return finished_condition(job) is not None


def finished_condition(job: Obj) -> Obj | None:
    for c in conditions_of(job):
        if c["type"] in ("Complete", "Failed") and c["status"] == "True":
            return c
    return None


class JobController(APIController):
    name = "job-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource, self.pod_resource = resource("jobs.batch"), resource("pods")
        self.jobs, self.pods = ctx.informer("jobs.batch"), ctx.informer("pods")
        index_by_controller(self.pods)
        self.expectations = Expectations(ctx.clock)
        self.claims = Claims(ctx.client, self.resource, self.pod_resource)
        self.control = PodControl(ctx.client, lambda: ctx.recorder(self.name))
        self.backoffs: dict[str, Backoff] = {}
        self.released: dict[str, set[str]] = {}
        """UIDs of pods whose finalizer was removed and not yet seen to be gone"""
        self.written: dict[str, str] = {}
        """resourceVersion of the last status written here; an older Job from the informer is the past"""
        counter = ctx.metrics.counter
        self.syncs = counter("job_controller_job_syncs_total", "The number of job syncs", SYNC_LABELS)
        help = "The time it took to sync a job"
        self.durations = ctx.metrics.histogram("job_controller_job_sync_duration_seconds", help, SECONDS, SYNC_LABELS)
        help = "The number of finished Pods that are fully tracked"
        self.pods_finished = counter("job_controller_job_pods_finished_total", help, ("completion_mode", "result"))
        labels = ("completion_mode", "reason", "result")
        self.finished = counter("job_controller_jobs_finished_total", "The number of finished jobs", labels)
        help = "[BETA] Failed pods that a rule of a failure policy fits, by what it does"
        self.policies = counter("job_controller_pod_failures_handled_by_failure_policy_total", help, ("action",))
        help = "[BETA] Pods that ended with the finalizer, and that lost it"
        self.tracked = counter("job_controller_terminated_pods_tracking_finalizer_total", help, ("event",))
        self.orphans = self.add_loop(self.release_orphan, workers=2)
        self.jobs.add_handler(self.enqueue, self._job_changed, self._job_gone)
        self.pods.add_handler(self._pod_added, self._pod_changed, self._pod_gone)

    # -- events

    def _job_changed(self, old: Obj, new: Obj) -> None:
        self.enqueue(new)

    def _job_gone(self, job: Obj) -> None:
        self.enqueue(job)
        for pod in owned_or_orphans(self.pods, job):
            if is_tracked(pod) and meta.is_controlled_by(pod, job):
                self.orphans.add(meta.key(pod))

    def _owner(self, pod: Obj) -> Obj | None:
        return resolve(self.jobs, pod["metadata"]["namespace"], meta.owner_controller(pod), "Job")

    def _count_tracked(self, old: Obj | None, new: Obj) -> None:
        before, after = (pod is not None and is_tracked(pod) and _has_ended(pod) for pod in (old, new))
        if before != after:
            self.tracked.inc("add" if after else "delete")

    def _pod_added(self, pod: Obj) -> None:
        self._count_tracked(None, pod)
        if meta.is_deleting(pod):
            self._pod_deleting(pod)
            return
        job = self._owner(pod)
        if job is not None:
            self.expectations.added(meta.key(job))
            self.enqueue(job)
            self._release_if_finished(job, pod)
        elif meta.owner_controller(pod) is None:
            self._enqueue_matching(pod)
        elif is_tracked(pod):
            self.orphans.add(meta.key(pod))

    def _pod_changed(self, old: Obj, new: Obj) -> None:
        self._count_tracked(old, new)
        if meta.is_deleting(new):
            self._pod_deleting(new)
            return
        before, after = self._owner(old), self._owner(new)
        if before is not None and before is not after:
            self.enqueue(before)
            # One that still matches is about to be adopted again, and will be counted then.
            if is_tracked(new) and after is None and not self._matches(before, new):
                self.orphans.add(meta.key(new))
        if after is not None:
            self._note_released(after, new)
            self.enqueue(after)
            self._release_if_finished(after, new)
        elif meta.owner_controller(new) is None and meta.labels(old) != meta.labels(new):
            self._enqueue_matching(new)

    def _pod_deleting(self, pod: Obj) -> None:
        job = self._owner(pod)
        if job is not None:
            self.expectations.deleted(meta.key(job), meta.uid(pod))
            self._note_released(job, pod)
            self.enqueue(job)
            self._release_if_finished(job, pod)
        elif is_tracked(pod):
            self.orphans.add(meta.key(pod))

    def _pod_gone(self, pod: Obj) -> None:
        job = self._owner(pod)
        if job is not None:
            self.expectations.deleted(meta.key(job), meta.uid(pod))
            self.released.get(meta.key(job), set()).discard(meta.uid(pod))
            self.enqueue(job)

    def _note_released(self, job: Obj, pod: Obj) -> None:
        if not is_tracked(pod):
            self.released.get(meta.key(job), set()).discard(meta.uid(pod))

    def _release_if_finished(self, job: Obj, pod: Obj) -> None:
        if is_tracked(pod) and is_finished(job):
            self.orphans.add(meta.key(pod))

    def _matches(self, job: Obj, pod: Obj) -> bool:
        selector = Selector.of(job["spec"].get("selector"))
        return not selector.everything and selector.matches(meta.labels(pod))

    def _enqueue_matching(self, pod: Obj) -> None:
        for job in self.jobs.lister.list(meta.namespace(pod)):
            if self._matches(job, pod):
                self.enqueue(job)

    # -- the loop

    async def reconcile(self, key: str) -> None:
        job = self.jobs.lister.get_key(key)
        if job is None:
            self._forget(key)
            return
        if job["spec"].get("managedBy", MANAGER) != MANAGER:
            return
        if is_finished(job):
            self._forget(key)
            return
        if self._is_past(key, job):
            return  # the change that was written here is still on its way, and brings the key back
        satisfied = self.expectations.satisfied(key)
        selector = Selector.of(job["spec"].get("selector"))
        pods = await self.claims.claim(job, owned_or_orphans(self.pods, job), selector, finalizers=[FINALIZER])
        await self._measured(Sync(self, key, job, pods), satisfied)

    async def _measured(self, work: Sync, satisfied: bool) -> None:
        began, result = self.clock.monotonic(), "error"
        try:
            await work.run(satisfied=satisfied)
            result = "success"
        finally:
            labels = (work.action, work.mode, result)
            self.syncs.inc(*labels)
            self.durations.observe(self.clock.monotonic() - began, *labels)

    def _forget(self, key: str) -> None:
        self.expectations.forget(key)
        for known in (self.backoffs, self.released, self.written):
            known.pop(key, None)

    def _is_past(self, key: str, job: Obj) -> bool:
        seen, written = job["metadata"]["resourceVersion"], self.written.get(key, "")
        return seen.isdigit() and written.isdigit() and int(seen) < int(written)

    async def put_status(self, key: str, job: Obj) -> Obj:
        new = await self.client.update_status(self.resource, job)
        self.written[key] = new["metadata"]["resourceVersion"]
        return new

    # -- finalizers

    async def remove_finalizers(self, key: str, pods: list[Obj]) -> set[str]:
        """UIDs of the pods that have none any more. Raises the first failure after trying all."""
        expected = self.released.setdefault(key, set())
        expected |= {meta.uid(p) for p in pods}

        async def one(pod: Obj) -> None:
            try:
                await self._remove_finalizer(pod)
            except ApiError as e:
                expected.discard(meta.uid(pod))
                if e.code != 404:
                    raise

        results = await asyncio.gather(*(one(p) for p in pods), return_exceptions=True)
        done = {meta.uid(p) for p, r in zip(pods, results, strict=True) if not isinstance(r, BaseException)}
        failed = [r for r in results if isinstance(r, BaseException)]
        if failed:
            raise PartlyRemoved(done, failed[0])
        return done

    async def _remove_finalizer(self, pod: Obj) -> None:
        md = pod["metadata"]
        patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}}
        await self.client.patch(self.pod_resource, md["namespace"], md["name"], patch, type="strategic")

    async def release_orphan(self, key: str) -> None:
        """A pod whose Job is gone or finished has no one left to count it."""
        pod = self.pods.lister.get_key(key)
        if pod is None or not is_tracked(pod):
            return
        ref = meta.owner_controller(pod)
        if ref is not None and (ref["kind"] != "Job" or ref["apiVersion"] != self.resource.api_version):
            return
        job = self._owner(pod)
        if job is not None and (not is_finished(job) or job["spec"].get("managedBy", MANAGER) != MANAGER):
            return
        try:
            await self._remove_finalizer(pod)
        except ApiError as e:
            if e.code != 404:
                raise


def _has_ended(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
