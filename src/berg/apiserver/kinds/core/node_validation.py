"""What a node may look like.

Source: kubernetes pkg/apis/core/validation ValidateNode, ValidateNodeUpdate.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from berg.apiserver.kinds import addresses, checks
from berg.apiserver.kinds.core.pod_spec.scheduling import EFFECTS
from berg.apiserver.kinds.label_selectors import validate_label_name
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, forbidden_field, invalid_value, not_supported, required

_FEATURE = re.compile(r"([A-Z][a-zA-Z0-9]*)(/[a-zA-Z][a-zA-Z0-9]*)*")


def validate_node(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = validate_taints(spec.get("taints") or (), "metadata.taints")
    errors += _resources(obj.get("status") or {})
    errors += _features((obj.get("status") or {}).get("declaredFeatures") or [])
    return errors + _pod_cidrs(spec.get("podCIDRs") or [])


def validate_node_update(obj: Obj, old: Obj) -> list[FieldError]:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    status = obj.get("status") or {}
    errors = _resources(status) + _features(status.get("declaredFeatures") or [])
    seen: list[Obj] = []
    for i, address in enumerate(status.get("addresses") or ()):
        if address in seen:
            errors.append(duplicate(f"status.addresses[{i}]", address))
        seen.append(address)
    new, was = spec.get("podCIDRs") or [], before.get("podCIDRs") or []
    if was:
        changed = sum(n != w for n, w in zip(new, was, strict=True)) if len(new) == len(was) else 1
        why = 'node updates may not change podCIDR except from "" to valid'
        errors += [forbidden_field("spec.podCIDRs", why)] * changed
    if before.get("providerID") and before["providerID"] != spec.get("providerID"):
        why = 'node updates may not change providerID except from "" to valid'
        errors.append(forbidden_field("spec.providerID", why))
    errors += validate_taints(spec.get("taints") or (), "metadata.taints")
    if (spec.get("externalID") or "") != (before.get("externalID") or ""):
        errors.append(forbidden_field("spec.externalID", "may not be updated"))
    return errors


def node_warnings(obj: Obj) -> list[str]:
    spec = obj.get("spec") or {}
    found: list[str] = []
    if spec.get("configSource") is not None:
        found.append("spec.configSource: the feature is removed")
    if spec.get("externalID"):
        found.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
    for i, cidr in enumerate(spec.get("podCIDRs") or ()):
        found += addresses.cidr_warnings(f"spec.podCIDRs[{i}]", cidr)
    return found


def validate_taints(taints: Collection[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(taints):
        at = f"{path}[{i}]"
        key, value, effect = taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
        errors += validate_label_name(key, f"{at}.key")
        if bad := names.label_value(value):
            errors.append(invalid_value(f"{at}.value", value, ";".join(bad)))
        if not effect:
            errors.append(required(f"{at}.effect"))
        elif effect not in EFFECTS:
            errors.append(not_supported(f"{at}.effect", effect, EFFECTS))
        if (key, effect) in seen:
            why = "taints must be unique by key and effect pair"
            errors.append(FieldError(duplicate(at, taint).type, at, taint, why))
        seen.add((key, effect))
    return errors


def _resources(status: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("capacity", "allocatable"):
        for name, value in (status.get(key) or {}).items():
            errors += checks.amount(f"status.{key}.{name}", name, value)
    return errors


def _features(features: list[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    path = "status.declaredFeatures"
    for i, feature in enumerate(features):
        if len(feature) > 253:
            why = f'invalid feature name "{feature}": must be no more than 253 characters'
            errors.append(invalid_value(f"{path}[{i}]", feature, why))
        elif not _FEATURE.fullmatch(feature):
            why = (
                f'invalid feature name "{feature}": must start with an UpperCamelCase segment, with subsequent '
                "segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric "
                "characters and slashes"
            )
            errors.append(invalid_value(f"{path}[{i}]", feature, why))
        after = features[i + 1] if i + 1 < len(features) else None
        if after == feature:
            errors.append(duplicate(f"{path}[{i + 1}]", after))
        elif after is not None and feature > after:
            errors.append(invalid_value(f"{path}[{i + 1}]", after, "list must be sorted alphabetically"))
    return errors


def _pod_cidrs(cidrs: list[str]) -> list[FieldError]:
    path = "spec.podCIDRs"
    errors: list[FieldError] = []
    for i, text in enumerate(cidrs):
        errors += addresses.legacy_cidr(f"{path}[{i}]", text)
    if len(cidrs) > 1:
        found = [n for n in map(addresses.parse_cidr, cidrs) if n is not None]
        if len(found) < len(cidrs):
            bad, text = next((i, t) for i, t in enumerate(cidrs) if addresses.parse_cidr(t) is None)
            why = (
                "invalid PodCIDRs. failed to check with dual stack with error:invalid "
                f"CIDR[{bad}]: <nil> (invalid CIDR address: {text})"
            )
            errors.append(FieldError("InternalError", path, "", why))
        if len(cidrs) > 2 or not addresses.dual_stack([n.version for n in found]):
            errors.append(invalid_value(path, cidrs, "may specify no more than one CIDR for each IP family"))
    return errors
