"""What an autoscaler may say.

Source: kubernetes pkg/apis/autoscaling/validation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.pod_spec.resource_checks import container_resource_name
from berg.machinery import names, quantity
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, not_supported, required

_SOURCES = {
    "Object": "object",
    "External": "external",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}
_SOURCE_TYPES = sorted(_SOURCES)
_TARGET_TYPES = ("Utilization", "Value", "AverageValue")
_POLICY_TYPES = ("Percent", "Pods")
_SELECT_POLICIES = ("Disabled", "Max", "Min")
_MAX_PERIOD_S = 1800
_MAX_STABILIZATION_S = 3600


def validate_autoscaler(obj: Obj, old: Obj | None = None, *, zero: bool = False) -> list[FieldError]:
    """`zero`: there may be no replicas at all, when a metric of something else says that they are needed."""
    spec, before = obj.get("spec") or {}, (old or {}).get("spec") or {}
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    errors: list[FieldError] = []
    lowest = 0 if zero or before.get("minReplicas") == 0 else 1
    if least is not None and least < lowest:
        errors.append(invalid_value("spec.minReplicas", least, f"must be greater than or equal to {lowest}"))
    if most == 0:
        errors.append(required("spec.maxReplicas", "must be set and greater than 0"))
    elif most < 0:
        errors.append(invalid_value("spec.maxReplicas", most, "must be greater than or equal to 1"))
    if least is not None and most < least:
        errors.append(invalid_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    target, known = spec.get("scaleTargetRef") or {}, before.get("scaleTargetRef") or {}
    same = old is not None and all((target.get(k) or "") == (known.get(k) or "") for k in ("apiVersion", "kind"))
    grouped = not same and target.get("kind") != "ReplicationController"
    errors += _reference(target, "spec.scaleTargetRef", grouped=grouped)
    for i, metric in enumerate(spec.get("metrics") or ()):
        errors += _metric(metric, f"spec.metrics[{i}]")
    if least == 0 and not any(m.get("type") in ("Object", "External") for m in spec.get("metrics") or ()):
        why = "must specify at least one Object or External metric to support scaling to zero replicas"
        errors.append(forbidden_field("spec.metrics", why))
    behavior = spec.get("behavior") or {}
    for key in ("scaleUp", "scaleDown"):
        if behavior.get(key) is not None:
            errors += _rules(behavior[key], f"spec.behavior.{key}")
    return errors


def _reference(ref: Obj, at: str, *, grouped: bool = False) -> list[FieldError]:
    """`grouped`: the core group is none that can be scaled."""
    errors: list[FieldError] = []
    for key in ("kind", "name"):
        errors += checks.required_name(f"{at}.{key}", ref.get(key), names.path_segment)
    version = ref.get("apiVersion") or ""
    if version.count("/") > 1:
        errors.append(invalid_value(f"{at}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    elif grouped and "/" not in version:
        errors.append(invalid_value(f"{at}.apiVersion", version, "apiVersion must specify API group"))
    return errors


def _rules(rules: Obj, at: str) -> list[FieldError]:
    errors: list[FieldError] = []
    window, select = rules.get("stabilizationWindowSeconds"), rules.get("selectPolicy")
    path = f"{at}.stabilizationWindowSeconds"
    if window is not None and window < 0:
        errors.append(invalid_value(path, window, "must be greater than or equal to zero"))
    if window is not None and window > _MAX_STABILIZATION_S:
        errors.append(invalid_value(path, window, f"must be less than or equal to {_MAX_STABILIZATION_S}"))
    if select is not None and select not in _SELECT_POLICIES:
        errors.append(not_supported(f"{at}.selectPolicy", select, _SELECT_POLICIES))
    policies = rules.get("policies") or []
    if not policies:
        errors.append(required(f"{at}.policies", "must specify at least one Policy"))
    for i, policy in enumerate(policies):
        errors += _policy(policy, f"{at}.policies[{i}]")
    tolerance = rules.get("tolerance")
    if tolerance is not None and quantity.of(tolerance).nano < 0:
        errors.append(invalid_value(f"{at}.tolerance", tolerance, checks.NOT_NEGATIVE))
    return errors


def _policy(policy: Obj, at: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if policy.get("type") not in _POLICY_TYPES:
        errors.append(not_supported(f"{at}.type", policy.get("type") or "", _POLICY_TYPES))
    for key in ("value", "periodSeconds"):
        if (policy.get(key) or 0) <= 0:
            errors.append(invalid_value(f"{at}.{key}", policy.get(key) or 0, "must be greater than zero"))
    period = policy.get("periodSeconds") or 0
    if period > _MAX_PERIOD_S:
        why = f"must be less than or equal to {_MAX_PERIOD_S}"
        errors.append(invalid_value(f"{at}.periodSeconds", period, why))
    return errors


def _metric(metric: Obj, at: str) -> list[FieldError]:
    kind = metric.get("type") or ""
    errors: list[FieldError] = []
    if not kind:
        errors.append(required(f"{at}.type", "must specify a metric source type"))
    if kind not in _SOURCES:
        errors.append(not_supported(f"{at}.type", kind, _SOURCE_TYPES))
    given = [key for key in _SOURCES.values() if metric.get(key) is not None]
    if given:
        errors += _CHECKS[given[0]](metric[given[0]], f"{at}.{given[0]}")
    expected = _SOURCES.get(kind)
    if expected is None:
        errors.append(not_supported(f"{at}.type", kind, _SOURCE_TYPES))
    elif expected not in given:
        errors.append(required(f"{at}.{expected}", "must populate information for the given metric source"))
    if len(given) != 1:
        why = "must populate the given metric source only"
        errors += [forbidden_field(f"{at}.{key}", why) for key in given if key != expected]
    return errors


def _object(source: Obj, at: str) -> list[FieldError]:
    target = source.get("target") or {}
    errors = _reference(source.get("describedObject") or {}, f"{at}.describedObject")
    errors += _identified(source, at) + _target(target, f"{at}.target")
    if target.get("value") is None and target.get("averageValue") is None:
        errors.append(required(f"{at}.target.averageValue", "must set either a target value or averageValue"))
    return errors


def _external(source: Obj, at: str) -> list[FieldError]:
    target = source.get("target") or {}
    errors = _identified(source, at) + _target(target, f"{at}.target")
    both = [target.get(key) is not None for key in ("value", "averageValue")]
    if not any(both):
        why = "must set either a target value for metric or a per-pod target"
        errors.append(required(f"{at}.target.averageValue", why))
    if all(both):
        why = "may not set both a target value for metric and a per-pod target"
        errors.append(forbidden_field(f"{at}.target.value", why))
    return errors


def _pods(source: Obj, at: str) -> list[FieldError]:
    target = source.get("target") or {}
    errors = _identified(source, at) + _target(target, f"{at}.target")
    if target.get("averageValue") is None:
        errors.append(required(f"{at}.target.averageValue", "must specify a positive target averageValue"))
    return errors


def _resource(source: Obj, at: str) -> list[FieldError]:
    name = source.get("name")
    errors = [] if name else [required(f"{at}.name", "must specify a resource name")]
    return errors + _utilization(source, at)


def _container_resource(source: Obj, at: str) -> list[FieldError]:
    name, container = source.get("name"), source.get("container")
    errors: list[FieldError] = []
    if name:
        errors += container_resource_name(f"{at}.name", name)
    else:
        errors.append(required(f"{at}.name", "must specify a resource name"))
    if container:
        errors += checks.named(f"{at}.container", container, names.dns1123_label)
    else:
        errors.append(required(f"{at}.container", "must specify a container"))
    return errors + _utilization(source, at)


def _utilization(source: Obj, at: str) -> list[FieldError]:
    target = source.get("target") or {}
    errors = _target(target, f"{at}.target")
    both = [target.get(key) is not None for key in ("averageUtilization", "averageValue")]
    if not any(both):
        why = "must set either a target raw value or a target utilization"
        errors.append(required(f"{at}.target.averageUtilization", why))
    if all(both):
        why = "may not set both a target raw value and a target utilization"
        errors.append(forbidden_field(f"{at}.target.averageValue", why))
    return errors


_CHECKS: dict[str, Callable[[Obj, str], list[FieldError]]] = {
    "object": _object,
    "external": _external,
    "pods": _pods,
    "resource": _resource,
    "containerResource": _container_resource,
}


def _identified(source: Obj, at: str) -> list[FieldError]:
    name = (source.get("metric") or {}).get("name")
    if not name:
        return [required(f"{at}.metric.name", "must specify a metric name")]
    return checks.named(f"{at}.metric.name", name, names.path_segment)


def _target(target: Obj, at: str) -> list[FieldError]:
    kind = target.get("type") or ""
    errors: list[FieldError] = []
    if not kind:
        errors.append(required(f"{at}.type", "must specify a metric target type"))
    if kind not in _TARGET_TYPES:
        errors.append(invalid_value(f"{at}.type", kind, "must be either Utilization, Value, or AverageValue"))
    for key in ("value", "averageValue"):
        amount: Any = target.get(key)
        if amount is not None and quantity.of(amount).nano <= 0:
            errors.append(invalid_value(f"{at}.{key}", amount, "must be positive"))
    used = target.get("averageUtilization")
    if used is not None and used < 1:
        errors.append(invalid_value(f"{at}.averageUtilization", used, "must be greater than 0"))
    return errors
