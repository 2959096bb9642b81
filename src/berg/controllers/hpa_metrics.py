"""From metrics to a number of replicas: asks the metrics APIs (resource, custom, external) and does the sums.

Pods without metrics, or not ready yet, are taken to use nothing when scaling up and all of their target when
scaling down, so that missing knowledge never makes a scale move further.

Source: pkg/controller/podautoscaler/{replica_calculator,metrics}.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

import orjson

from berg.client.rest import Client
from berg.controllers.config import Config
from berg.controllers.objects import time_of
from berg.controllers.pods import condition, phase
from berg.machinery import meta, quantity
from berg.machinery.labels import Selector
from berg.machinery.quotas import pod_total
from berg.machinery.status import ApiError, Obj

RESOURCE_METRICS = "/apis/metrics.k8s.io/v1beta1"
CUSTOM_METRICS = "/apis/custom.metrics.k8s.io/v1beta2"
EXTERNAL_METRICS = "/apis/external.metrics.k8s.io/v1beta1"


@dataclass(slots=True)
class Proposal:
    replicas: int
    name: str
    """what the reason of a rescale calls the metric"""
    status: Obj
    """for status.currentMetrics"""
    at: datetime


class MetricsFailed(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(slots=True)
class Target:
    """What is scaled."""

    namespace: str
    current: int
    """spec.replicas"""
    observed: int
    """status.replicas"""
    selector: str
    pods: list[Obj]


class Calculator:
    def __init__(self, client: Client, config: Config, now: datetime, tolerance: tuple[float, float]) -> None:
        self._client, self._config, self._now = client, config, now
        self._down, self._up = tolerance

    async def propose(self, metric: Obj, target: Target, ref: Obj) -> Proposal:
        """Raises MetricsFailed."""
        kind = metric["type"]
        try:
            match kind:
                case "Resource":
                    return await self._resource(metric["resource"], target, "")
                case "ContainerResource":
                    spec = metric["containerResource"]
                    return await self._resource(spec, target, spec["container"])
                case "Pods":
                    return await self._pods(metric["pods"], target)
                case "Object":
                    return await self._object(metric["object"], target)
                case "External":
                    return await self._external(metric["external"], target)
        except ApiError as e:
            raise MetricsFailed(f"FailedGet{kind}Metric", _unavailable(metric, e.message)) from e
        raise MetricsFailed("InvalidMetricSourceType", f'unknown metric source type "{kind}"')

    def _within(self, ratio: float) -> bool:
        return 1.0 - self._down <= ratio <= 1.0 + self._up

    async def _get(self, path: str, query: dict[str, str] | None = None) -> Obj:
        return orjson.loads(await self._client.request("GET", path, query=query))

    # -- usage of cpu and memory

    async def _resource(self, spec: Obj, target: Target, container: str) -> Proposal:
        name, wanted = spec["name"], spec["target"]
        answer = await self._get(
            f"{RESOURCE_METRICS}/namespaces/{target.namespace}/pods", {"labelSelector": target.selector}
        )
        usage: dict[str, int] = {}
        stamps: dict[str, tuple[datetime, float]] = {}
        for item in answer.get("items") or ():
            total = 0
            for c in item.get("containers") or ():
                if not container or c["name"] == container:
                    total += quantity.milli((c.get("usage") or {}).get(name, "0"))
            usage[meta.name(item)] = total
            at = time_of(item.get("timestamp")) or self._now
            stamps[meta.name(item)] = (at, _seconds(item.get("window", "60s")))
        if not usage:
            raise MetricsFailed(
                "FailedGetResourceMetric",
                f"unable to get metrics for resource {name}: no metrics returned from resource metrics API",
            )
        at = min(t for t, _ in stamps.values())
        source = "containerResource" if container else "resource"
        status: Obj = {"type": "ContainerResource" if container else "Resource"}
        current: Obj = {}
        status[source] = {"name": name, "current": current, **({"container": container} if container else {})}
        label = f"{name} container resource" if container else f"{name} resource"
        if wanted.get("averageUtilization") is not None:
            requests = {meta.name(p): _request(p, name, container) for p in target.pods}
            replicas, percent, average = self._by_utilization(
                target, usage, stamps, requests, wanted["averageUtilization"], name
            )
            current.update(averageUtilization=percent, averageValue=str(quantity.from_milli(average)))
            return Proposal(replicas, f"{label} utilization (percentage of request)", status, at)
        goal = quantity.milli(wanted["averageValue"])
        replicas, average = self._by_average(target, usage, stamps, goal, name)
        current["averageValue"] = str(quantity.from_milli(average))
        return Proposal(replicas, label, status, at)

    def _groups(
        self, target: Target, usage: dict[str, int], stamps: dict[str, tuple[datetime, float]] | None, name: str
    ) -> tuple[set[str], set[str], set[str]]:
        """Pods by name: ready with metrics, not ready, without metrics; others are ignored."""
        ready: set[str] = set()
        unready: set[str] = set()
        missing: set[str] = set()
        for pod in target.pods:
            pod_name = meta.name(pod)
            if meta.is_deleting(pod) or phase(pod) in ("Failed", "Succeeded"):
                continue
            if phase(pod) == "Pending":
                unready.add(pod_name)
            elif pod_name not in usage:
                missing.add(pod_name)
            elif name == "cpu" and stamps is not None and self._is_unready(pod, *stamps[pod_name]):
                unready.add(pod_name)
            else:
                ready.add(pod_name)
        return ready, unready, missing

    def _is_unready(self, pod: Obj, at: datetime, window_s: float) -> bool:
        """A starting pod's cpu says nothing of its load."""
        c = condition(pod, "Ready")
        started = time_of((pod.get("status") or {}).get("startTime"))
        if c is None or started is None:
            return True
        since = time_of(c.get("lastTransitionTime")) or started
        if started + timedelta(seconds=self._config.horizontal_pod_autoscaler_cpu_initialization_period_s) > self._now:
            return c["status"] != "True" or at < since + timedelta(seconds=window_s)
        delay = timedelta(seconds=self._config.horizontal_pod_autoscaler_initial_readiness_delay_s)
        return c["status"] != "True" and started + delay > since

    def _by_utilization(
        self,
        target: Target,
        usage: dict[str, int],
        stamps: dict[str, tuple[datetime, float]],
        requests: dict[str, int | None],
        goal: int,
        name: str,
    ) -> tuple[int, int, int]:
        ready, unready, missing = self._groups(target, usage, stamps, name)
        if not ready:
            raise MetricsFailed(
                "FailedGetResourceMetric", "did not receive metrics for targeted pods (pods might be unready)"
            )
        for pod in ready | unready | missing:
            if requests.get(pod) is None:
                raise MetricsFailed("FailedGetResourceMetric", f"missing request for {name} in pod {pod}")

        def percent(pods: dict[str, int]) -> float:
            asked = sum(requests[p] or 0 for p in pods)
            if not asked:
                raise MetricsFailed("FailedGetResourceMetric", "no metrics returned matched known pods")
            return 100 * sum(pods.values()) / asked

        seen = {p: usage[p] for p in ready}
        utilization = int(percent(seen))
        average = sum(seen.values()) // len(seen)
        ratio = utilization / goal
        if not unready and not missing:
            replicas = target.current if self._within(ratio) else math.ceil(ratio * len(ready))
            return replicas, utilization, average
        if missing and ratio < 1:
            seen.update({p: (requests[p] or 0) * max(100, goal) // 100 for p in missing})
        elif ratio > 1:
            seen.update(dict.fromkeys(missing | unready, 0))
        again = int(percent(seen)) / goal
        return self._careful(target, ratio, again, len(seen)), utilization, average

    def _by_average(
        self,
        target: Target,
        usage: dict[str, int],
        stamps: dict[str, tuple[datetime, float]] | None,
        goal: int,
        name: str,
    ) -> tuple[int, int]:
        ready, unready, missing = self._groups(target, usage, stamps, name)
        if not ready:
            raise MetricsFailed(
                "FailedGetResourceMetric", "did not receive metrics for targeted pods (pods might be unready)"
            )
        seen = {p: usage[p] for p in ready}
        average = sum(seen.values()) // len(seen)
        ratio = average / goal
        if not unready and not missing:
            return target.current if self._within(ratio) else math.ceil(ratio * len(ready)), average
        if missing and ratio < 1:
            seen.update(dict.fromkeys(missing, goal))
        elif ratio > 1:
            seen.update(dict.fromkeys(missing | unready, 0))
        again = sum(seen.values()) / len(seen) / goal
        return self._careful(target, ratio, again, len(seen)), average

    def _careful(self, target: Target, ratio: float, again: float, count: int) -> int:
        """Not at all, when what is assumed of the unknown pods turns the direction."""
        if self._within(again) or (ratio < 1 < again) or (ratio > 1 > again):
            return target.current
        replicas = math.ceil(again * count)
        if (again < 1 and replicas > target.current) or (again > 1 and replicas < target.current):
            return target.current
        return replicas

    # -- custom and external metrics

    def _selector(self, spec: Obj) -> str:
        return str(Selector.of(spec.get("selector"))) if spec.get("selector") is not None else ""

    async def _pods(self, spec: Obj, target: Target) -> Proposal:
        name = spec["metric"]["name"]
        query = {"labelSelector": target.selector, "metricLabelSelector": self._selector(spec["metric"])}
        path = f"{CUSTOM_METRICS}/namespaces/{target.namespace}/pods/*/{quote(name, safe='')}"
        answer = await self._get(path, {k: v for k, v in query.items() if v})
        usage = {i["describedObject"]["name"]: quantity.milli(i["value"]) for i in answer.get("items") or ()}
        if not usage:
            raise MetricsFailed(
                "FailedGetPodsMetric", f"unable to get metric {name}: no metrics returned from custom metrics API"
            )
        goal = quantity.milli(spec["target"]["averageValue"])
        replicas, average = self._by_average(target, usage, None, goal, name)
        current = {"averageValue": str(quantity.from_milli(average))}
        status = {"type": "Pods", "pods": {"metric": spec["metric"], "current": current}}
        return Proposal(replicas, f"pods metric {name}", status, self._now)

    async def _object(self, spec: Obj, target: Target) -> Proposal:
        name, of = spec["metric"]["name"], spec["describedObject"]
        plural = f"{of['kind'].lower()}s" if not of["kind"].endswith("ss") else f"{of['kind'].lower()}es"
        if group := of.get("apiVersion", "").rpartition("/")[0]:
            plural = f"{plural}.{group}"
        path = f"{CUSTOM_METRICS}/namespaces/{target.namespace}/{plural}/{of['name']}/{quote(name, safe='')}"
        selector = self._selector(spec["metric"])
        answer = await self._get(path, {"metricLabelSelector": selector} if selector else None)
        items = answer.get("items") or ()
        if not items:
            raise MetricsFailed(
                "FailedGetObjectMetric", f"unable to get metric {name}: no metrics returned from custom metrics API"
            )
        value = sum(quantity.milli(i["value"]) for i in items)
        replicas, current = self._by_value(spec["target"], value, target)
        status = {"type": "Object", "object": {"metric": spec["metric"], "describedObject": of, "current": current}}
        return Proposal(replicas, f"{of['kind']} metric {name}", status, self._now)

    async def _external(self, spec: Obj, target: Target) -> Proposal:
        name = spec["metric"]["name"]
        selector = self._selector(spec["metric"])
        path = f"{EXTERNAL_METRICS}/namespaces/{target.namespace}/{quote(name, safe='')}"
        answer = await self._get(path, {"labelSelector": selector} if selector else None)
        items = answer.get("items") or ()
        if not items:
            text = f"unable to get external metric {target.namespace}/{name}: "
            text += "no metrics returned from external metrics API"
            raise MetricsFailed("FailedGetExternalMetric", text)
        value = sum(quantity.milli(i["value"]) for i in items)
        replicas, current = self._by_value(spec["target"], value, target)
        status = {"type": "External", "external": {"metric": spec["metric"], "current": current}}
        return Proposal(replicas, f"external metric {name}", status, self._now)

    def _by_value(self, wanted: Obj, value: int, target: Target) -> tuple[int, Obj]:
        """A value for all: shared by the replicas (averageValue), or kept at one level (value)."""
        if wanted.get("averageValue") is not None:
            goal = quantity.milli(wanted["averageValue"])
            average = math.ceil(value / target.observed) if target.observed else value
            same = target.observed and self._within(average / goal)
            replicas = target.current if same else math.ceil(value / goal)
            return replicas, {"averageValue": str(quantity.from_milli(average))}
        ratio = value / quantity.milli(wanted["value"])
        current = {"value": str(quantity.from_milli(value))}
        if target.current == 0:
            return math.ceil(ratio), current
        if self._within(ratio):
            return target.current, current
        ready = sum((condition(p, "Ready") or {}).get("status") == "True" for p in target.pods)
        return math.ceil(ratio * ready), current


def _unavailable(metric: Obj, why: str) -> str:
    """Upstream's chain of what failed, down to the API."""
    match metric["type"]:
        case "Resource" | "ContainerResource":
            spec = metric.get("resource") or metric["containerResource"]
            name, utilization = spec["name"], spec["target"].get("averageUtilization") is not None
            what = f"failed to get {name} {'utilization' if utilization else 'usage'}: "
            what += f"unable to get metrics for resource {name}: unable to fetch metrics from resource metrics API: "
            return f"{what}{why} (get pods.metrics.k8s.io)" if why.endswith("requested resource") else what + why
        case "External":
            return f"unable to get external metric {metric['external']['metric']['name']}: {why}"
        case kind:
            source = metric[kind.lower()]
            name = source["metric"]["name"]
            return f"unable to get metric {name}: unable to fetch metrics from custom metrics API: {why}"


def _request(pod: Obj, name: str, container: str) -> int | None:
    """In thousandths; None when it is not said."""
    spec = pod["spec"]
    if not container:
        listed = [*(spec.get("containers") or ())]
        total = pod_total(spec, "requests").get(name)
        whole = name in ((spec.get("resources") or {}).get("requests") or {})
        if not whole and any(name not in ((c.get("resources") or {}).get("requests") or {}) for c in listed):
            return None
        return total.milli() if total is not None else None
    for c in spec.get("containers") or ():
        if c["name"] == container:
            amount = ((c.get("resources") or {}).get("requests") or {}).get(name)
            return quantity.milli(amount) if amount is not None else None
    return None


def _seconds(text: str) -> float:
    import re

    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(n) * units[u] for n, u in re.findall(r"([0-9.]+)(h|ms|m|s)", text)) or 60.0
