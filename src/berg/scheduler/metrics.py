"""What the scheduler counts, by upstream's stable metric names. Made only where somebody serves them.

Source: pkg/scheduler/metrics/metrics.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from berg.machinery.features import FeatureGates
from berg.scheduler.queue import QueuedPod

DURATIONS_S = tuple(0.001 * 2**i for i in range(15))
SLI_S = tuple(0.01 * 2**i for i in range(20))
SMALL_COUNTS = (1, 2, 4, 8, 16)
VICTIMS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    def __init__(self, pending: Callable[[], dict[str, int]], gates: Mapping[str, bool] | None = None) -> None:
        """`pending` is asked at each scrape: pods waiting, by queue."""
        self._features = FeatureGates(gates)
        self.registry = CollectorRegistry()
        self.registry.register(_Pending(pending))
        by_result = ["profile", "result"]
        self._attempts = Counter(
            "scheduler_schedule_attempts",
            "Attempts to schedule pods, by result: scheduled, unschedulable, error.",
            by_result,
            registry=self.registry,
        )
        self._durations = Histogram(
            "scheduler_scheduling_attempt_duration_seconds",
            "Latency of one attempt, deciding and binding.",
            by_result,
            buckets=DURATIONS_S,
            registry=self.registry,
        )
        self._tries = Histogram(
            "scheduler_pod_scheduling_attempts",
            "Attempts that it took to schedule a pod.",
            buckets=SMALL_COUNTS,
            registry=self.registry,
        )
        self._sli = Histogram(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "Latency from a pod's entry into the queue until it is bound.",
            ["attempts"],
            buckets=SLI_S,
            registry=self.registry,
        )
        self._preemptions = Counter(
            "scheduler_preemption_attempts", "Preemptions that were tried.", registry=self.registry
        )
        self._victims = Histogram(
            "scheduler_preemption_victims", "Victims of a preemption.", buckets=VICTIMS, registry=self.registry
        )

    def attempt(self, profile: str, result: str, seconds: float) -> None:
        self._attempts.labels(profile, result).inc()
        self._durations.labels(profile, result).observe(seconds)

    def scheduled(self, q: QueuedPod, now: float) -> None:
        self._tries.observe(q.attempts)
        self._sli.labels(str(min(q.attempts, 15))).observe(now - q.first)

    def preempted(self, victims: int) -> None:
        self._preemptions.inc()
        self._victims.observe(victims)

    def text(self) -> bytes:
        return generate_latest(self.registry) + self._features.text().encode()


class _Pending(Collector):
    def __init__(self, pending: Callable[[], dict[str, int]]) -> None:
        self._pending = pending

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("scheduler_pending_pods", "Pods waiting, by queue.", labels=["queue"])
        for queue, n in self._pending().items():
            family.add_metric([queue], n)
        yield family
