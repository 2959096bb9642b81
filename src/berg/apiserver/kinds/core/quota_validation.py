"""What limit ranges and resource quotas may say.

Source: kubernetes pkg/apis/core/validation ValidateLimitRange, ValidateResourceQuota.
"""

from __future__ import annotations

from collections.abc import Collection

from berg.apiserver.kinds import checks, immutable
from berg.apiserver.kinds.core.pod_spec import resource_checks
from berg.machinery import names, quantity
from berg.machinery.status import FieldError, Obj, duplicate, forbidden_field, invalid_value, required

_LIMIT_TYPES = frozenset({"Pod", "Container", "PersistentVolumeClaim"})
_QUOTA = resource_checks.STANDARD - {"storage"}
_OF_PODS = frozenset({"pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"})
_SCOPES = {
    "Terminating": _OF_PODS,
    "NotTerminating": _OF_PODS,
    "NotBestEffort": _OF_PODS,
    "PriorityClass": _OF_PODS,
    "CrossNamespacePodAffinity": _OF_PODS,
    "BestEffort": frozenset({"pods"}),
    "VolumeAttributesClass": frozenset({"persistentvolumeclaims", "requests.storage"}),
}
_ONLY_EXISTS = frozenset({"BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"})
_CONFLICTS = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})

Amounts = dict[str, quantity.Quantity]


def validate_limit_range(obj: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, limit in enumerate((obj.get("spec") or {}).get("limits") or ()):
        at = f"spec.limits[{i}]"
        kind = limit.get("type") or ""
        if bad := checks.named(f"{at}.type", kind, names.qualified_name):
            errors += bad
        elif "/" not in kind and kind not in _LIMIT_TYPES:
            errors.append(invalid_value(f"{at}.type", kind, "must be a standard limit type or fully qualified"))
        if kind in seen:
            errors.append(duplicate(f"{at}.type", kind))
        seen.add(kind)
        errors += _limit(limit, kind, at)
    return errors


def _limit(limit: Obj, kind: str, at: str) -> list[FieldError]:
    errors: list[FieldError] = []
    check = resource_checks.container_resource_name if kind in ("Pod", "Container") else resource_checks.resource_name
    of: dict[str, Amounts] = {}
    for key in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio"):
        given = limit.get(key) or {}
        if kind == "Pod" and key in ("default", "defaultRequest"):
            if given:
                errors.append(forbidden_field(f"{at}.{key}", "may not be specified when `type` is 'Pod'"))
            continue
        if key == "maxLimitRequestRatio" and kind == "PersistentVolumeClaim":
            errors += _storage_limit(of, at)
        of[key] = {}
        for name, value in given.items():
            errors += check(f"{at}.{key}[{name}]", name)
            of[key][name] = quantity.of(value)
    for name in dict.fromkeys(n for amounts in of.values() for n in amounts):
        errors += _compare({key: amounts[name] for key, amounts in of.items() if name in amounts}, name, at)
    return errors


def _storage_limit(of: dict[str, Amounts], at: str) -> list[FieldError]:
    if "storage" in of["min"] or "storage" in of["max"]:
        return []
    why = "either minimum or maximum storage value is required, but neither was provided"
    return [required(f"{at}.limits", why)]


_ORDER = (
    # smaller, larger, words for both, the field that is told, the value that is told
    ("min", "max", "min value", "max value", "min", "min"),
    ("min", "defaultRequest", "min value", "default request value", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "max", "default request value", "max value", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default", "default request value", "default limit value", "defaultRequest", "defaultRequest"),
    ("min", "default", "min value", "default value", "default", "min"),
    ("default", "max", "default value", "max value", "default", "max"),
)


def _compare(of: Amounts, name: str, at: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for small, large, said, than, key, told in _ORDER:
        if small in of and large in of and of[large] < of[small]:
            why = f"{said} {of[small]} is greater than {than} {of[large]}"
            errors.append(invalid_value(f"{at}.{key}[{name}]", str(of[told]), why))
    ratio = of.get("maxLimitRequestRatio")
    if ratio is not None:
        path = f"{at}.maxLimitRequestRatio[{name}]"
        if ratio < quantity.of("1"):
            errors.append(invalid_value(path, str(ratio), f"ratio {ratio} is less than 1"))
        if "min" in of and "max" in of and of["min"].nano:
            limit = of["max"].nano / of["min"].nano
            if ratio.nano / 10**9 > limit:
                errors.append(invalid_value(path, str(ratio), f"ratio {ratio} is greater than max/min = {limit:f}"))
    wanted, default = of.get("defaultRequest"), of.get("default")
    if wanted is not None and default is not None and not default.same(wanted) and not _overcommits(name):
        why = f"default value {default} must equal to defaultRequest value {wanted} in {name}"
        errors.append(invalid_value(f"{at}.defaultRequest[{name}]", str(wanted), why))
    return errors


def _overcommits(name: str) -> bool:
    return resource_checks.may_overcommit(name)


def validate_resource_quota(obj: Obj) -> list[FieldError]:
    errors = _spec(obj.get("spec") or {})
    return errors + validate_resource_quota_status(obj)


def validate_resource_quota_update(obj: Obj, old: Obj) -> list[FieldError]:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    errors = _spec(spec)
    if set(spec.get("scopes") or ()) != set(before.get("scopes") or ()):
        errors.append(invalid_value("spec.scopes", spec.get("scopes"), immutable.MESSAGE))
    return errors


def validate_resource_quota_status(obj: Obj) -> list[FieldError]:
    status = obj.get("status") or {}
    return _amounts("status.hard", status.get("hard")) + _amounts("status.used", status.get("used"))


def _amounts(path: str, amounts: Obj | None) -> list[FieldError]:
    errors: list[FieldError] = []
    for name, value in (amounts or {}).items():
        at = f"{path}[{name}]"
        found = resource_checks.resource_name(at, name)
        if "/" not in name and not _is_quota(name):
            found.append(invalid_value(at, name, "must be a standard resource for quota"))
        errors += found + checks.amount(at, name, value)
    return errors


def _is_quota(name: str) -> bool:
    return name in _QUOTA or name.startswith(("hugepages-", "requests.hugepages-"))


def _spec(spec: Obj) -> list[FieldError]:
    hard = spec.get("hard") or {}
    errors = _amounts("spec.hard", hard)
    scopes = spec.get("scopes") or []
    for scope in scopes:
        if scope not in _SCOPES:
            errors.append(invalid_value("spec.scopes", scopes, "unsupported scope"))
        errors += _applicable(scope, hard, "spec.scopes", scopes)
    errors += _conflicts(scopes, "spec.scopes", scopes)
    selector = spec.get("scopeSelector")
    return errors + (_selector(selector, hard, scopes) if selector is not None else [])


def _applicable(scope: str, hard: Collection[str], path: str, value: object) -> list[FieldError]:
    fit = _SCOPES.get(scope)
    unfit = [] if fit is None else [n for n in hard if _is_quota(n) and n not in fit]
    return [invalid_value(path, value, "unsupported scope applied to resource") for _ in unfit]


def _conflicts(scopes: Collection[str], path: str, value: object) -> list[FieldError]:
    return [invalid_value(path, value, "conflicting scopes") for pair in _CONFLICTS if pair <= set(scopes)]


def _selector(selector: Obj, hard: Obj, scopes: list[str]) -> list[FieldError]:
    path = "spec.scopeSelector.matchExpressions"
    errors: list[FieldError] = []
    seen: set[str] = set()
    for e in selector.get("matchExpressions") or ():
        scope, operator, values = e.get("scopeName") or "", e.get("operator") or "", e.get("values") or []
        if scope not in _SCOPES:
            errors.append(invalid_value(f"{path}.scopeName", scope, "unsupported scope"))
        errors += _applicable(scope, hard, path, selector)
        if scope in _ONLY_EXISTS and operator != "Exists":
            why = (
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "
                "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or "
                "ResourceQuotaScopeCrossNamespacePodAffinity"
            )
            errors.append(invalid_value(f"{path}.operator", operator, why))
        if operator in ("In", "NotIn"):
            if not values:
                why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                errors.append(required(f"{path}.values", why))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                errors.append(invalid_value(f"{path}.values", values, why))
        else:
            errors.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
        seen.add(scope)
    return errors + _conflicts(seen, path, scopes)
