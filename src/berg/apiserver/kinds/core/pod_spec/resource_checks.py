"""Requests and limits of containers and pods.

Source: kubernetes pkg/apis/core/validation validateResourceRequirements, pkg/apis/core/helper.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.pod_spec.resources import container_sum, is_pod_level, parsed
from berg.machinery import names, quantity
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)

_CONTAINER_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})
STANDARD = frozenset(
    {
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "storage",
        "requests.storage",
        "services.nodeports",
        "services.loadbalancers",
    }
)
NameCheck = Callable[[str, str], list[FieldError]]


def is_huge_page(name: str) -> bool:
    return name.startswith("hugepages-")


def is_standard(name: str) -> bool:
    """A resource that needs no domain in its name; quotas know more of them than containers."""
    return name in STANDARD or name.startswith(("hugepages-", "requests.hugepages-"))


def may_overcommit(name: str) -> bool:
    return checks.is_native(name) and not is_huge_page(name)


def resource_name(path: str, name: str) -> list[FieldError]:
    if errors := checks.named(path, name, names.qualified_name):
        return errors
    if "/" not in name and not is_standard(name):
        return [invalid_value(path, name, "must be a standard resource type or fully qualified")]
    return []


def container_resource_name(path: str, name: str) -> list[FieldError]:
    if name in _CONTAINER_RESOURCES:
        return []
    errors = resource_name(path, name)
    if "/" not in name:
        if name not in _CONTAINER_RESOURCES and not is_huge_page(name):
            errors.append(invalid_value(path, name, "must be a standard resource for containers"))
    elif not checks.is_native(name) and not checks.is_extended(name):
        errors.append(invalid_value(path, name, "doesn't follow extended resource name standard"))
    return errors


def pod_resource_name(path: str, name: str) -> list[FieldError]:
    if errors := resource_name(path, name):
        return errors
    return [] if is_pod_level(name) else [not_supported(path, name, ["cpu", "hugepages-", "memory"])]


def _huge_page_value(path: str, name: str, amount: quantity.Quantity) -> list[FieldError]:
    try:
        page = quantity.value(name.removeprefix("hugepages-"))
    except ValueError:
        page = 0
    if page <= 0 or amount.value() % page:
        return [invalid_value(path, str(amount), f"{amount} is not positive integer multiple of {name}")]
    return []


def validate_requirements(
    requirements: Obj | None,
    path: str,
    claims: Collection[str] = (),
    check_name: NameCheck = container_resource_name,
) -> list[FieldError]:
    if not requirements:
        return []
    errors: list[FieldError] = []
    limits, requests = requirements.get("limits") or {}, requirements.get("requests") or {}
    known = parsed(limits)
    for key, amounts in (("limits", limits), ("requests", requests)):
        for name, value in amounts.items():
            at = f"{path}.{key}[{name}]"
            errors += check_name(at, name) + checks.amount(at, name, value)
            if is_huge_page(name) and (found := parsed({name: value})):
                errors += _huge_page_value(at, name, found[name])
            if key == "requests":
                errors += _against_limit(path, name, value, known)
    both = limits.keys() | requests.keys()
    if any(is_huge_page(n) for n in both) and not both & {"cpu", "memory"}:
        errors.append(forbidden_field(path, "HugePages require cpu or memory"))
    return errors + _claims(requirements.get("claims") or (), f"{path}.claims", claims)


def _against_limit(path: str, name: str, value: object, limits: dict[str, quantity.Quantity]) -> list[FieldError]:
    limit = limits.get(name)
    request = parsed({name: value}).get(name)
    if request is None:
        return []
    if limit is None:
        if may_overcommit(name):
            return []
        return [required(f"{path}.limits", "Limit must be set for non overcommitable resources")]
    if not may_overcommit(name) and not request.same(limit):
        return [invalid_value(f"{path}.requests", str(request), f"must be equal to {name} limit of {limit}")]
    if limit < request:
        return [
            invalid_value(f"{path}.requests", str(request), f"must be less than or equal to {name} limit of {limit}")
        ]
    return []


def _claims(given: Collection[Obj], path: str, known: Collection[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, claim in enumerate(given):
        at, name, request = f"{path}[{i}]", claim.get("name") or "", claim.get("request") or ""
        if not name:
            errors.append(required(at))
            continue
        key = f"{name}/{request}" if request else name
        if request:
            errors += checks.named(f"{at}.request", request, names.dns1123_label)
        if name in seen or key in seen:
            errors.append(duplicate(at, name if name in seen else key))
        elif not request and any(k.startswith(f"{name}/") for k in seen):
            errors.append(duplicate(at, name))
        seen.add(key)
        if name not in known:
            detail = "must be one of the names in pod.spec.resourceClaims"
            detail += f": {', '.join(sorted(known))}" if known else " which is empty"
            errors.append(FieldError("FieldValueNotFound", at, name, detail))
    return errors


def validate_pod_level(spec: Obj, path: str, claims: Collection[str]) -> list[FieldError]:
    """`spec.resources`: the pod as a whole."""
    found = spec.get("resources")
    if not found:
        return []
    at = f"{path}.resources"
    if (spec.get("os") or {}).get("name") == "windows":
        return [forbidden_field(at, "may not be set for a windows pod")]
    errors: list[FieldError] = []
    if found.get("claims") is not None:
        errors.append(forbidden_field(f"{at}.claims", "claims may not be set for Resources at pod-level"))
    errors += validate_requirements(found, at, claims, pod_resource_name)
    requests, limits = parsed(found.get("requests")), parsed(found.get("limits"))
    for name, total in container_sum(spec, "requests").items():
        if name in requests and requests[name] < total:
            why = f"must be greater than or equal to aggregate container requests of {total}"
            errors.append(invalid_value(f"{at}.requests[{name}]", str(requests[name]), why))
    for name, total in container_sum(spec, "limits").items():
        if is_huge_page(name) and name in limits and limits[name] < total:
            why = f"must be greater than or equal to aggregate container limits of {total}"
            errors.append(invalid_value(f"{at}.limits[{name}]", str(limits[name]), why))
    for i, c in enumerate(spec.get("containers") or ()):
        for name, limit in parsed((c.get("resources") or {}).get("limits")).items():
            if name in limits and limits[name] < limit:
                why = f"must be less than or equal to pod limits of {limits[name]}"
                errors.append(invalid_value(f"{at}.containers[{i}][{name}].limits", str(limit), why))
    return errors
