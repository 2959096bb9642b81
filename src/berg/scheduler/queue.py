"""Pods that wait for a decision.

- *active*: may be tried now, in the order of the QueueSort plugin;
- *backoff*: were tried, something changed since, but it is too early to try again;
- *unschedulable*: were tried, and nothing has happened since that could help. An event in the cluster moves a pod
  on when one of the plugins that rejected it has a queueing hint for such an event that says so; after five minutes a
  pod is tried again in any case;
- *gated*: a PreEnqueue plugin does not let them in.

A pod is in exactly one of these, or *in flight*: given out by `pop` and not yet `done`. Events that come while a pod
is in flight are kept, so that none is missed between a decision and the pod's return.

No I/O; time comes from the clock. Source: pkg/scheduler/backend/queue.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from berg.machinery.clock import Clock
from berg.scheduler.framework.events import ClusterEvent, EventWithHint
from berg.scheduler.framework.profile import Profile
from berg.scheduler.framework.status import Status
from berg.scheduler.state.podinfo import PodClass, PodInfo

Obj = dict[str, Any]

MAX_UNSCHEDULABLE_S = 300.0
FAILED = "ScheduleAttemptFailure"


@dataclass(slots=True, eq=False)
class QueuedPod:
    pod: PodInfo
    added: float
    """when it was (last) queued"""
    first: float
    """when it was first seen"""
    attempts: int = 0
    failures: int = 0
    """in a row: what the backoff grows with"""
    rejected_by: set[str] = field(default_factory=set)
    pending_on: set[str] = field(default_factory=set)
    gated: Status | None = None
    where: str = ""
    """active, backoff, unschedulable, gated, or "" when in flight"""
    began: float = 0.0
    """when the attempt that is under way began"""
    errored: bool = False
    """its backoff is for an error, not because it did not fit"""


Hints = Mapping[str, list[EventWithHint]]


class SchedulingQueue:
    def __init__(
        self,
        profiles: Mapping[str, Profile],
        clock: Clock,
        *,
        initial_backoff_s: float = 1,
        max_backoff_s: float = 10,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_ready` is called whenever `pop` may have something."""
        self._profiles = profiles
        self._clock = clock
        self._initial_backoff_s = initial_backoff_s
        self._max_backoff_s = max_backoff_s
        self._on_ready = on_ready
        self._pods: dict[str, QueuedPod] = {}
        self._active: list[tuple[Any, int, QueuedPod]] = []
        self._backoff: list[tuple[float, int, QueuedPod]] = []
        self._unschedulable: dict[str, QueuedPod] = {}
        self._rejected: dict[str, dict[str, QueuedPod]] = {}
        """unschedulable and gated pods, by plugin that rejected them"""
        self.incoming: Counter[tuple[str, str]] = Counter()
        """(queue, why) → pods that entered it, for metrics"""
        self._ids = itertools.count()
        self._in_flight: dict[str, int] = {}
        self._events: deque[tuple[int, ClusterEvent, Obj | None, Obj | None]] = deque()
        self._event_ids = itertools.count(1)
        self._sort = next(iter(profiles.values())).queue_sort[0]
        self._hints = {name: {p.name: p.events() for p in profile.plugins} for name, profile in profiles.items()}

    def __len__(self) -> int:
        return len(self._pods)

    def rejecting(self) -> Iterator[tuple[tuple[str, str], int]]:
        """(plugin, profile) → how many wait because of it."""
        for plugin, held in self._rejected.items():
            for profile, count in Counter(q.pod.cls.scheduler_name for q in held.values()).items():
                yield (plugin, profile), count

    def counts(self) -> dict[str, int]:
        found = {"active": 0, "backoff": 0, "unschedulable": 0, "gated": 0}
        for q in self._pods.values():
            if q.where:
                found[q.where] += 1
        return found

    def get(self, uid: str) -> QueuedPod | None:
        return self._pods.get(uid)

    def classes(self) -> set[PodClass]:
        """Of all pods that are here or in flight."""
        return {q.pod.cls for q in self._pods.values()}

    # In

    def add(self, pod: PodInfo) -> None:
        """A new pod."""
        now = self._clock.monotonic()
        old = self._pods.get(pod.uid)
        if old is not None:
            self.update(pod)
            return
        self._enter(QueuedPod(pod, now, now), "PodAdd")

    def update(self, pod: PodInfo) -> None:
        """The object changed in a way that its plugins' events have been told of; see `happened`."""
        q = self._pods.get(pod.uid)
        if q is None:
            self.add(pod)
            return
        resort = q.where == "active" and q.pod.cls.priority != pod.cls.priority
        q.pod = pod
        if resort:
            self._push_active(q)
        elif q.where == "gated":
            self._leave(q)
            self._enter(q, "UnscheduledPodUpdate")

    def delete(self, uid: str) -> None:
        q = self._pods.pop(uid, None)
        if q is not None:
            self._leave(q)
            q.where = "deleted"

    def retry(
        self, q: QueuedPod, rejected_by: Iterable[str], pending_on: Iterable[str] = (), *, error: bool = False
    ) -> None:
        """Takes back a pod that was in flight and found no node. No plugins: something failed, try after a backoff."""
        uid = q.pod.uid
        place = self._in_flight.get(uid)
        if self._pods.get(uid) is not q:
            return  # deleted meanwhile
        q.rejected_by = set(rejected_by)
        q.pending_on = set(pending_on)
        q.added = self._clock.monotonic()
        q.failures += 1
        q.errored = error
        plugins = q.rejected_by | q.pending_on
        missed = [] if place is None else [e for e in self._events if e[0] > place]
        if not plugins or any(self._worth(q, e[1], e[2], e[3]) for e in missed):
            self._move(q, FAILED)
        else:
            self._hold(q)

    def _hold(self, q: QueuedPod) -> None:
        q.where = "unschedulable"
        self.incoming["unschedulable", FAILED] += 1
        self._unschedulable[q.pod.uid] = q
        for plugin in q.rejected_by | q.pending_on:
            self._rejected.setdefault(plugin, {})[q.pod.uid] = q

    def _enter(self, q: QueuedPod, why: str) -> None:
        """Into active, unless a PreEnqueue plugin objects."""
        self._pods[q.pod.uid] = q
        profile = self._profiles.get(q.pod.cls.scheduler_name)
        for plugin in profile.pre_enqueue if profile else ():
            status = plugin.pre_enqueue(q.pod)
            if status is not None:
                q.gated = status
                q.where = "gated"
                self.incoming["gated", why] += 1
                q.rejected_by = {plugin.name}
                self._rejected.setdefault(plugin.name, {})[q.pod.uid] = q
                return
        q.gated = None
        self.incoming["active", why] += 1
        self._push_active(q)

    def _push_active(self, q: QueuedPod) -> None:
        q.where = "active"
        heapq.heappush(self._active, (self._sort.sort_key(q.pod, q.added), next(self._ids), q))
        self._on_ready()

    def _leave(self, q: QueuedPod) -> None:
        """Out of where it is. Entries in heaps stay behind and are skipped when they come up."""
        uid = q.pod.uid
        self._unschedulable.pop(uid, None)
        for plugin in q.rejected_by | q.pending_on:
            if (held := self._rejected.get(plugin)) is not None:
                held.pop(uid, None)
        q.where = ""

    # Out

    def pop(self) -> QueuedPod | None:
        """The next pod to be tried, or None. When nothing is active, one whose backoff is not over is taken."""
        self.flush()
        while self._active:
            _, _, q = heapq.heappop(self._active)
            if q.where == "active" and self._pods.get(q.pod.uid) is q:
                return self._give_out(q)
        while self._backoff:
            _, _, q = self._backoff[0]
            if q.where == "backoff" and self._pods.get(q.pod.uid) is q:
                if q.errored:
                    return None
                heapq.heappop(self._backoff)
                return self._give_out(q)
            heapq.heappop(self._backoff)
        return None

    def _give_out(self, q: QueuedPod) -> QueuedPod:
        q.where = ""
        q.attempts += 1
        self._in_flight[q.pod.uid] = next(self._event_ids)
        return q

    def done(self, uid: str) -> None:
        """The pod is no longer in flight: bound, or taken back."""
        self._in_flight.pop(uid, None)
        if not self._in_flight:
            self._events.clear()
        else:
            oldest = next(iter(self._in_flight.values()))
            while self._events and self._events[0][0] <= oldest:
                self._events.popleft()

    def forget(self, uid: str) -> None:
        """The pod has its node: it needs no place here."""
        self._pods.pop(uid, None)
        self.done(uid)

    # Time

    def backoff_s(self, q: QueuedPod) -> float:
        return float(min(self._initial_backoff_s * 2 ** max(q.failures - 1, 0), self._max_backoff_s))

    def flush(self) -> None:
        """Whose backoff is over becomes active; so does whoever was unschedulable for too long."""
        now = self._clock.monotonic()
        while self._backoff and self._backoff[0][0] <= now:
            _, _, q = heapq.heappop(self._backoff)
            if q.where == "backoff":
                q.where = ""
                self._enter(q, "BackoffComplete")
        if self._unschedulable:
            while True:
                first = next(iter(self._unschedulable.values()), None)
                if first is None or now - first.added < MAX_UNSCHEDULABLE_S:
                    break
                self._leave(first)
                self._move(first, "UnschedulableTimeout")

    def next_deadline(self) -> float | None:
        """When `flush` will next have something to do (monotonic)."""
        times = [self._backoff[0][0]] if self._backoff else []
        if self._unschedulable:
            times.append(next(iter(self._unschedulable.values())).added + MAX_UNSCHEDULABLE_S)
        return min(times) if times else None

    def _move(self, q: QueuedPod, why: str) -> None:
        """On to backoff or active."""
        ready = q.added + self.backoff_s(q)
        if q.pending_on or ready <= self._clock.monotonic():
            self._enter(q, why)
        else:
            q.where = "backoff"
            self.incoming["backoff", why] += 1
            heapq.heappush(self._backoff, (ready, next(self._ids), q))
            self._on_ready()

    # Events

    def happened(self, event: ClusterEvent, old: Obj | None, new: Obj | None) -> None:
        """Something changed in the cluster; pods for which it may matter move on."""
        if self._in_flight:
            self._events.append((next(self._event_ids), event, old, new))
        if not self._rejected:
            return
        moved: dict[str, QueuedPod] = {}
        for plugin, held in self._rejected.items():
            if held and self._interesting(plugin, event):
                moved.update((uid, q) for uid, q in held.items() if self._worth(q, event, old, new))
        for q in moved.values():
            gated = q.where == "gated"
            self._leave(q)
            if gated:
                self._enter(q, event.label)
            else:
                self._move(q, event.label)

    def _interesting(self, plugin: str, event: ClusterEvent) -> bool:
        return any(e.event.matches(event) for hints in self._hints.values() for e in hints.get(plugin, ()))

    def _worth(self, q: QueuedPod, event: ClusterEvent, old: Obj | None, new: Obj | None) -> bool:
        hints = self._hints.get(q.pod.cls.scheduler_name, {})
        return any(
            e.event.matches(event) and (e.hint is None or e.hint(q.pod, old, new))
            for plugin in q.rejected_by | q.pending_on
            for e in hints.get(plugin, ())
        )

    def activate_gated(self, uid: str) -> None:
        """What held a gated pod back is over."""
        q = self._pods.get(uid)
        if q is not None and q.where == "gated":
            self.activate([uid])

    def activate(self, uids: Iterable[str]) -> None:
        """Tries these again at once: a plugin knows better."""
        for uid in uids:
            q = self._pods.get(uid)
            if q is not None and q.where in ("unschedulable", "backoff", "gated"):
                self._leave(q)
                self._enter(q, "ForceActivate")
