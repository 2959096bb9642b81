"""HorizontalPodAutoscalers (stored as autoscaling/v2).

Source: kubernetes pkg/apis/autoscaling/v2/defaults.go, pkg/printers printHorizontalPodAutoscaler.
"""

from __future__ import annotations

import copy

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj

UP_RULES: Obj = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
DOWN_RULES: Obj = {
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
_SOURCES = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def _rules(given: Obj | None, defaults: Obj) -> Obj:
    return {**copy.deepcopy(defaults), **{k: v for k, v in (given or {}).items() if v is not None}}


def _metric(spec: Obj, status: Obj | None) -> str:
    kind = spec.get("type") or ""
    key = _SOURCES.get(kind)
    if key is None:
        return "<unknown type>"
    source = spec.get(key) or {}
    target = source.get("target") or {}
    current = ((status or {}).get(key) or {}).get("current")
    known = current or {}
    if kind in ("Resource", "ContainerResource"):
        prefix = f"{source.get('name')}: "
        if target.get("averageValue") is not None:
            return f"{prefix}{known.get('averageValue', '<unknown>')}/{target['averageValue']}"
        now = known.get("averageUtilization")
        goal = target.get("averageUtilization")
        return f"{prefix}{'<unknown>' if now is None else f'{now}%'}/{'<auto>' if goal is None else f'{goal}%'}"
    if kind == "Pods":
        return f"{known.get('averageValue', '<unknown>')}/{target.get('averageValue')}"
    if target.get("averageValue") is not None:
        return f"{known.get('averageValue', '<unknown>')}/{target['averageValue']} (avg)"
    return f"{known.get('value', '<unknown>')}/{target.get('value')}"


def _targets(obj: Obj) -> str:
    specs = (obj.get("spec") or {}).get("metrics") or ()
    statuses = (obj.get("status") or {}).get("currentMetrics") or []
    if not specs:
        return "<none>"
    shown = [_metric(s, statuses[i] if i < len(statuses) else None) for i, s in enumerate(specs)]
    text = ", ".join(shown[:2])
    return f"{text} + {len(shown) - 2} more..." if len(shown) > 2 else text


def _reference(obj: Obj) -> str:
    target = (obj.get("spec") or {}).get("scaleTargetRef") or {}
    return f"{target.get('kind', '')}/{target.get('name', '')}"


def _min_pods(obj: Obj) -> str:
    least = (obj.get("spec") or {}).get("minReplicas")
    return "<unset>" if least is None else str(least)


@strategy_for("autoscaling", "horizontalpodautoscalers")
class HorizontalPodAutoscalerStrategy(Strategy):
    generation = False
    columns = [
        cells.NAME,
        Column("Reference", _reference),
        Column("Targets", _targets),
        Column("MinPods", _min_pods),
        Column("MaxPods", cells.at("spec.maxReplicas", 0)),
        Column("Replicas", cells.at("status.currentReplicas", 0)),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec is None:
            spec = obj["spec"] = {}
        if spec.get("minReplicas") is None:
            spec["minReplicas"] = 1
        if obj.get("apiVersion") == "autoscaling/v1":
            return
        if not spec.get("metrics"):
            spec["metrics"] = [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                }
            ]
        if (behavior := spec.get("behavior")) is not None:
            behavior["scaleUp"] = _rules(behavior.get("scaleUp"), UP_RULES)
            behavior["scaleDown"] = _rules(behavior.get("scaleDown"), DOWN_RULES)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {"desiredReplicas": 0, "currentMetrics": None}

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.autoscaling.validation import validate_autoscaler

        return validate_autoscaler(obj, zero=ctx.enabled("HPAScaleToZero"))

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.autoscaling.validation import validate_autoscaler

        return validate_autoscaler(obj, old, zero=ctx.enabled("HPAScaleToZero"))

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds import checks

        status = obj.get("status") or {}
        return [
            error
            for key in ("currentReplicas", "desiredReplicas")
            for error in checks.not_negative(f"status.{key}", status.get(key))
        ]
