"""HorizontalPodAutoscalers: every fifteen seconds the scale that the metrics ask for.

The largest of what the metrics propose is taken; hpa_behavior.py says how far of it is gone at once.

Source: pkg/controller/podautoscaler/horizontal.go.
"""

from __future__ import annotations

from berg.controllers import hpa_behavior as behavior
from berg.controllers.context import APIController, Context
from berg.controllers.hpa_metrics import Calculator, MetricsFailed, Proposal, Target
from berg.controllers.objects import conditions_of, find_condition
from berg.machinery import meta, quantity
from berg.machinery.clock import rfc3339
from berg.machinery.labels import Selector
from berg.machinery.metrics import exponential
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

WINDOW_S = 3600.0
SECONDS = exponential(0.001, 2, 15)
DEFAULT_METRICS: list[Obj] = [
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
]


class HorizontalPodAutoscalerController(APIController):
    name = "horizontal-pod-autoscaler-controller"
    component = "horizontal-pod-autoscaler"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("horizontalpodautoscalers.autoscaling")
        self.autoscalers = ctx.informer("horizontalpodautoscalers.autoscaling")
        self.pods = ctx.informer("pods")
        self.past: dict[str, behavior.Past] = {}
        prefix, of_round = "horizontal_pod_autoscaler_controller", ("action", "error")
        of_metric = (*of_round, "metric_type")
        histogram, counter = ctx.metrics.histogram, ctx.metrics.counter
        self.rounds = counter(f"{prefix}_reconciliations_total", "[BETA] Autoscalers looked at.", of_round)
        help = "[BETA] How long it took to look at an autoscaler."
        self.round_seconds = histogram(f"{prefix}_reconciliation_duration_seconds", help, SECONDS, of_round)
        self.computed = counter(f"{prefix}_metric_computation_total", "[BETA] Metrics looked at.", of_metric)
        help = "[BETA] How long it took to look at a metric."
        self.metric_seconds = histogram(f"{prefix}_metric_computation_duration_seconds", help, SECONDS, of_metric)
        self.autoscalers.add_handler(self.enqueue, self._changed, self._gone)

    def _changed(self, old: Obj, new: Obj) -> None:
        if old["spec"] != new["spec"]:
            self.enqueue(new)

    def _gone(self, hpa: Obj) -> None:
        self.past.pop(meta.key(hpa), None)

    async def reconcile(self, key: str) -> None:
        hpa = self.autoscalers.lister.get_key(key)
        if hpa is None:
            self.past.pop(key, None)
            return
        self.queue.add_after(key, self.ctx.config.horizontal_pod_autoscaler_sync_period_s)
        past = self.past.setdefault(key, behavior.Past())
        past.trim(self.clock.monotonic(), WINDOW_S)
        try:
            hpa = await self.client.get(self.resource, meta.namespace(hpa), meta.name(hpa))
        except ApiError as e:
            if e.code == 404:
                return
            raise
        work = {**hpa, "kind": self.resource.kind, "apiVersion": self.resource.api_version}
        started, round_ = self.clock.monotonic(), Round(self, work, past)
        try:
            await round_.run()
        except Exception:
            round_.error = round_.error if round_.error != "none" else "internal"
            raise
        finally:
            labels = (_action(round_.current, round_.desired), round_.error)
            self.rounds.inc(*labels)
            self.round_seconds.observe(self.clock.monotonic() - started, *labels)


def _action(current: int, desired: int) -> str:
    return "scale_up" if desired > current else "scale_down" if desired < current else "none"


class Round:
    """One look at one autoscaler."""

    def __init__(self, c: HorizontalPodAutoscalerController, hpa: Obj, past: behavior.Past) -> None:
        self.c, self.hpa, self.past = c, hpa, past
        self.status: Obj = {**(hpa.get("status") or {})}
        self.conditions = conditions_of(hpa)
        self.current = self.desired = 0
        self.error = "none"
        """what metrics are told of the first fault: spec or internal"""

    def _fault(self, kind: str) -> None:
        if self.error == "none":
            self.error = kind

    def _set(self, type: str, status: str, reason: str, message: str) -> None:
        old = find_condition(self.conditions, type)
        since = rfc3339(self.c.clock.now())
        if old is not None and old["status"] == status:
            since = old.get("lastTransitionTime", since)
        new = {"type": type, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}
        if old is None:
            self.conditions.append(new)
        else:
            self.conditions[self.conditions.index(old)] = new

    def _event(self, type: str, reason: str, message: str) -> None:
        self.c.event(self.hpa, type, reason, message)

    async def run(self) -> None:
        ref, namespace = self.hpa["spec"]["scaleTargetRef"], meta.namespace(self.hpa)
        try:
            r = await self.c.ctx.scalable(ref.get("apiVersion") or "v1", ref["kind"])
            if r is None:
                raise ApiError(
                    404, "NotFound", f'no matches for kind "{ref["kind"]}" in group "{ref.get("apiVersion", "")}"'
                )
            scale = await self.c.client.get(r, namespace, ref["name"], subresource="scale")
        except ApiError as e:
            self._fault("internal")
            self._event("Warning", "FailedGetScale", e.message)
            text = f"the HPA controller was unable to get the target's current scale: {e.message}"
            self._set("AbleToScale", "False", "FailedGetScale", text)
            await self._put()
            return
        text = "the HPA controller was able to get the target's current scale"
        self._set("AbleToScale", "True", "SucceededGetScale", text)
        self.current = self.desired = (scale.get("spec") or {}).get("replicas", 0)
        reason = await self._decide(scale)
        if reason and self.desired != self.current:
            body = {**scale, "spec": {**(scale.get("spec") or {}), "replicas": self.desired}}
            try:
                await self.c.client.update(r, body, subresource="scale")
            except ApiError as e:
                self._fault("internal")
                self._event(
                    "Warning", "FailedRescale", f"New size: {self.desired}; reason: {reason}; error: {e.message}"
                )
                text = f"the HPA controller was unable to update the target scale: {e.message}"
                self._set("AbleToScale", "False", "FailedUpdateScale", text)
                self.desired = self.current
                await self._put()
                return
            text = f"the HPA controller was able to update the target scale to {self.desired}"
            self._set("AbleToScale", "True", "SucceededRescale", text)
            self._event("Normal", "SuccessfulRescale", f"New size: {self.desired}; reason: {reason}")
            self.past.note_scale(self.c.clock.monotonic(), self.current, self.desired)
            self.status["lastScaleTime"] = rfc3339(self.c.clock.now())
        await self._put()

    async def _decide(self, scale: Obj) -> str:
        """Sets `desired`; the reason for a rescale, empty for none."""
        spec = self.hpa["spec"]
        low, high = spec.get("minReplicas", 1), spec["maxReplicas"]
        if self.current == 0 and low != 0:
            text = "scaling is disabled since the replica count of the target is zero"
            self._set("ScalingActive", "False", "ScalingDisabled", text)
            return ""
        if self.current > high:
            self.desired = high
            return "Current number of replicas above Spec.MaxReplicas"
        if self.current < low:
            self.desired = low
            return "Current number of replicas below Spec.MinReplicas"
        best = await self._propose(scale)
        if best is None:
            return ""
        now = self.c.clock.monotonic()
        window = self.c.ctx.config.horizontal_pod_autoscaler_downscale_stabilization_s
        found = behavior.bound(self.hpa, self.past, self.current, best.replicas, now, window)
        self._set("AbleToScale", "True", *found.able)
        self._set("ScalingLimited", *found.limited)
        self.desired = found.replicas
        if self.desired > self.current:
            return f"{best.name} above target"
        return "All metrics below target" if self.desired < self.current else ""

    async def _propose(self, scale: Obj) -> Proposal | None:
        """The largest of what the metrics ask for. Those that fail are left out, unless that means going down."""
        text = (scale.get("status") or {}).get("selector") or ""
        if not text:
            message = "the HPA target's scale is missing a selector"
            self._fault("spec")
            self._event("Warning", "SelectorRequired", "selector is required")
            self._set("ScalingActive", "False", "InvalidSelector", message)
            return None
        pods = self.c.pods.lister.list(meta.namespace(self.hpa), Selector.parse(text))
        observed = (scale.get("status") or {}).get("replicas", 0)
        target = Target(meta.namespace(self.hpa), self.current, observed, text, pods)
        calculator = Calculator(self.c.client, self.c.ctx.config, self.c.clock.now(), self._tolerance())
        proposals: list[Proposal] = []
        failures: list[MetricsFailed] = []
        metrics = self.hpa["spec"].get("metrics") or DEFAULT_METRICS
        for metric in metrics:
            started, replicas, error = self.c.clock.monotonic(), self.current, "none"
            try:
                proposals.append(await calculator.propose(metric, target, self.hpa["spec"]["scaleTargetRef"]))
                replicas = proposals[-1].replicas
            except MetricsFailed as e:
                failures.append(e)
                error = "spec" if e.reason == "InvalidMetricSourceType" else "internal"
                self._fault(error)
            labels = (_action(self.current, replicas), error, metric["type"])
            self.c.computed.inc(*labels)
            self.c.metric_seconds.observe(self.c.clock.monotonic() - started, *labels)
        best = max(proposals, key=lambda p: p.replicas, default=None)
        if failures and (best is None or best.replicas < self.current):
            first = failures[0]
            why = f"invalid metrics ({len(failures)} invalid out of {len(metrics)}), first error is: {first.message}"
            self._event("Warning", "FailedComputeMetricsReplicas", why)
            message = f"the HPA was unable to compute the replica count: {first.message}"
            self._set("ScalingActive", "False", first.reason, message)
            return None
        assert best is not None
        self.status["currentMetrics"] = [p.status for p in proposals]
        message = f"the HPA was able to successfully calculate a replica count from {best.name}"
        self._set("ScalingActive", "True", "ValidMetricFound", message)
        return best

    def _tolerance(self) -> tuple[float, float]:
        default = self.c.ctx.config.horizontal_pod_autoscaler_tolerance
        found = []
        for direction in ("scaleDown", "scaleUp"):
            own = ((self.hpa["spec"].get("behavior") or {}).get(direction) or {}).get("tolerance")
            found.append(default if own is None else quantity.milli(own) / 1000)
        return found[0], found[1]

    async def _put(self) -> None:
        status = {
            **self.status,
            "observedGeneration": self.hpa["metadata"].get("generation"),
            "currentReplicas": self.current,
            "desiredReplicas": self.desired,
            "conditions": self.conditions,
        }
        status = {k: v for k, v in status.items() if v is not None}
        if status != (self.hpa.get("status") or {}):
            await self.c.client.update_status(self.c.resource, {**self.hpa, "status": status})
