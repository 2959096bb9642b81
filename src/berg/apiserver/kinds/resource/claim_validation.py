"""What resource claims, their templates and device classes may say, and what may be written into a claim's status.

Source: kubernetes pkg/apis/resource/validation.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson

from berg.apiserver.kinds import checks, immutable
from berg.apiserver.kinds.core.pod_spec.scheduling import validate_node_selector
from berg.apiserver.kinds.label_selectors import validate_annotations, validate_conditions, validate_labels
from berg.apiserver.kinds.resource import lists
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, not_supported, required, too_long

_REQUESTS, _CONSTRAINTS, _CONFIGS, _SELECTORS, _ALTERNATIVES = 32, 32, 32, 32, 8
_RESERVATIONS = 256
_LONGEST_EXPRESSION = 10 * 1024
_LONGEST_PARAMETERS = 10 * 1024
_ONE_OF = "exactly one of `exactly` or `firstAvailable` is required"
_UNKNOWN_REQUEST = (
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
)


def validate_claim(obj: Obj) -> list[FieldError]:
    return _devices((obj.get("spec") or {}).get("devices") or {}, "spec.devices")


def validate_template(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    meta = spec.get("metadata") or {}
    errors = validate_labels(meta.get("labels"), "spec.metadata.labels")
    errors += validate_annotations(meta.get("annotations"), "spec.metadata.annotations")
    return errors + _devices((spec.get("spec") or {}).get("devices") or {}, "spec.spec.devices")


def validate_device_class(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = _selectors(spec.get("selectors"), "spec.selectors")
    errors += lists.items("spec.config", spec.get("config"), _CONFIGS, _configuration)
    extended = spec.get("extendedResourceName")
    if extended is not None and not checks.is_extended(extended):
        errors.append(invalid_value("spec.extendedResourceName", extended, "must be a valid extended resource name"))
    return errors


def _request_names(devices: Obj) -> set[str]:
    found: set[str] = set()
    for request in devices.get("requests") or ():
        name = request.get("name") or ""
        found.add(name)
        found |= {f"{name}/{sub.get('name') or ''}" for sub in request.get("firstAvailable") or ()}
    return found


def _name_of(item: Obj) -> str:
    return item.get("name") or ""


def _same(item: Any) -> Any:
    return item


def _devices(devices: Obj, at: str) -> list[FieldError]:
    known = _request_names(devices)
    reference = partial(_request_reference, known=known)
    errors = lists.items(f"{at}.requests", devices.get("requests"), _REQUESTS, _request, _name_of)

    def constraint(body: Obj, path: str) -> list[FieldError]:
        found = lists.items(f"{path}.requests", body.get("requests"), _REQUESTS, reference, _same)
        for key in ("matchAttribute", "distinctAttribute"):
            if body.get(key) is not None:
                return found + lists.fully_qualified_name(f"{path}.{key}", body[key])
        why = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        return [*found, required(path, why)]

    def configuration(body: Obj, path: str) -> list[FieldError]:
        found = lists.items(f"{path}.requests", body.get("requests"), _REQUESTS, reference, _same)
        return found + _configuration(body, path)

    errors += lists.items(f"{at}.constraints", devices.get("constraints"), _CONSTRAINTS, constraint)
    return errors + lists.items(f"{at}.config", devices.get("config"), _CONFIGS, configuration)


def _request(request: Obj, at: str) -> list[FieldError]:
    errors = checks.named(f"{at}.name", request.get("name") or "", names.dns1123_label)
    alternatives, exactly = request.get("firstAvailable") or [], request.get("exactly")
    if not alternatives and exactly is None:
        return [*errors, required(at, _ONE_OF)]
    if alternatives and exactly is not None:
        return [*errors, invalid_value(at, None, f"{_ONE_OF}, but multiple fields are set")]
    if exactly is not None:
        return errors + _exact(exactly, f"{at}.exactly")
    return errors + lists.items(f"{at}.firstAvailable", alternatives, _ALTERNATIVES, _alternative, _name_of)


def _alternative(request: Obj, at: str) -> list[FieldError]:
    return checks.named(f"{at}.name", request.get("name") or "", names.dns1123_label) + _exact(request, at)


def _exact(request: Obj, at: str) -> list[FieldError]:
    errors = checks.required_name(f"{at}.deviceClassName", request.get("deviceClassName"))
    errors += _selectors(request.get("selectors"), f"{at}.selectors")
    mode, count = request.get("allocationMode") or "", request.get("count") or 0
    if mode == "All":
        if count:
            errors.append(invalid_value(f"{at}.count", count, "must not be specified when allocationMode is 'All'"))
    elif mode == "ExactCount":
        if count <= 0:
            errors.append(invalid_value(f"{at}.count", count, "must be greater than zero"))
    else:
        errors.append(not_supported(f"{at}.allocationMode", mode, ("All", "ExactCount")))
    for i, toleration in enumerate(request.get("tolerations") or ()):
        errors += lists.toleration(toleration, f"{at}.tolerations[{i}]")
    return errors


def _selectors(selectors: list[Obj] | None, path: str) -> list[FieldError]:
    return lists.items(path, selectors, _SELECTORS, _selector)


def _selector(selector: Obj, at: str) -> list[FieldError]:
    from berg.machinery.cel import CompileError
    from berg.machinery.cel.devices import compile_selector

    cel = selector.get("cel")
    if cel is None:
        return [required(f"{at}.cel")]
    text, path = cel.get("expression") or "", f"{at}.cel.expression"
    if len(text.encode()) > _LONGEST_EXPRESSION:
        return [too_long(path, "", _LONGEST_EXPRESSION)]
    try:
        compile_selector(text)
    except CompileError as e:
        return [invalid_value(path, text, str(e))]
    return []


def _configuration(body: Obj, at: str) -> list[FieldError]:
    opaque = body.get("opaque")
    if opaque is None:
        return [required(f"{at}.opaque")]
    path = f"{at}.opaque"
    errors = lists.driver_name(f"{path}.driver", opaque.get("driver") or "")
    parameters = opaque.get("parameters")
    if parameters is None:
        errors.append(required(f"{path}.parameters"))
    elif len(orjson.dumps(parameters)) > _LONGEST_PARAMETERS:
        errors.append(too_long(f"{path}.parameters", "", _LONGEST_PARAMETERS))
    elif not isinstance(parameters, dict):
        why = "parameters must be a valid JSON object"
        errors.append(invalid_value(f"{path}.parameters", "<value omitted>", why))
    return errors


def _request_reference(name: str, path: str, known: set[str]) -> list[FieldError]:
    parts = name.split("/")
    if len(parts) > 2:
        return [invalid_value(path, name, _UNKNOWN_REQUEST)]
    errors: list[FieldError] = []
    for part in parts:
        errors += checks.named(path, part, names.dns1123_label)
    return errors if name in known else [*errors, invalid_value(path, name, _UNKNOWN_REQUEST)]


# ---- status


def validate_claim_status(obj: Obj, old: Obj) -> list[FieldError]:
    status, before = obj.get("status") or {}, old.get("status") or {}
    reserved, allocation = status.get("reservedFor") or [], status.get("allocation")
    errors = lists.items("status.reservedFor", reserved, _RESERVATIONS, _consumer, lambda c: c.get("uid") or "")
    allocated = {_device_id(r) for r in ((allocation or {}).get("devices") or {}).get("results") or ()}

    def device(body: Obj, path: str) -> list[FieldError]:
        found = lists.driver_name(f"{path}.driver", body.get("driver") or "")
        found += lists.pool_name(f"{path}.pool", body.get("pool") or "")
        found += checks.named(f"{path}.device", body.get("device") or "", names.dns1123_label)
        if _device_id(body) not in allocated:
            found.append(invalid_value(path, "/".join(_device_id(body)), "must be an allocated device in the claim"))
        return found + validate_conditions(body.get("conditions"), f"{path}.conditions")

    devices = status.get("devices") or []
    errors += lists.items("status.devices", devices, len(devices), device, _device_id)
    if reserved and allocation is None:
        why = "may not be specified when `allocated` is not set"
        errors.append(forbidden_field("status.reservedFor", why))
    elif obj["metadata"].get("deletionTimestamp") and any(r not in (before.get("reservedFor") or ()) for r in reserved):
        why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        errors.append(forbidden_field("status.reservedFor", why))
    if allocation is None:
        return errors
    if before.get("allocation") is not None:
        return errors + immutable.immutable(obj, old, "status.allocation")
    return errors + _allocation(allocation, _request_names((obj.get("spec") or {}).get("devices") or {}))


def _device_id(body: Obj) -> tuple[str, ...]:
    parts = tuple(body.get(k) or "" for k in ("driver", "pool", "device"))
    return (*parts, body["shareID"]) if body.get("shareID") else parts


def _consumer(consumer: Obj, at: str) -> list[FieldError]:
    return checks.present(consumer, at, "resource", "name", "uid")


def _allocation(allocation: Obj, known: set[str]) -> list[FieldError]:
    devices = allocation.get("devices") or {}
    at = "status.allocation"

    def result(body: Obj, path: str) -> list[FieldError]:
        errors = _request_reference(body.get("request") or "", f"{path}.request", known)
        errors += lists.driver_name(f"{path}.driver", body.get("driver") or "")
        errors += lists.pool_name(f"{path}.pool", body.get("pool") or "")
        return errors + checks.named(f"{path}.device", body.get("device") or "", names.dns1123_label)

    def config(body: Obj, path: str) -> list[FieldError]:
        errors = checks.one_of(f"{path}.source", body.get("source"), ("FromClaim", "FromClass"))
        reference = partial(_request_reference, known=known)
        errors += lists.items(f"{path}.requests", body.get("requests"), _REQUESTS, reference, _same)
        return errors + _configuration(body, path)

    errors = lists.items(f"{at}.devices.results", devices.get("results"), _REQUESTS, result)
    errors += lists.items(f"{at}.devices.config", devices.get("config"), 2 * _CONFIGS, config)
    if allocation.get("nodeSelector") is not None:
        errors += validate_node_selector(allocation["nodeSelector"], f"{at}.nodeSelector")
    return errors
