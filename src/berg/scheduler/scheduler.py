"""The scheduler as a component: informers feed the state, a loop decides pod after pod, bindings run beside it.

The loop: wait until the queue has something; take pods and decide, for a few milliseconds; let the event loop run;
again. A decision is synchronous and atomic: nothing changes under it. A pod with a node is *assumed* to be there, so
the next decision counts it in; the API server's word, when it comes, confirms it.

Source: pkg/scheduler/scheduler.go, schedule_one.go.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from berg.client.events import EventRecorder
from berg.client.informer import InformerFactory
from berg.client.rest import Client
from berg.machinery.clock import Clock, RealClock
from berg.scheduler import binding
from berg.scheduler.algorithm import Algorithm, Decision, NoNodes, SchedulingError
from berg.scheduler.config import SchedulerConfig
from berg.scheduler.framework.diagnosis import FitError
from berg.scheduler.framework.interface import Cycle
from berg.scheduler.framework.profile import Profile
from berg.scheduler.framework.status import Code, Status, error
from berg.scheduler.handlers import Handlers
from berg.scheduler.preemption import Plan, UnderWay
from berg.scheduler.queue import QueuedPod, SchedulingQueue
from berg.scheduler.state.objects import ObjectStore
from berg.scheduler.state.podinfo import DEFAULT_SCHEDULER, PodInfo, PodParser
from berg.scheduler.state.snapshot import Snapshot
from berg.scheduler.waiting import WaitingPod

if TYPE_CHECKING:
    from berg.scheduler.metrics import Metrics

Obj = dict[str, Any]
log = logging.getLogger(__name__)

SWEEP_S = 60
MANY_CLASSES = 2000
SLICE_S = 0.005
"""how long decisions are made before the event loop runs again"""


class Scheduler:
    def __init__(
        self,
        client: Client,
        config: SchedulerConfig | None = None,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.client = client
        self.config = config or SchedulerConfig()
        self.clock: Clock = clock or RealClock()
        self.objects = ObjectStore()
        self.snapshot = Snapshot()
        self.parser = PodParser()
        self.assumed: set[str] = set()
        self.waiting: dict[str, WaitingPod] = {}
        self._rng = rng or random.Random()
        registry = self.config.registry
        self.profiles = {
            p.scheduler_name: Profile(p.scheduler_name, p.plugins, self, registry) for p in self.config.profiles
        }
        default = self.config.percentage_of_nodes_to_score
        self._algorithms = {
            p.scheduler_name: Algorithm(
                self.profiles[p.scheduler_name],
                self.snapshot,
                percentage_of_nodes_to_score=(
                    default if p.percentage_of_nodes_to_score is None else p.percentage_of_nodes_to_score
                ),
                rng=self._rng,
            )
            for p in self.config.profiles
        }
        self._ready = asyncio.Event()
        self.queue = SchedulingQueue(
            self.profiles,
            self.clock,
            initial_backoff_s=self.config.pod_initial_backoff_s,
            max_backoff_s=self.config.pod_max_backoff_s,
            on_ready=self._ready.set,
        )
        self._metrics: Metrics | None = None
        self._handlers: Handlers | None = None
        """set by whoever serves them"""
        self._nominations: dict[str, tuple[PodInfo, str]] = {}
        self._preemptions: dict[str, UnderWay] = {}
        self._recorders: dict[str, EventRecorder] = {}
        self._factory = InformerFactory(client, self.clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []

    # Life

    @property
    def metrics(self) -> Metrics | None:
        """What is counted, where somebody wants to know."""
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Metrics | None) -> None:
        self._metrics = metrics
        for algorithm in self._algorithms.values():
            algorithm.timed = metrics.extended if metrics is not None else None
        if metrics is not None:
            metrics.incoming.update(self.queue.incoming)
            self.queue.incoming = metrics.incoming
            metrics.rejecting = self.queue.rejecting

    def pod_resources(self) -> bytes:
        """`/metrics/resources`."""
        from berg.scheduler import pod_resources

        return pod_resources.text(lambda: self._handlers.pods.lister.list() if self._handlers is not None else ())

    async def start(self) -> None:
        """Returns when the informers are synced and pods are being scheduled."""
        self._handlers = Handlers(self, self._factory)
        await self._factory.start()
        self._loops = [
            asyncio.create_task(self._run(), name="scheduler"),
            asyncio.create_task(self._tick(), name="scheduler queue timer"),
        ]

    async def stop(self) -> None:
        for task in (*self._loops, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._loops, *self._tasks, return_exceptions=True)
        self._loops.clear()
        await asyncio.gather(*(r.stop() for r in self._recorders.values()))
        await self._factory.stop()

    def recorder(self, profile: str) -> EventRecorder:
        found = self._recorders.get(profile)
        if found is None:
            found = self._recorders[profile] = EventRecorder(self.client, profile, clock=self.clock, core=False)
        return found

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (e := task.exception()) is not None:
            log.error("scheduler task failed", exc_info=e)

    async def _run(self) -> None:
        while True:
            self._ready.clear()
            until = time.perf_counter() + SLICE_S
            worked = False
            while (q := self.queue.pop()) is not None:
                worked = True
                self._schedule_one(q)
                if time.perf_counter() >= until:
                    break
            if worked:
                await asyncio.sleep(0)
            else:
                await self._ready.wait()

    async def _tick(self) -> None:
        """Wakes the loop for backoffs that end; now and then forgets classes that no pod has."""
        for second in itertools.count(1):
            await self.clock.sleep(1)
            self.queue.flush()
            if second % SWEEP_S == 0 and len(self.parser) > MANY_CLASSES:
                self.snapshot.sweep(self.parser, self.queue.classes())

    # One pod

    def _schedule_one(self, q: QueuedPod) -> None:
        q.began = self.clock.monotonic() if self.metrics is not None else 0.0
        pod = q.pod
        if pod.terminating:
            self.queue.forget(pod.uid)
            return
        nomination = self._nominations.get(pod.uid)
        if nomination is not None:  # its own nomination must not be in its way
            self.snapshot.denominate(pod.uid, nomination[1])
        try:
            decision = self._algorithms[pod.cls.scheduler_name].schedule(
                pod, nominated=nomination[1] if nomination else ""
            )
        except FitError as e:
            self._renominate(nomination)
            self._no_fit(q, e)
        except NoNodes as e:
            self._renominate(nomination)
            self.retry(q, {p.name for p in self.profiles[pod.cls.scheduler_name].filters}, error=False)
            self.spawn(binding.report(self, pod, str(e), rejected=True, nominated=None))
        except SchedulingError as e:
            self._renominate(nomination)
            self.spawn(binding.failed(self, q, e.status.message, e.status))
        except Exception as e:
            log.exception("scheduling %s failed", pod.key)
            self._renominate(nomination)
            self.spawn(binding.failed(self, q, str(e), error(str(e))))
        else:
            self._nominations.pop(pod.uid, None)
            self._preemptions.pop(pod.uid, None)
            self._assume(q, decision)

    def _renominate(self, nomination: tuple[PodInfo, str] | None) -> None:
        if nomination is not None:
            self.snapshot.nominate(*nomination)

    def _assume(self, q: QueuedPod, decision: Decision) -> None:
        profile, node, cycle = self.profiles[q.pod.cls.scheduler_name], decision.node, decision.cycle
        self.assumed.add(q.pod.uid)
        self.snapshot.add_pod(replace(q.pod, node=node))
        status, waiting = self._reserve_and_permit(profile, q.pod, cycle, node)
        if status is not None:
            binding.unreserve(profile, cycle, node)
            self.forget(q.pod)
            self.spawn(binding.failed(self, q, binding.fit_message(status), status))
            return
        self.spawn(binding.bind(self, q, cycle, node, waiting))

    def _reserve_and_permit(
        self, profile: Profile, pod: PodInfo, cycle: Cycle, node: str
    ) -> tuple[Status | None, WaitingPod | None]:
        told = self._telling(profile.name, "Reserve")
        for reserving in profile.reserve:
            if (status := reserving.reserve(cycle, node)) is not None:
                told("Unschedulable" if status.rejected else "Error")
                return status.of(reserving.name), None
        timeouts: dict[str, float] = {}
        told("Success")
        told = self._telling(profile.name, "Permit")
        for permitting in profile.permit:
            answer, timeout_s = permitting.permit(cycle, node)
            if answer is not None and answer.code == Code.WAIT:
                timeouts[permitting.name] = min(timeout_s, 900.0)
            elif answer is not None:
                told("Unschedulable" if answer.rejected else "Error")
                return answer.of(permitting.name), None
        told("Wait" if timeouts else "Success")
        if not timeouts:
            return None, None
        waiting = self.waiting[pod.uid] = WaitingPod(pod, timeouts, self.clock)
        return None, waiting

    def _telling(self, profile: str, point: str) -> Callable[[str], None]:
        """To be told what came of the extension point that begins now."""
        started = perf_counter()

        def told(status: str) -> None:
            if self.metrics is not None:
                self.metrics.extended(point, profile, perf_counter() - started, status)

        return told

    def _no_fit(self, q: QueuedPod, failure: FitError) -> None:
        pod, diagnosis, cycle = q.pod, failure.diagnosis, failure.cycle
        nominated: str | None = None
        messages: list[str] = []
        for post in self.profiles[pod.cls.scheduler_name].post_filter:
            node, status = post.post_filter(cycle, diagnosis)
            nominated = node if node is not None else nominated
            if status.code == Code.SUCCESS:
                messages.clear()
                break
            messages += status.reasons
        diagnosis.post_filter_message = ", ".join(messages)
        plan: Plan | None = cycle.data.get("preemption")
        if plan is not None:
            if self.metrics is not None:
                self.metrics.preempted(len(plan.victims))
            self._preemptions[pod.uid] = UnderWay({v.uid for v in plan.victims})
        if nominated:
            self.nominate(pod, nominated)
        elif nominated == "":
            self.denominate(pod.uid)
        self.retry(q, diagnosis.plugins, diagnosis.pending_plugins)
        self.spawn(self._after_no_fit(pod, diagnosis.message(), nominated, plan))

    async def _after_no_fit(self, pod: PodInfo, message: str, nominated: str | None, plan: Plan | None) -> None:
        if plan is not None:
            self._clear_lower_nominations(pod, plan.node)
            await binding.evict(self, pod, plan, self._preemptions.get(pod.uid) or UnderWay(set()))
        await binding.report(self, pod, message, rejected=True, nominated=nominated)

    def _clear_lower_nominations(self, pod: PodInfo, node: str) -> None:
        """Pods of lower priority that meant to go there have to think again."""
        row = self.snapshot.rows.get(node, -1)
        for other in list(self.snapshot.nominated.get(row, {}).values()):
            if other.priority < pod.priority:
                self.denominate(other.uid)
                self.spawn(binding.clear_nomination(self, other))

    # What handlers and the binding cycle ask for

    def is_ours(self, pod: Obj) -> bool:
        return (pod["spec"].get("schedulerName") or DEFAULT_SCHEDULER) in self.profiles

    def is_assumed(self, uid: str) -> bool:
        return uid in self.assumed

    def confirm(self, pod: PodInfo) -> None:
        """The API server says that the pod is on its node."""
        known = self.snapshot.where.get(pod.uid)
        self.assumed.discard(pod.uid)
        self.queue.delete(pod.uid)
        self.denominate(pod.uid)
        same = known is not None and known.cls is pod.cls and known.node == pod.node
        if known is not None and same and known.terminating == pod.terminating:
            known.obj = pod.obj
        else:
            self.snapshot.add_pod(pod)

    def replace_object(self, pod: Obj) -> None:
        known = self.snapshot.where.get(pod["metadata"].get("uid") or "")
        if known is not None:
            known.obj = pod

    def forget(self, pod: PodInfo) -> None:
        """An assumption that did not come true."""
        if pod.uid in self.assumed:
            self.assumed.discard(pod.uid)
            self.snapshot.remove_pod(pod.uid)

    def retry(self, q: QueuedPod, by: set[str], pending: set[str] | None = None, *, error: bool = False) -> None:
        self.count(q, "error" if error else "unschedulable")
        self.queue.retry(q, by, pending or (), error=error)
        self.queue.done(q.pod.uid)

    def count(self, q: QueuedPod, result: str) -> None:
        """An attempt ended: scheduled, unschedulable or error."""
        if self.metrics is not None:
            now = self.clock.monotonic()
            self.metrics.attempt(q.pod.cls.scheduler_name, result, now - q.began)
            if result == "scheduled":
                self.metrics.scheduled(q, now)

    def nominate(self, pod: PodInfo, node: str) -> None:
        old = self._nominations.get(pod.uid)
        if old is not None:
            self.snapshot.denominate(pod.uid, old[1])
        self._nominations[pod.uid] = (pod, node)
        self.snapshot.nominate(pod, node)

    def denominate(self, uid: str) -> None:
        old = self._nominations.pop(uid, None)
        if old is not None:
            self.snapshot.denominate(uid, old[1])

    def forget_preemption(self, uid: str) -> None:
        self._preemptions.pop(uid, None)

    def renominate(self, node: str) -> None:
        """A node came (back) that pods are nominated to."""
        for pod, name in self._nominations.values():
            if name == node:
                self.snapshot.nominate(pod, node)

    # The plugins' handle (framework.interface.Handle)

    async def changed(self, kind: str) -> None:
        await self.objects.changed(kind)

    def preemption_of(self, uid: str) -> UnderWay | None:
        return self._preemptions.get(uid)

    def waiting_pod(self, uid: str) -> WaitingPod | None:
        return self.waiting.get(uid)

    def reject_waiting(self, uid: str, why: str) -> bool:
        held = self.waiting.get(uid)
        if held is None:
            return False
        held.reject("", why)
        return True


__all__ = ["Scheduler", "SchedulerConfig"]
