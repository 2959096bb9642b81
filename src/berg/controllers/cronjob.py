"""CronJobs: a Job at each time of the schedule.

A Job's name is made of its scheduled minute, so that no time is served twice whatever is restarted. There is one
timer per CronJob, for its next time. Of several missed times only the latest is made up for.

Source: pkg/controller/cronjob.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from berg.controllers import cron
from berg.controllers.context import APIController, Context
from berg.controllers.job import finished_condition, is_finished
from berg.controllers.objects import by_age, compact, copied, time_of
from berg.controllers.ownership import BY_CONTROLLER, api_ref, index_by_controller, resolve
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
PADDING_S = 0.1
MANY = 100


def local_zone() -> tzinfo:
    """The zone of a CronJob that names none: this process's own."""
    try:
        with open("/etc/localtime", "rb") as f:
            return ZoneInfo.from_file(f)
    except (OSError, ValueError):
        return UTC


class CronJobController(APIController):
    name = "cronjob-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource, self.job_resource = resource("cronjobs.batch"), resource("jobs.batch")
        self.cronjobs, self.jobs = ctx.informer("cronjobs.batch"), ctx.informer("jobs.batch")
        index_by_controller(self.jobs)
        self.follow(self.cronjobs)
        self.jobs.add_handler(self._job, self._job_changed, self._job)
        self.zone = local_zone()
        self.skew = ctx.metrics.histogram(
            "cronjob_controller_job_creation_skew_duration_seconds",
            "Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
            [2**i for i in range(10)],
        )

    def _job(self, job: Obj) -> None:
        owner = resolve(self.cronjobs, meta.namespace(job), meta.owner_controller(job), "CronJob")
        if owner is not None:
            self.enqueue(owner)

    def _job_changed(self, old: Obj, new: Obj) -> None:
        self._job(old)
        self._job(new)

    async def reconcile(self, key: str) -> None:
        cj = self.cronjobs.lister.get_key(key)
        if cj is None:
            return
        jobs = self.jobs.lister.by_index(BY_CONTROLLER, meta.uid(cj))
        work = {**cj, "status": copied(cj.get("status") or {})}
        try:
            wait_s = await self._sync(work, jobs)
        finally:
            status = compact(work["status"])
            if status != compact(cj.get("status") or {}):
                await self.client.update_status(self.resource, {**work, "status": status})
        await self._clean_up(work, jobs)
        if wait_s is not None:
            self.queue.add_after(key, wait_s)

    async def _sync(self, cj: Obj, jobs: list[Obj]) -> float | None:
        """Changes `cj["status"]`; seconds until the next time."""
        await self._settle(cj, jobs)
        spec, status = cj["spec"], cj["status"]
        if meta.is_deleting(cj):
            return None
        zone: tzinfo = self.zone
        if (name := spec.get("timeZone")) is not None:
            try:
                zone = ZoneInfo(name)
            except (OSError, ValueError):
                self.event(cj, "Warning", "UnknownTimeZone", f'invalid timeZone: "{name}": unknown time zone {name}')
                return None
        if spec.get("suspend"):
            return None
        try:
            schedule = cron.parse(*_with_zone(spec["schedule"], zone))
        except (ValueError, OSError) as e:
            self.event(cj, "Warning", "UnparseableSchedule", f'unparseable schedule: "{spec["schedule"]}" : {e}')
            return None
        now = self.clock.now()
        at, missed = _latest(cj, schedule, now, with_deadline=True)
        if at is None:
            return _next_in(cj, schedule, now)
        if missed > MANY:
            text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self.event(cj, "Warning", "TooManyMissedTimes", text)
        deadline = spec.get("startingDeadlineSeconds")
        if deadline is not None and at + timedelta(seconds=deadline) < now:
            text = f"Missed scheduled time to start a job: {at:%a, %d %b %Y %H:%M:%S +0000}"
            self.event(cj, "Warning", "MissSchedule", text)
            return _next_in(cj, schedule, now)
        active = status.get("active") or []
        name = f"{meta.name(cj)}-{int(at.timestamp()) // 60}"
        if any(a["name"] == name for a in active) or status.get("lastScheduleTime") == rfc3339(at):
            return _next_in(cj, schedule, now)
        policy = spec.get("concurrencyPolicy", "Allow")
        if policy == "Forbid" and active:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self.event(cj, "Normal", "JobAlreadyActive", text)
            return _next_in(cj, schedule, now)
        if policy == "Replace":
            for a in list(active):
                await self._delete(cj, a)
        await self._start(cj, name, at, spec.get("timeZone"))
        return _next_in(cj, schedule, now)

    async def _settle(self, cj: Obj, jobs: list[Obj]) -> None:
        """The list of active Jobs becomes what it should be."""
        status = cj["status"]
        active: list[Obj] = status.setdefault("active", [])
        by_uid = {meta.uid(j): j for j in jobs}
        for job in jobs:
            known = any(a["uid"] == meta.uid(job) for a in active)
            if not is_finished(job):
                if not known and not await self._lists(cj, job):
                    text = f"Saw a job that the controller did not create or forgot: {meta.name(job)}"
                    self.event(cj, "Warning", "UnexpectedJob", text)
                continue
            end = finished_condition(job)
            assert end is not None
            if known:
                status["active"] = active = [a for a in active if a["uid"] != meta.uid(job)]
                text = f"Saw completed job: {meta.name(job)}, condition: {end['type']}"
                self.event(cj, "Normal", "SawCompletedJob", text)
            done = (job.get("status") or {}).get("completionTime")
            if end["type"] == "Complete" and done and done > status.get("lastSuccessfulTime", ""):
                status["lastSuccessfulTime"] = done
        for a in active:
            if a["uid"] in by_uid:
                continue
            try:
                await self.client.get(self.job_resource, a["namespace"], a["name"])
            except ApiError as e:
                if e.code != 404:
                    raise
                self.event(cj, "Normal", "MissingJob", f"Active job went missing: {a['name']}")
                status["active"] = [o for o in status["active"] if o["uid"] != a["uid"]]

    async def _lists(self, cj: Obj, job: Obj) -> bool:
        """Whether the API server's own CronJob has this Job in its list already."""
        try:
            fresh = await self.client.get(self.resource, meta.namespace(cj), meta.name(cj))
        except ApiError as e:
            if e.code != 404:
                raise
            return True
        return any(a["uid"] == meta.uid(job) for a in (fresh.get("status") or {}).get("active") or ())

    async def _start(self, cj: Obj, name: str, at: datetime, zone: str | None) -> None:
        template = cj["spec"]["jobTemplate"]
        md = template.get("metadata") or {}
        stamp = at.astimezone(ZoneInfo(zone) if zone else UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        job: Obj = {
            "metadata": {
                "name": name,
                "namespace": meta.namespace(cj),
                "labels": dict(md.get("labels") or {}),
                "annotations": {**(md.get("annotations") or {}), SCHEDULED_AT: stamp},
                "ownerReferences": [api_ref(cj, self.resource)],
            },
            "spec": copied(template["spec"]),
        }
        try:
            made = await self.client.create(self.job_resource, job)
        except ApiError as e:
            if e.reason != "AlreadyExists":
                self.event(cj, "Warning", "FailedCreate", f"Error creating job: {e.message}")
                raise
            made = await self.client.get(self.job_resource, meta.namespace(cj), name)
            if not meta.is_controlled_by(made, cj) or any(a["uid"] == meta.uid(made) for a in cj["status"]["active"]):
                return
        else:
            self.event(cj, "Normal", "SuccessfulCreate", f"Created job {name}")
            self.skew.observe(max(0.0, (self.clock.now() - at).total_seconds()))
        ref = meta.object_reference(
            {**made, "apiVersion": self.job_resource.api_version, "kind": self.job_resource.kind}
        )
        cj["status"].setdefault("active", []).append(ref)
        cj["status"]["lastScheduleTime"] = rfc3339(at)

    async def _delete(self, cj: Obj, ref: Obj) -> None:
        namespace, name = meta.namespace(cj), ref["name"]
        try:
            await self.client.delete(self.job_resource, namespace, name, propagation_policy="Background")
        except ApiError as e:
            if e.code != 404:
                self.event(cj, "Warning", "FailedDelete", f"Deleted job: {e.message}")
                raise
        cj["status"]["active"] = [a for a in cj["status"].get("active") or () if a["uid"] != ref["uid"]]
        self.event(cj, "Normal", "SuccessfulDelete", f"Deleted job {name}")

    async def _clean_up(self, cj: Obj, jobs: list[Obj]) -> None:
        """Finished Jobs beyond the history limits, oldest first."""
        for type, field in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
            limit = cj["spec"].get(field)
            if limit is None:
                continue
            ended = [j for j in jobs if (c := finished_condition(j)) is not None and c["type"] == type]
            ended = sorted((j for j in ended if not meta.is_deleting(j)), key=_by_start)
            for job in ended[: max(0, len(ended) - limit)]:
                await self._delete(cj, {"name": meta.name(job), "uid": meta.uid(job)})


def _by_start(job: Obj) -> tuple[str, tuple[str, str]]:
    return (job.get("status") or {}).get("startTime") or "9999", by_age(job)


def _with_zone(text: str, zone: tzinfo) -> tuple[str, tzinfo]:
    """`TZ=Europe/Rome 0 * * * *` works, though no one should write it."""
    head, _, rest = text.partition(" ")
    for prefix in ("TZ=", "CRON_TZ="):
        if head.startswith(prefix):
            return rest, ZoneInfo(head.removeprefix(prefix))
    return text, zone


def _latest(cj: Obj, schedule: cron.Schedule, now: datetime, *, with_deadline: bool) -> tuple[datetime | None, int]:
    """The most recent time that should have been served, and about how many there were since the last one."""
    start = time_of((cj.get("status") or {}).get("lastScheduleTime")) or time_of(cj["metadata"]["creationTimestamp"])
    assert start is not None
    deadline = cj["spec"].get("startingDeadlineSeconds")
    if with_deadline and deadline is not None:
        start = max(start, now - timedelta(seconds=deadline))
    first = schedule.next(start)
    if first is None or now < first:
        return None, 0
    second = schedule.next(first)
    if second is None or now < second:
        return first, 1
    # Counting all of a year's minutes would take for ever: skip near the end by the first interval.
    missed = int((now - first).total_seconds() // (second - first).total_seconds()) + 1
    at: datetime | None = schedule.next(first + (missed - 2) * (second - first))
    latest = first if missed < 2 else None
    while at is not None and at <= now:
        latest, at = at, schedule.next(at)
    return latest, missed


def _next_in(cj: Obj, schedule: cron.Schedule, now: datetime) -> float | None:
    latest, missed = _latest(cj, schedule, now, with_deadline=False)
    start = latest
    if start is None:
        if missed:
            start = now
        else:
            start = time_of(cj["status"].get("lastScheduleTime")) or time_of(cj["metadata"]["creationTimestamp"])
    assert start is not None
    at = schedule.next(start)
    while at is not None and at <= now:
        at = schedule.next(max(at, now))
    return (at - now).total_seconds() + PADDING_S if at is not None else None
