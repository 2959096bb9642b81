"""What a disruption budget may say.

Source: kubernetes pkg/apis/policy/validation.
"""

from __future__ import annotations

from berg.apiserver.kinds import checks, int_or_percent
from berg.apiserver.kinds.label_selectors import validate_conditions, validate_selector
from berg.machinery.status import FieldError, Obj, invalid_value, not_supported

_EVICTION_POLICIES = ("AlwaysAllow", "IfHealthyBudget")


def validate_budget(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        errors.append(invalid_value("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for key in ("minAvailable", "maxUnavailable"):
        if spec.get(key) is not None:
            errors += int_or_percent.not_negative(f"spec.{key}", spec[key])
            errors += int_or_percent.at_most_all(f"spec.{key}", spec[key])
    errors += validate_selector(spec.get("selector"), "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _EVICTION_POLICIES:
        errors.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, _EVICTION_POLICIES))
    return errors


def validate_budget_status(obj: Obj) -> list[FieldError]:
    status = obj.get("status") or {}
    errors = validate_conditions(status.get("conditions"), "status.conditions")
    for key in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        errors += checks.not_negative(f"status.{key}", status.get(key))
    return errors
