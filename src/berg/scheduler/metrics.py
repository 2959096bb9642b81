"""What the scheduler counts, by upstream's metric names. Made only where somebody serves them.

Source: pkg/scheduler/metrics/metrics.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from berg.machinery import features, process, version
from berg.machinery.features import FeatureGates
from berg.machinery.metrics import Registry, Samples, exponential
from berg.scheduler.queue import QueuedPod

DURATIONS_S = exponential(0.001, 2, 15)
SLI_S = exponential(0.01, 2, 20)
POINTS_S = exponential(0.0001, 2, 12)
WAITS_S = exponential(0.001, 2, 15)
SMALL_COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0)
VICTIMS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


class Metrics:
    def __init__(self, pending: Callable[[], dict[str, int]], gates: Mapping[str, bool] | None = None) -> None:
        """`pending` is asked at each scrape: pods waiting, by queue."""
        self.registry = r = Registry()
        r.gauge(features.METRIC, features.HELP, ("name", "stage"), FeatureGates(gates).samples)
        process.describe(r, version.info(), "kube-scheduler")
        r.gauge(
            "scheduler_pending_pods",
            "[STABLE] Pods waiting, by queue.",
            ("queue",),
            lambda: [((queue,), n) for queue, n in pending().items()],
        )
        by_result = ("profile", "result")
        help = "[STABLE] Attempts to schedule pods, by result: scheduled, unschedulable, error."
        self._attempts = r.counter("scheduler_schedule_attempts_total", help, by_result)
        help = "[STABLE] Latency of one attempt, deciding and binding."
        self._durations = r.histogram("scheduler_scheduling_attempt_duration_seconds", help, DURATIONS_S, by_result)
        help = "[STABLE] Attempts that it took to schedule a pod."
        self._tries = r.histogram("scheduler_pod_scheduling_attempts", help, SMALL_COUNTS)
        help = "[BETA] Latency from a pod's entry into the queue until it is bound."
        self._sli = r.histogram("scheduler_pod_scheduling_sli_duration_seconds", help, SLI_S, ("attempts",))
        self._preemptions = r.counter("scheduler_preemption_attempts_total", "[STABLE] Preemptions that were tried.")
        self._victims = r.histogram("scheduler_preemption_victims", "[STABLE] Victims of a preemption.", VICTIMS)
        help = "[STABLE] Latency of all plugins of an extension point."
        labels = ("extension_point", "profile", "status")
        self._points = r.histogram("scheduler_framework_extension_point_duration_seconds", help, POINTS_S, labels)
        help = "[BETA] How long pods waited for plugins to permit them."
        self._permits = r.histogram("scheduler_permit_wait_duration_seconds", help, WAITS_S, ("result",))
        self.incoming: Counter[tuple[str, str]] = Counter()
        """(queue, why) → pods that entered it"""
        r.total(
            "scheduler_queue_incoming_pods_total",
            "[STABLE] Pods that entered a queue, by what made them.",
            ("event", "queue"),
            lambda: [((event, queue), n) for (queue, event), n in self.incoming.items()],
        )
        self.rejecting: Callable[[], Samples] = list
        """(plugin, profile) → pods that wait because of it"""
        help = "[BETA] Pods that wait because of a plugin."
        r.gauge("scheduler_unschedulable_pods", help, ("plugin", "profile"), lambda: self.rejecting())

    def attempt(self, profile: str, result: str, seconds: float) -> None:
        self._attempts.inc(profile, result)
        self._durations.observe(seconds, profile, result)

    def scheduled(self, q: QueuedPod, now: float) -> None:
        self._tries.observe(q.attempts)
        self._sli.observe(now - q.first, str(min(q.attempts, 15)))

    def preempted(self, victims: int) -> None:
        self._preemptions.inc()
        self._victims.observe(victims)

    def extended(self, point: str, profile: str, seconds: float, status: str = "Success") -> None:
        self._points.observe(seconds, point, profile, status)

    def permitted(self, result: str, seconds: float) -> None:
        self._permits.observe(seconds, result)

    def text(self) -> bytes:
        return self.registry.text().encode()
