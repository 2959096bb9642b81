"""HorizontalPodAutoscaler: v1 knows only CPU utilization; the rest of v2 travels in annotations.

Source: kubernetes pkg/apis/autoscaling/v1/conversion.go.
"""

from __future__ import annotations

from typing import Any

import orjson

from berg.apiserver.registry.conversion import conversion
from berg.machinery.status import Obj

_PREFIX = "autoscaling.alpha.kubernetes.io/"


def _is_cpu(metric: Obj) -> bool:
    source = metric.get("resource") or {}
    target = source.get("target") or source.get("current") or {}
    return metric.get("type") == "Resource" and source.get("name") == "cpu" and "averageUtilization" in target


@conversion("horizontalpodautoscalers", "autoscaling/v1", "autoscaling/v2")
def to_v2(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    annotations = obj["metadata"].get("annotations") or {}
    metrics = _take(annotations, "metrics") or []
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}, *metrics]
    if metrics:
        spec["metrics"] = metrics
    behavior = _take(annotations, "behavior")
    if behavior is not None:
        spec["behavior"] = behavior
    state = obj.get("status")
    if state is not None:
        current = _take(annotations, "current-metrics") or []
        used = state.pop("currentCPUUtilizationPercentage", None)
        if used is not None:
            shown = {"averageUtilization": used, "averageValue": "0"}
            current = [{"type": "Resource", "resource": {"name": "cpu", "current": shown}}, *current]
        state["currentMetrics"] = current or None
        if not state.get("currentReplicas"):
            state.pop("currentReplicas", None)
        conditions = _take(annotations, "conditions")
        if conditions:
            state["conditions"] = conditions
    if not annotations:
        obj["metadata"].pop("annotations", None)


@conversion("horizontalpodautoscalers", "autoscaling/v2", "autoscaling/v1")
def to_v1(obj: Obj) -> None:
    spec = obj.get("spec") or {}
    annotations = dict(obj["metadata"].get("annotations") or {})
    metrics = spec.pop("metrics", None) or []
    cpu = next((m for m in metrics if _is_cpu(m)), None)
    if cpu is not None:
        spec["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"]
    _put(annotations, "metrics", [m for m in metrics if m is not cpu])
    _put(annotations, "behavior", spec.pop("behavior", None))
    state = obj.setdefault("status", {})
    state["currentReplicas"] = state.get("currentReplicas", 0)
    state["desiredReplicas"] = state.get("desiredReplicas", 0)
    current = state.pop("currentMetrics", None) or []
    used = next((m for m in current if _is_cpu(m)), None)
    if used is not None:
        state["currentCPUUtilizationPercentage"] = used["resource"]["current"]["averageUtilization"]
    _put(annotations, "current-metrics", [m for m in current if m is not used])
    _put(annotations, "conditions", state.pop("conditions", None))
    if annotations:
        obj["metadata"]["annotations"] = annotations


def _take(annotations: Obj, name: str) -> Any:
    text = annotations.pop(_PREFIX + name, None)
    if not text:
        return None
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _put(annotations: Obj, name: str, value: object) -> None:
    if value:
        annotations[_PREFIX + name] = orjson.dumps(value).decode()
