"""What drivers may publish in resource slices, and what rules may taint.

Source: kubernetes pkg/apis/resource/validation.
"""

from __future__ import annotations

import re
from functools import partial

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.pod_spec.scheduling import validate_node_selector
from berg.apiserver.kinds.immutable import MESSAGE, immutable
from berg.apiserver.kinds.resource import lists
from berg.apiserver.kinds.resource.request_policy import request_policy
from berg.machinery import names, quantity
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, required, too_long, too_many

_DEVICES, _ADVANCED_DEVICES, _TAINTS = 128, 64, 16
_COUNTER_SETS, _COUNTERS, _CONSUMPTIONS = 8, 32, 2
_ATTRIBUTES, _ATTRIBUTE_VALUES, _LONGEST_VALUE = 32, 48, 64
_LISTS = ("bools", "ints", "strings", "versions")
_SCALARS = ("bool", "int", "string", "version")
_PRE = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_semver = re.compile(
    rf"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-{_PRE}(\.{_PRE})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
)


def validate_slice(obj: Obj, old: Obj | None = None) -> list[FieldError]:
    spec = obj.get("spec") or {}
    pool = spec.get("pool") or {}
    errors = lists.driver_name("spec.driver", spec.get("driver") or "")
    errors += lists.pool_name("spec.pool.name", pool.get("name") or "")
    count = pool.get("resourceSliceCount") or 0
    if count <= 0:
        errors.append(invalid_value("spec.pool.resourceSliceCount", count, "must be greater than zero"))
    if (pool.get("generation") or 0) < 0:
        why = "must be greater than or equal to zero"
        errors.append(invalid_value("spec.pool.generation", pool["generation"], why))
    if old is not None:
        errors += immutable(obj, old, "spec.pool.name", "spec.driver")
        if (node := spec.get("nodeName")) != (old.get("spec") or {}).get("nodeName"):
            errors.append(invalid_value("spec.nodeName", node, MESSAGE))  # an empty one is not none
    keys = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
    errors += _where(spec, "spec", keys, "`nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required")
    if spec.get("sharedCounters") is not None and spec.get("devices") is not None:
        errors.append(invalid_value("spec", "", "only one of `sharedCounters` or `devices` is allowed"))
    devices = spec.get("devices") or []
    limit = _ADVANCED_DEVICES if any(map(_is_advanced, devices)) else _DEVICES
    check = partial(_device, apart=bool(spec.get("perDeviceNodeSelection")))
    errors += lists.items("spec.devices", devices, limit, check, lambda d: d.get("name") or "")
    counters = spec.get("sharedCounters")
    return errors + lists.items(
        "spec.sharedCounters", counters, _COUNTER_SETS, partial(_counters, key="name"), lambda c: c.get("name") or ""
    )


def _is_advanced(device: Obj) -> bool:
    if device.get("taints") or device.get("consumesCounters"):
        return True
    return any(a.get(k) is not None for a in (device.get("attributes") or {}).values() for k in _LISTS)


def _where(holder: Obj, at: str, keys: tuple[str, ...], what: str) -> list[FieldError]:
    """Exactly one of the ways to say which nodes can reach it."""
    errors: list[FieldError] = []
    said: list[str] = []
    for key in keys:
        value = holder.get(key)
        path = f"{at}.{key}"
        if value is None:
            continue
        if key == "nodeSelector":
            errors += validate_node_selector(value, path)
            if at == "spec" and len(value.get("nodeSelectorTerms") or ()) != 1:
                why = "must have exactly one node selector term"
                errors.append(invalid_value(f"{path}.nodeSelectorTerms", value.get("nodeSelectorTerms") or [], why))
        elif not value:
            unnamed = "must be either unset or set to a non-empty string" if at == "spec" else "must not be empty"
            why = unnamed if key == "nodeName" else _TRUE
            errors.append(invalid_value(path, value, why))
            continue
        elif key == "nodeName":
            errors += checks.named(path, value)
        said.append(f"`{key}`")
    if not said:
        errors.append(required(at, f"exactly one of {what}"))
    elif len(said) > 1:
        more = ", but multiple fields are set" if at == "spec" else ""
        errors.append(invalid_value(at, f"{{{', '.join(said)}}}", f"exactly one of {what}{more}"))
    return errors


_TRUE = "must be either unset or set to true"
_APART = (
    "`nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the "
    "ResourceSlice spec"
)


def _device(device: Obj, at: str, *, apart: bool) -> list[FieldError]:
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    errors = checks.named(f"{at}.name", device.get("name") or "", names.dns1123_label)
    if (count := len(attributes) + len(capacity)) > _ATTRIBUTES:
        why = f"the total number of attributes and capacities must not exceed {_ATTRIBUTES}"
        errors.append(invalid_value(at, count, why))
    values = sum(max(1, sum(len(a.get(k) or ()) for k in _LISTS)) for a in attributes.values())
    if values > _ATTRIBUTE_VALUES:
        why = f"the total number of attribute values must not exceed {_ATTRIBUTE_VALUES}"
        errors.append(invalid_value(at, values, why))
    for name, attribute in attributes.items():
        errors += lists.qualified_name(f"{at}.attributes", name)
        errors += _attribute(attribute, f"{at}.attributes[{name}]")
    for name, amount in capacity.items():
        errors += lists.qualified_name(f"{at}.capacity", name)
        if (policy := amount.get("requestPolicy")) is None:
            continue
        path = f"{at}.capacity[{name}].requestPolicy"
        if device.get("allowMultipleAllocations"):
            errors += request_policy(policy, quantity.of(amount.get("value") or "0"), path)
        else:
            errors.append(forbidden_field(path, "allowMultipleAllocations must be true"))
    errors += lists.items(f"{at}.taints", device.get("taints"), _TAINTS, lists.taint)
    errors += lists.items(
        f"{at}.consumesCounters",
        device.get("consumesCounters"),
        _CONSUMPTIONS,
        partial(_counters, key="counterSet"),
        lambda c: c.get("counterSet") or "",
    )
    keys = ("nodeName", "nodeSelector", "allNodes")
    if apart:
        errors += _where(device, at, keys, _APART)
    elif any(device.get(k) is not None for k in keys):
        why = (
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in "
            "the ResourceSlice spec"
        )
        errors.append(invalid_value(at, None, why))
    return errors + lists.binding_conditions(device, at)


def _counters(body: Obj, at: str, *, key: str) -> list[FieldError]:
    errors = checks.required_name(f"{at}.{key}", body.get(key), names.dns1123_label)
    counters = body.get("counters") or {}
    if not counters:
        return [*errors, required(f"{at}.counters")]
    if len(counters) > _COUNTERS:
        return [*errors, too_many(f"{at}.counters", len(counters), _COUNTERS)]
    for name in counters:
        errors += checks.named(f"{at}.counters", name, names.dns1123_label)
    return errors


def _attribute(attribute: Obj, at: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("string", "version"):
        if attribute.get(key) is not None:
            errors += _text(key, attribute[key], f"{at}.{key}")
    for key in _LISTS:
        given = attribute.get(key)
        if given is None:
            continue
        if not given:
            errors.append(invalid_value(f"{at}.{key}", given, "must not be empty if specified"))
        if key in ("strings", "versions"):
            for i, value in enumerate(given):
                errors += _text(key[:-1], value, f"{at}.{key}[{i}]")
    said = sum(attribute.get(k) is not None for k in (*_SCALARS, *_LISTS))
    if said != 1:
        errors.append(invalid_value(at, attribute if said else "", "exactly one value must be specified"))
    return errors


def _text(kind: str, value: str, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if kind == "version" and not _semver.fullmatch(value):
        errors.append(invalid_value(path, value, "must be a string compatible with semver.org spec 2.0.0"))
    if len(value.encode()) > _LONGEST_VALUE:
        errors.append(too_long(path, "", _LONGEST_VALUE))
    return errors


def validate_taint_rule(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    selector = spec.get("deviceSelector") or {}
    at = "spec.deviceSelector"
    errors: list[FieldError] = []
    if selector.get("driver") is not None:
        errors += lists.driver_name(f"{at}.driver", selector["driver"])
    if selector.get("pool") is not None:
        errors += lists.pool_name(f"{at}.pool", selector["pool"])
    if selector.get("device") is not None:
        errors += checks.named(f"{at}.device", selector["device"], names.dns1123_label)
    return errors + lists.taint(spec.get("taint") or {}, "spec.taint")
