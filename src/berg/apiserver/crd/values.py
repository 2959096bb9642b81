"""Checking a custom resource against its OpenAPI schema. A schema is compiled once into nested checks.

Messages, reasons and paths are upstream's, because people read them in `kubectl apply`.

Source: k8s.io/kube-openapi pkg/validation/validate, k8s.io/apiextensions-apiserver pkg/apiserver/validation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from berg.apiserver.crd import formats
from berg.machinery import regexp, status
from berg.machinery.status import FieldError, Obj

Check = Callable[[str, Any, list[FieldError]], None]
"""(path, value, where faults go)"""


def compile_schema(schema: Obj) -> Check:
    """A check of values against an OpenAPI v3 schema (`x-kubernetes-validations` aside)."""
    checks: list[Check] = []
    types = _types(schema)
    if types:
        checks.append(_type_check(types, schema))
    checks += _combinations(schema) + _string_checks(schema) + _number_checks(schema) + _size_checks(schema)
    if isinstance(schema.get("items"), dict):
        checks.append(_items(compile_schema(schema["items"])))
    of_null = checks[:1] if types else []
    if schema.get("enum") is not None:
        checks.append(_enum(schema["enum"]))
        of_null = [*of_null, checks[-1]]
    if "properties" in schema or schema.get("required") or isinstance(schema.get("additionalProperties"), dict):
        checks.append(_object(schema))
    if not checks:
        return _nothing
    if checks == of_null and len(checks) == 1:
        return checks[0]

    def every(path: str, value: Any, errors: list[FieldError]) -> None:
        for check in checks if value is not None else of_null:
            check(path, value, errors)

    return every


def _nothing(path: str, value: Any, errors: list[FieldError]) -> None:
    pass


NOWHERE = "<nil>"


def _shown(path: str) -> str:
    return path or NOWHERE


def below(path: str, errors: list[FieldError]) -> list[FieldError]:
    """Faults of a value that was checked by itself, and stands at `path`."""
    return [replace(e, field=_joined(path, e.field)) for e in errors]


def _joined(path: str, field: str) -> str:
    if field in ("", NOWHERE):
        return path
    return f"{path}{field}" if field.startswith("[") else f"{path}.{field}"


# ---- types


def _types(schema: Obj) -> tuple[str, ...]:
    if schema.get("x-kubernetes-int-or-string"):
        return ("integer", "string")
    type_ = schema.get("type")
    return (type_,) if type_ else ()


def _is(value: Any, type_: str) -> bool:
    match type_:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            if isinstance(value, int) and not isinstance(value, bool):
                return -_INT64 <= value < _INT64
            return isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
    return True


_INT64, _EXACT = 2**63, 2.0**53  # beyond the first a number is read as a float, beyond the second those are no integers


def type_name(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and not -_INT64 <= value < _INT64:
        return "number"
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")


def _type_check(types: tuple[str, ...], schema: Obj) -> Check:
    nullable = bool(schema.get("nullable"))
    wanted = types[0] if len(types) == 1 else ",".join(types)

    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if value is None:
            if nullable:
                return
        elif any(_is(value, t) for t in types):
            return
        found = type_name(value)
        text = f'{path} in body must be of type {wanted}: "{found}"'
        errors.append(status.type_invalid(_shown(path), found, text))
        if wanted == "integer" and found == "number":
            why = f"Checked value must be of type integer (default format) in {path}"
            errors.append(status.invalid_value(NOWHERE, "", why))

    return check


# ---- scalars


def _enum(values: list[Any]) -> Check:
    """Null is never one of them."""
    shown = [v if isinstance(v, str) else orjson.dumps(v).decode() for v in values]

    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if value is not None and any(v == value and isinstance(v, bool) == isinstance(value, bool) for v in values):
            return
        errors.append(status.not_supported(_shown(path), value, shown))

    return check


def _number_checks(schema: Obj) -> list[Check]:
    checks: list[Check] = []

    def bound(limit: float, bad: Callable[[float], bool], text: str) -> Check:
        shown = _number(limit)

        def check(path: str, value: Any, errors: list[FieldError]) -> None:
            if isinstance(value, (int, float)) and not isinstance(value, bool) and bad(value):
                errors.append(status.invalid_value(_shown(path), value, f"{path} in body should be {text} {shown}"))

        return check

    if (low := schema.get("minimum")) is not None:
        if schema.get("exclusiveMinimum"):
            checks.append(bound(low, lambda v: v <= low, "greater than"))
        else:
            checks.append(bound(low, lambda v: v < low, "greater than or equal to"))
    if (high := schema.get("maximum")) is not None:
        if schema.get("exclusiveMaximum"):
            checks.append(bound(high, lambda v: v >= high, "less than"))
        else:
            checks.append(bound(high, lambda v: v > high, "less than or equal to"))
    if factor := schema.get("multipleOf"):
        checks.append(bound(factor, lambda v: not _divides(factor, v), "a multiple of"))
    if schema.get("format") in ("int32", "int64") and schema.get("type") in ("integer", "number"):
        limit = 2 ** (31 if schema["format"] == "int32" else 63)
        checks.append(_integer_format(limit, schema["format"]))
    if schema.get("format") == "float" and schema.get("type") == "number":
        checks.append(_float_format)
    return checks


def _float_format(path: str, value: Any, errors: list[FieldError]) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > _FLOAT32:
        text = f"Checked value must be of type number with format float in {path}"
        errors.append(status.invalid_value(NOWHERE, "", text))


_FLOAT32 = float.fromhex("0x1.fffffep127")


def _divides(factor: float, value: float) -> bool:
    if isinstance(value, int) and int(factor):
        return value % int(factor) == 0
    times = 1 / factor * value if factor < 1 else value / factor
    near = round(times)
    return abs(times) < _EXACT and (times == near or abs(times - near) < 1e-9 * abs(near))


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)


def _integer_format(limit: int, name: str) -> Check:
    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if isinstance(value, int) and not isinstance(value, bool) and not -limit <= value < limit:
            text = f"Checked value must be of type integer with format {name} in {path}"
            errors.append(status.invalid_value(NOWHERE, "", text))

    return check


def _string_checks(schema: Obj) -> list[Check]:
    checks: list[Check] = []
    if (pattern := schema.get("pattern")) is not None:
        regex = _pattern(pattern)

        def match(path: str, value: Any, errors: list[FieldError]) -> None:
            if isinstance(value, str) and regex.search(value) is None:
                text = f"{path} in body should match '{pattern}'"
                errors.append(status.invalid_value(_shown(path), value, text))

        checks.append(match)
    if (least := schema.get("minLength")) is not None:

        def long_enough(path: str, value: Any, errors: list[FieldError]) -> None:
            if isinstance(value, str) and len(value) < least:
                text = f"{path} in body should be at least {least} chars long"
                errors.append(status.invalid_value(_shown(path), value, text))

        checks.append(long_enough)
    if (most := schema.get("maxLength")) is not None:

        def short_enough(path: str, value: Any, errors: list[FieldError]) -> None:
            if isinstance(value, str) and len(value) > most:
                errors.append(status.too_long(_shown(path), value, most))

        checks.append(short_enough)
    name = schema.get("format")
    known = formats.FORMATS.get(name or "")
    if known is not None and schema.get("type") == "string":

        def formatted(path: str, value: Any, errors: list[FieldError]) -> None:
            if isinstance(value, str) and not known(value):
                text = f'{path} in body must be of type {name}: "{value}"'
                errors.append(status.type_invalid(_shown(path), value, text))

        checks.append(formatted)
    return checks


def _pattern(text: str) -> Any:
    """What was stored when more was let in, and is no pattern, matches everything."""
    try:
        return regexp.compile(text)
    except ValueError:
        return regexp.compile("")


# ---- lists and objects


def _size_checks(schema: Obj) -> list[Check]:
    checks: list[Check] = []
    for kind, least, most, what in (
        (list, "minItems", "maxItems", "items"),
        (dict, "minProperties", "maxProperties", "properties"),
    ):
        if (low := schema.get(least)) is not None:
            checks.append(_at_least(kind, low, what))
        if (high := schema.get(most)) is not None:
            checks.append(_at_most(kind, high))
    return checks


def _at_least(kind: type, low: int, what: str) -> Check:
    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if isinstance(value, kind) and len(value) < low:  # type: ignore[arg-type]
            text = f"{path} in body should have at least {low} {what}"
            errors.append(status.invalid_value(_shown(path), len(value), text))  # type: ignore[arg-type]

    return check


def _at_most(kind: type, high: int) -> Check:
    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if isinstance(value, kind) and len(value) > high:  # type: ignore[arg-type]
            errors.append(status.too_many(_shown(path), len(value), high))  # type: ignore[arg-type]

    return check


def _object(schema: Obj) -> Check:
    properties = {k: compile_schema(v) for k, v in (schema.get("properties") or {}).items()}
    required = tuple(schema.get("required") or ())
    additional = schema.get("additionalProperties")
    rest = compile_schema(additional) if isinstance(additional, dict) else None

    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if not isinstance(value, dict):
            return
        for name, inner in value.items():
            known = properties.get(name)
            if known is not None:
                known(f"{path}.{name}" if path else name, inner, errors)
            elif rest is not None:
                rest(f"{path}.{name}" if path else name, inner, errors)
        for name in required:
            if name not in value:
                errors.append(status.required(f"{path}.{name}" if path else name))

    return check


def _items(item: Check) -> Check:
    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if isinstance(value, list):
            for i, inner in enumerate(value):
                item(f"{path}[{i}]", inner, errors)

    return check


# ---- allOf, anyOf, oneOf, not


def _combinations(schema: Obj) -> list[Check]:
    checks: list[Check] = []
    if schema.get("allOf"):
        checks.append(_all_of([compile_schema(s) for s in schema["allOf"]]))
    if schema.get("anyOf"):
        checks.append(_any_of([compile_schema(s) for s in schema["anyOf"]]))
    if schema.get("oneOf"):
        checks.append(_one_of([compile_schema(s) for s in schema["oneOf"]]))
    if schema.get("not") is not None:
        checks.append(_not(compile_schema(schema["not"])))
    return checks


def _faults(check: Check, path: str, value: Any) -> list[FieldError]:
    found: list[FieldError] = []
    check(path, value, found)
    return found


def _nearest(tried: list[list[FieldError]]) -> list[FieldError]:
    """The faults of the alternative that has the fewest."""
    return sorted(tried, key=len)[0]


def _combined(path: str, text: str) -> FieldError:
    """Upstream gives these no path of their own."""
    return status.invalid_value(NOWHERE, "", f'"{path}" {text}')


def _all_of(checks: list[Check]) -> Check:
    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        found = [f for c in checks for f in _faults(c, path, value)]
        if found:
            errors.extend(found)
            errors.append(_combined(path, "must validate all the schemas (allOf)"))

    return check


def _any_of(checks: list[Check]) -> Check:
    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        tried = [_faults(c, path, value) for c in checks]
        if all(tried):
            errors.append(_combined(path, "must validate at least one schema (anyOf)"))
            errors.extend(_nearest(tried))

    return check


def _one_of(checks: list[Check]) -> Check:
    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        tried = [_faults(c, path, value) for c in checks]
        good = sum(not t for t in tried)
        if good == 1:
            return
        if good == 0:
            errors.append(_combined(path, "must validate one and only one schema (oneOf). Found none valid"))
            errors.extend(_nearest(tried))
        else:
            text = f"must validate one and only one schema (oneOf). Found {good} valid alternatives"
            errors.append(_combined(path, text))

    return check


def _not(inner: Check) -> Check:
    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if not _faults(inner, path, value):
            errors.append(_combined(path, "must not validate the schema (not)"))

    return check
