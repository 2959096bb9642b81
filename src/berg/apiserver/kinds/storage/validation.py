"""What storage classes, CSI drivers and CSI nodes may say.

Source: kubernetes pkg/apis/storage/validation.
"""

from __future__ import annotations

from collections.abc import Mapping

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.volume_sources import csi_driver_name
from berg.apiserver.kinds.label_selectors import validate_label_name
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, invalid_value, not_supported, required, too_long

_RECLAIM = ("Delete", "Retain")
_BINDING = ("Immediate", "WaitForFirstConsumer")
_GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_LIFECYCLES = ("Persistent", "Ephemeral")
_MAX_PARAMETERS, _MAX_PARAMETERS_SIZE = 512, 256 * 1024
_LONGEST_NODE_ID = 256


def validate_storage_class(obj: Obj) -> list[FieldError]:
    provisioner = obj.get("provisioner") or ""
    errors: list[FieldError] = []
    if provisioner:
        errors += checks.named("provisioner", provisioner.lower(), names.qualified_name)
    else:
        errors.append(required("provisioner"))
    errors += validate_parameters("parameters", obj.get("parameters") or {}, may_be_empty=True)
    policy = obj.get("reclaimPolicy")
    if policy and policy not in _RECLAIM:
        errors.append(not_supported("reclaimPolicy", policy, _RECLAIM))
    mode = obj.get("volumeBindingMode")
    if mode is None:
        errors.append(required("volumeBindingMode"))
    elif mode not in _BINDING:
        errors.append(not_supported("volumeBindingMode", mode, _BINDING))
    return errors + _topologies(obj.get("allowedTopologies") or [])


def validate_parameters(path: str, parameters: Mapping[str, str], *, may_be_empty: bool) -> list[FieldError]:
    if len(parameters) > _MAX_PARAMETERS:
        return [too_long(path, "", _MAX_PARAMETERS)]
    errors = [invalid_value(path, key, "field can not be empty.") for key in parameters if not key]
    if sum(len(k.encode()) + len((v or "").encode()) for k, v in parameters.items()) > _MAX_PARAMETERS_SIZE:
        errors.append(too_long(path, "", _MAX_PARAMETERS_SIZE))
    if not may_be_empty and not parameters:
        errors.append(required(path, "must contain at least one key/value pair"))
    return errors


def validate_csi_driver(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    for key, path in (
        ("attachRequired", "spec.attachedRequired"),
        ("podInfoOnMount", "spec.podInfoOnMount"),
        ("storageCapacity", "spec.storageCapacity"),
    ):
        if spec.get(key) is None:
            errors.append(required(path))
    policy = spec.get("fsGroupPolicy")
    if policy is not None and policy not in _GROUP_POLICIES:
        errors.append(not_supported("spec.fsGroupPolicy", policy, _GROUP_POLICIES))
    errors += _token_requests(spec.get("tokenRequests") or ())
    errors += [
        not_supported("spec.volumeLifecycleModes", mode, _LIFECYCLES)
        for mode in spec.get("volumeLifecycleModes") or ()
        if mode not in _LIFECYCLES
    ]
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < 10:
        why = "must be greater than or equal to 10 seconds"
        errors.append(invalid_value("spec.nodeAllocatableUpdatePeriodSeconds", period, why))
    return errors


def _token_requests(requests: list[Obj] | tuple[Obj, ...]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, request in enumerate(requests):
        at = f"spec.tokenRequests[{i}]"
        audience, seconds = request.get("audience") or "", request.get("expirationSeconds")
        if audience in seen:
            errors.append(duplicate(f"{at}.audience", audience))
            continue
        seen.add(audience)
        if seconds is not None and seconds < 600:
            why = "may not specify a duration less than 10 minutes"
            errors.append(invalid_value(f"{at}.expirationSeconds", seconds, why))
        if seconds is not None and seconds > 1 << 32:
            why = "may not specify a duration larger than 2^32 seconds"
            errors.append(invalid_value(f"{at}.expirationSeconds", seconds, why))
    return errors


def validate_csi_node(obj: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, driver in enumerate((obj.get("spec") or {}).get("drivers") or ()):
        at = f"spec.drivers[{i}]"
        name, node = driver.get("name") or "", driver.get("nodeID") or ""
        errors += csi_driver_name(f"{at}.name", name)
        if not node:
            errors.append(required(f"{at}.nodeID"))
        if len(node) > _LONGEST_NODE_ID:
            errors.append(invalid_value(f"{at}.nodeID", node, f"must be {_LONGEST_NODE_ID} characters or less"))
        count = (driver.get("allocatable") or {}).get("count")
        errors += checks.not_negative(f"{at}.allocatable.count", count)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        keys: set[str] = set()
        for key in driver.get("topologyKeys") or ():
            if not key:
                errors.append(required(at))
            if key in keys:
                errors.append(duplicate(at, key))
            keys.add(key)
            errors += checks.named(at, key, names.qualified_name)
    return errors


def _topologies(terms: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    before: list[dict[str, set[str]]] = [{} for _ in terms]
    for i, term in enumerate(terms):
        found: dict[str, set[str]] = {}
        path = f"allowedTopologies[{i}].matchLabelExpressions"
        for j, e in enumerate(term.get("matchLabelExpressions") or ()):
            at = f"{path}[{j}]"
            key, values = e.get("key") or "", e.get("values") or []
            if not values:
                errors.append(required(f"{at}.values"))
            errors += [duplicate(f"{at}.values[{k}]", v) for k, v in enumerate(values) if v in values[:k]]
            errors += validate_label_name(key, f"{at}.key")
            if key in found:
                errors.append(duplicate(f"{at}.key", key))
            found[key] = set(values)
        errors += [duplicate(path, "") for known in before if known == found]
        before.append(found)
    return errors
