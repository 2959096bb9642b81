"""How much of a device's capacity one claim may ask for, when several share it.

Source: kubernetes pkg/apis/resource/validation validateRequestPolicy.
"""

from __future__ import annotations

from berg.apiserver.kinds.resource import lists
from berg.machinery import quantity
from berg.machinery.quantity import Quantity
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, required

_VALUES = 10


def request_policy(policy: Obj, most: Quantity, at: str) -> list[FieldError]:
    values, bounds = policy.get("validValues") or [], policy.get("validRange")
    if values and bounds is not None:
        why = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        return [forbidden_field(at, why)]
    if not values and bounds is None:
        return []
    key = "validValues" if values else "validRange"
    if policy.get("default") is None:
        return [required(f"{at}.default", f"required when {key} is defined")]
    default = quantity.of(policy["default"])
    if values:
        return _values(default, most, [quantity.of(v) for v in values], f"{at}.{key}")
    return _range(default, most, bounds or {}, f"{at}.{key}")


def _values(default: Quantity, most: Quantity, values: list[Quantity], at: str) -> list[FieldError]:
    errors = [
        invalid_value(f"{at}[{i}]", str(value), "values must be sorted in ascending order")
        for i, value in enumerate(values)
        if i and values[i - 1].nano > value.nano
    ]

    def value(one: Quantity, path: str) -> list[FieldError]:
        why = f"option is larger than capacity value: {most}"
        return [invalid_value(path, str(one), why)] if one.nano > most.nano else []

    errors += lists.items(at, values, _VALUES, value, lambda one: str(one.value()))
    if len(values) > _VALUES or default.nano not in [one.nano for one in values]:
        errors.append(invalid_value(at, str(default), "default value is not valid according to the requestPolicy"))
    return errors


def _range(default: Quantity, most: Quantity, bounds: Obj, at: str) -> list[FieldError]:
    if bounds.get("min") is None:
        return [required(f"{at}.min", "required when validRange is defined")]
    low = quantity.of(bounds["min"])
    high = None if bounds.get("max") is None else quantity.of(bounds["max"])
    errors: list[FieldError] = []

    def refuse(key: str, value: Quantity, why: str) -> None:
        errors.append(invalid_value(f"{at}.{key}", str(value), why))

    if low.nano > most.nano:
        refuse("min", low, f"min is larger than capacity value: {most}")
    if default.nano < low.nano:
        refuse("min", default, f"default is less than min: {low}")
    if high is not None:
        if low.nano > high.nano:
            refuse("max", low, f"min is larger than max: {high}")
        if high.nano > most.nano:
            refuse("max", high, f"max is larger than capacity value: {most}")
        if default.nano > high.nano:
            refuse("max", default, f"default is more than max: {high}")
    if bounds.get("step") is not None:
        step = quantity.of(bounds["step"])
        first = low + step
        if first.nano > most.nano:
            refuse("step", step, f"one step {first} is larger than capacity value: {most}")
        for value in (default, high):
            if value is not None and (not step.value() or (value.value() - low.value()) % step.value()):
                refuse("step", value, f"value is not a multiple of a given step ({step}) from ({low})")
    return errors
