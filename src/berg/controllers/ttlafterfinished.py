"""Finished Jobs with a time to live are deleted when it is over, dependents first.

Source: pkg/controller/ttlafterfinished.
"""

from __future__ import annotations

from datetime import timedelta

from berg.controllers.context import APIController, Context
from berg.controllers.job import finished_condition
from berg.controllers.objects import time_of
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj


class TTLAfterFinishedController(APIController):
    name = "ttl-after-finished-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("jobs.batch")
        self.jobs = ctx.informer("jobs.batch")
        self.jobs.add_handler(self._job, lambda old, new: self._job(new))

    def _job(self, job: Obj) -> None:
        if not meta.is_deleting(job) and self._left(job) is not None:
            self.enqueue(job)

    def _left(self, job: Obj) -> float | None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        end = finished_condition(job)
        if ttl is None or end is None:
            return None
        at = time_of(end.get("lastTransitionTime"))
        return (at + timedelta(seconds=ttl) - self.clock.now()).total_seconds() if at else None

    async def reconcile(self, key: str) -> None:
        job = self.jobs.lister.get_key(key)
        if job is None or meta.is_deleting(job) or (left := self._left(job)) is None:
            return
        if left > 0:
            self.queue.add_after(key, left)
            return
        md = job["metadata"]
        try:
            # Once more from the API server itself: someone may have just given it a longer life.
            fresh = await self.client.get(self.resource, md["namespace"], md["name"])
            left = self._left(fresh)
            if left is None or meta.uid(fresh) != md["uid"]:
                return
            if left > 0:
                self.queue.add_after(key, left)
                return
            await self.client.delete(
                self.resource, md["namespace"], md["name"], propagation_policy="Foreground", uid=md["uid"]
            )
        except ApiError as e:
            if e.code != 404:
                raise
