"""What follows a decision: the binding cycle, or telling why there was none.

The binding cycle runs beside the scheduling of other pods: the pod is assumed to be on its node meanwhile. When it
fails, everything is undone and the pod is tried again.

Source: pkg/scheduler/schedule_one.go (bindingCycle, handleSchedulingFailure), framework/preemption/executor.go.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

from berg.machinery.clock import rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError
from berg.scheduler.framework.interface import Cycle
from berg.scheduler.framework.profile import Profile
from berg.scheduler.framework.status import Code, Status, error
from berg.scheduler.preemption import Plan, UnderWay
from berg.scheduler.queue import QueuedPod
from berg.scheduler.state.podinfo import PodInfo
from berg.scheduler.waiting import WaitingPod

if TYPE_CHECKING:
    from berg.scheduler.scheduler import Scheduler

Obj = dict[str, Any]
log = logging.getLogger(__name__)


async def bind(s: Scheduler, q: QueuedPod, cycle: Cycle, node: str, waiting: WaitingPod | None) -> None:
    """The binding cycle of a pod that is assumed to be on `node`."""
    profile = s.profiles[q.pod.cls.scheduler_name]
    try:
        status = await _bind(s, profile, cycle, node, waiting)
    except asyncio.CancelledError:
        raise
    except Exception as e:
        log.exception("binding %s failed", q.pod.key)
        status = error(str(e))
    finally:
        s.waiting.pop(q.pod.uid, None)
    if status is None:
        s.queue.forget(q.pod.uid)
        s.count(q, "scheduled")
        s.recorder(profile.name).event(
            reference(q.pod.obj),
            "Normal",
            "Scheduled",
            f"Successfully assigned {q.pod.key} to {node}",
            action="Binding",
        )
        for plugin in profile.post_bind:
            plugin.post_bind(cycle, node)
        return
    unreserve(profile, cycle, node)
    s.forget(q.pod)
    await failed(s, q, fit_message(status), status)


def fit_message(status: Status) -> str:
    """Of a rejection by Reserve, Permit or a binding plugin: upstream words it as one node that does not fit."""
    return f"0/1 nodes are available: 1 {status.message}." if status.rejected else status.message


async def _bind(s: Scheduler, profile: Profile, cycle: Cycle, node: str, waiting: WaitingPod | None) -> Status | None:
    if waiting is not None:
        started = perf_counter()
        status = await waiting.wait()
        if s.metrics is not None:
            s.metrics.permitted("Success" if status is None else "Unschedulable", perf_counter() - started)
        if status is not None:
            return status
    for point, call in (("PreBind", _pre_bound), ("Bind", _bound)):
        started = perf_counter()
        status = await call(profile, cycle, node)
        if s.metrics is not None:
            told = "Success" if status is None else "Unschedulable" if status.rejected else "Error"
            s.metrics.extended(point, profile.name, perf_counter() - started, told)
        if status is not None:
            return status
    return None


async def _pre_bound(profile: Profile, cycle: Cycle, node: str) -> Status | None:
    for pre in profile.pre_bind:
        if pre.pre_bind_needed(cycle) and (status := await pre.pre_bind(cycle, node)) is not None:
            if status.rejected:
                return status.of(pre.name)
            return error(f'running PreBind plugin "{pre.name}": {status.message}').of(pre.name)
    return None


async def _bound(profile: Profile, cycle: Cycle, node: str) -> Status | None:
    for plugin in profile.bind:
        status = await plugin.bind(cycle, node)
        if status is None:
            return None
        if status.code != Code.SKIP:
            if status.rejected:
                return status.of(plugin.name)
            return error(f'running Bind plugin "{plugin.name}": {status.message}').of(plugin.name)
    return error("no Bind plugin took the pod")


def unreserve(profile: Profile, cycle: Cycle, node: str) -> None:
    for plugin in reversed(profile.reserve):
        plugin.unreserve(cycle, node)


async def failed(s: Scheduler, q: QueuedPod, message: str, status: Status, *, nominated: str | None = None) -> None:
    """Back into the queue; the reason into an event and the pod's condition. `nominated`: None leaves it as it is."""
    pod = q.pod
    rejected = status.rejected
    if s.queue.get(pod.uid) is not q:  # deleted meanwhile
        s.queue.done(pod.uid)
        return
    by = {status.plugin} if rejected and status.plugin else set()
    s.retry(q, by, error=not rejected)
    await report(s, pod, message, rejected=rejected, nominated=nominated)


async def report(s: Scheduler, pod: PodInfo, message: str, *, rejected: bool, nominated: str | None) -> None:
    recorder = s.recorder(pod.cls.scheduler_name)
    recorder.event(reference(pod.obj), "Warning", "FailedScheduling", message, action="Scheduling")
    reason = "Unschedulable" if rejected else "SchedulerError"
    change: Obj = {}
    status = pod.obj.get("status") or {}
    old = next((c for c in status.get("conditions") or () if c.get("type") == "PodScheduled"), None)
    if old is None or (old.get("status"), old.get("reason"), old.get("message")) != ("False", reason, message):
        now = rfc3339(s.clock.now())
        same = old is not None and old.get("status") == "False"
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": (old or {}).get("lastTransitionTime") if same else now,
        }
        if (generation := pod.obj["metadata"].get("generation")) is not None:
            condition["observedGeneration"] = generation
        change["conditions"] = [condition]
    if nominated is not None and nominated != (status.get("nominatedNodeName") or ""):
        change["nominatedNodeName"] = nominated or None
    if not change:
        return
    await _patch_status(s, pod, {"metadata": {"uid": pod.obj["metadata"].get("uid")}, "status": change})


async def _patch_status(s: Scheduler, pod: PodInfo, patch: Obj) -> None:
    try:
        await s.client.patch(resource("pods"), pod.namespace, pod.name, patch, type="strategic", subresource="status")
    except ApiError as e:
        if e.code != 404:
            log.warning("cannot update the status of pod %s: %s", pod.key, e.message)


async def clear_nomination(s: Scheduler, pod: PodInfo) -> None:
    await _patch_status(s, pod, {"status": {"nominatedNodeName": None}})


async def evict(s: Scheduler, preemptor: PodInfo, plan: Plan, under_way: UnderWay) -> None:
    """Deletes the victims of a preemption, saying why on each."""
    try:
        gone = await asyncio.gather(*(_evict_one(s, preemptor, plan.node, victim) for victim in plan.victims))
        under_way.victims -= {v.uid for v, asked in zip(plan.victims, gone, strict=True) if not asked}
    finally:
        under_way.asking = False
        s.queue.activate_gated(preemptor.uid)


async def _evict_one(s: Scheduler, preemptor: PodInfo, node: str, victim: PodInfo) -> bool:
    """Whether it will go."""
    if s.reject_waiting(victim.uid, "preempted"):
        return True
    now = rfc3339(s.clock.now())
    condition: Obj = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": f"{preemptor.cls.scheduler_name}: preempting to accommodate a higher priority pod",
        "lastProbeTime": None,
        "lastTransitionTime": now,
    }
    if (generation := victim.obj["metadata"].get("generation")) is not None:
        condition["observedGeneration"] = generation
    await _patch_status(s, victim, {"status": {"conditions": [condition]}})
    try:
        await s.client.delete(
            resource("pods"), victim.namespace, victim.name, uid=victim.obj["metadata"].get("uid") or ""
        )
    except ApiError as e:
        if e.code not in (404, 409):
            log.warning("cannot preempt pod %s: %s", victim.key, e.message)
            return False
    s.recorder(preemptor.cls.scheduler_name).event(
        reference(victim.obj),
        "Normal",
        "Preempted",
        f"Preempted by pod {preemptor.uid} on node {node}",
        related=reference(preemptor.obj),
        action="Preempting",
    )
    return True


def reference(pod: Obj) -> Obj:
    """An object reference to a pod: objects from a list do not carry their kind."""
    meta = pod["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": meta["name"],
        "namespace": meta.get("namespace") or "",
        "uid": meta.get("uid") or "",
        "resourceVersion": meta.get("resourceVersion") or "",
    }
