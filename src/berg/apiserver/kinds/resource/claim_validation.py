"""What resource claims, their templates and device classes may say.

Source: kubernetes pkg/apis/resource/validation.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.label_selectors import validate_template_metadata
from berg.apiserver.kinds.resource import lists
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, invalid_value, not_supported, required, too_long

REQUESTS, _CONSTRAINTS, CONFIGS, _SELECTORS, _ALTERNATIVES = 32, 32, 32, 32, 8
_LONGEST_EXPRESSION = 10 * 1024
_LONGEST_FREE = 10 * 1024
_ONE_OF = "exactly one of `exactly` or `firstAvailable` is required"
_UNKNOWN_REQUEST = (
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
)


def validate_claim(obj: Obj) -> list[FieldError]:
    return _devices((obj.get("spec") or {}).get("devices") or {}, "spec.devices")


def validate_template(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = validate_template_metadata(spec.get("metadata") or {}, "spec.metadata")
    return errors + _devices((spec.get("spec") or {}).get("devices") or {}, "spec.spec.devices")


def validate_device_class(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = _selectors(spec.get("selectors"), "spec.selectors")
    errors += lists.items("spec.config", spec.get("config"), CONFIGS, configuration)
    extended = spec.get("extendedResourceName")
    if extended is not None and not checks.is_extended(extended):
        errors.append(invalid_value("spec.extendedResourceName", extended, "must be a valid extended resource name"))
    return errors


def request_names(devices: Obj) -> set[str]:
    found: set[str] = set()
    for request in devices.get("requests") or ():
        name = request.get("name") or ""
        found.add(name)
        found |= {f"{name}/{sub.get('name') or ''}" for sub in request.get("firstAvailable") or ()}
    return found


def _name_of(item: Obj) -> str:
    return item.get("name") or ""


def same(item: Any) -> Any:
    return item


def _devices(devices: Obj, at: str) -> list[FieldError]:
    known = request_names(devices)
    reference = partial(request_reference, known=known)
    errors = lists.items(f"{at}.requests", devices.get("requests"), REQUESTS, _request, _name_of)

    def constraint(body: Obj, path: str) -> list[FieldError]:
        found = lists.items(f"{path}.requests", body.get("requests"), REQUESTS, reference, same)
        for key in ("matchAttribute", "distinctAttribute"):
            if body.get(key) is not None:
                return found + lists.fully_qualified_name(f"{path}.{key}", body[key])
        why = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        return [*found, required(path, why)]

    def claim_configuration(body: Obj, path: str) -> list[FieldError]:
        found = lists.items(f"{path}.requests", body.get("requests"), REQUESTS, reference, same)
        return found + configuration(body, path)

    errors += lists.items(f"{at}.constraints", devices.get("constraints"), _CONSTRAINTS, constraint)
    return errors + lists.items(f"{at}.config", devices.get("config"), CONFIGS, claim_configuration)


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


def configuration(body: Obj, at: str) -> list[FieldError]:
    opaque = body.get("opaque")
    if opaque is None:
        return [required(f"{at}.opaque")]
    path = f"{at}.opaque"
    errors = lists.driver_name(f"{path}.driver", opaque.get("driver") or "")
    return errors + free_object(opaque.get("parameters"), f"{path}.parameters")


def free_object(value: Any, path: str) -> list[FieldError]:
    if value is None:
        return [required(path)]
    if len(orjson.dumps(value)) > _LONGEST_FREE:
        return [too_long(path, "", _LONGEST_FREE)]
    return [] if isinstance(value, dict) else [invalid_value(path, "<value omitted>", "must be a valid JSON object")]


def request_reference(name: str, path: str, known: set[str]) -> list[FieldError]:
    parts = name.split("/")
    if len(parts) > 2:
        return [invalid_value(path, name, _UNKNOWN_REQUEST)]
    errors: list[FieldError] = []
    for part in parts:
        errors += checks.named(path, part, names.dns1123_label)
    return errors if name in known else [*errors, invalid_value(path, name, _UNKNOWN_REQUEST)]
