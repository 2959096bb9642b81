"""HorizontalPodAutoscaler: v1 knows only CPU utilization; the rest of v2 travels in annotations.

Source: kubernetes pkg/apis/autoscaling/v1/conversion.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from berg.apiserver.registry.conversion import conversion
from berg.machinery.status import Obj

_PREFIX = "autoscaling.alpha.kubernetes.io/"

# What v1 calls the parts of a metric, each (name in v1, path in v2). `$` is the target or what is current.
_AVERAGES = (("AverageUtilization", "$.averageUtilization"), ("AverageValue", "$.averageValue"))
_SOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    "resource": (("name", "name"), *_AVERAGES),
    "containerResource": (("name", "name"), ("container", "container"), *_AVERAGES),
    "pods": (("metricName", "metric.name"), ("selector", "metric.selector"), ("AverageValue", "$.averageValue")),
    "object": (
        ("target", "describedObject"),
        ("metricName", "metric.name"),
        ("Value", "$.value"),
        ("selector", "metric.selector"),
        ("averageValue", "$.averageValue"),
    ),
    "external": (
        ("metricName", "metric.name"),
        ("metricSelector", "metric.selector"),
        ("Value", "$.value"),
        ("AverageValue", "$.averageValue"),
    ),
}
_TARGET_TYPES = (("averageUtilization", "Utilization"), ("value", "Value"), ("averageValue", "AverageValue"))


def _named(key: str, part: str) -> str:
    """`Value` is `targetValue` in a target, `currentValue` in a status; the others have one name."""
    return part + key if key[0].isupper() else key


def _metrics_to_v2(metrics: list[Obj], part: str) -> list[Obj]:
    found: list[Obj] = []
    for metric in metrics:
        new: Obj = {"type": metric.get("type") or ""}
        for source, parts in _SOURCES.items():
            body = metric.get(source)
            if body is None:
                continue
            new[source] = {part: {}}
            for key, path in parts:
                value = body.get(_named(key, part))
                if value is None or (path == "$.value" and value == "0" and len(parts) > 4):
                    continue
                *outer, last = path.replace("$", part).split(".")
                holder = new[source]
                for step in outer:
                    holder = holder.setdefault(step, {})
                holder[last] = value
            if part == "target":
                kinds = [kind for key, kind in _TARGET_TYPES if key in new[source][part]]
                new[source][part]["type"] = (
                    "AverageValue" if "averageValue" in new[source][part] else (kinds or [""])[0]
                )
        found.append(new)
    return found


def _metrics_to_v1(metrics: list[Obj], part: str) -> list[Obj]:
    found: list[Obj] = []
    for metric in metrics:
        new: Obj = {"type": metric.get("type") or ""}
        for source, parts in _SOURCES.items():
            body = metric.get(source)
            if body is None:
                continue
            new[source] = {}
            for key, path in parts:
                value: Any = body
                for step in path.replace("$", part).split("."):
                    value = (value or {}).get(step)
                if value is None and source == "object" and key == "Value":
                    value = "0"
                if value is not None:
                    new[source][_named(key, part)] = value
        found.append(new)
    return found


def _renamed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {change(k[:1]) + k[1:]: _renamed(v, change) for k, v in value.items()}
    return [_renamed(v, change) for v in value] if isinstance(value, list) else value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def _is_cpu(metric: Obj) -> bool:
    source = metric.get("resource") or {}
    target = source.get("target") or source.get("current") or {}
    return metric.get("type") == "Resource" and source.get("name") == "cpu" and "averageUtilization" in target


@conversion("horizontalpodautoscalers", "autoscaling/v1", "autoscaling/v2")
def to_v2(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    annotations = obj["metadata"].get("annotations") or {}
    metrics = _metrics_to_v2(_take(annotations, "metrics") or [], "target")
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics = [*metrics, {"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if metrics:
        spec["metrics"] = metrics
    behavior = _take(annotations, "behavior")
    if behavior is not None:
        spec["behavior"] = _without_nulls(_renamed(behavior, str.lower))
    state = obj.get("status")
    if state is not None:
        current = _metrics_to_v2(_take(annotations, "current-metrics") or [], "current")
        used = state.pop("currentCPUUtilizationPercentage", None)
        if used is not None and not current:  # the annotation says more
            shown = {"averageUtilization": used, "averageValue": "0"}
            current = [{"type": "Resource", "resource": {"name": "cpu", "current": shown}}]
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
    _put(annotations, "metrics", _metrics_to_v1([m for m in metrics if m is not cpu], "target"))
    _put(annotations, "behavior", _renamed(spec.pop("behavior", None), str.upper))
    state = obj.setdefault("status", {})
    state["currentReplicas"] = state.get("currentReplicas", 0)
    state["desiredReplicas"] = state.get("desiredReplicas", 0)
    current = state.pop("currentMetrics", None) or []
    used = next((m for m in current if _is_cpu(m)), None)
    if used is not None:
        state["currentCPUUtilizationPercentage"] = used["resource"]["current"]["averageUtilization"]
    _put(annotations, "current-metrics", _metrics_to_v1(current, "current"))
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
