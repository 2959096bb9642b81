"""Checking a custom resource against its OpenAPI schema. A schema is compiled once into nested checks.

Messages, reasons and paths are upstream's, because people read them in `kubectl apply`.

Source: k8s.io/kube-openapi pkg/validation/validate, k8s.io/apiextensions-apiserver pkg/apiserver/validation.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlparse

import orjson

from berg.machinery import regexp, status
from berg.machinery.clock import parse_rfc3339
from berg.machinery.status import FieldError, Obj

Check = Callable[[str, Any, list[FieldError]], None]
"""(path, value, where faults go)"""


def compile_schema(schema: Obj) -> Check:
    """A check of values against an OpenAPI v3 schema (`x-kubernetes-validations` aside)."""
    checks: list[Check] = []
    types = _types(schema)
    if types:
        checks.append(_type_check(types, schema))
    if schema.get("enum") is not None:
        checks.append(_enum(schema["enum"], nullable=bool(schema.get("nullable"))))
    checks += _number_checks(schema) + _string_checks(schema) + _size_checks(schema)
    if "properties" in schema or schema.get("required") or isinstance(schema.get("additionalProperties"), dict):
        checks.append(_object(schema))
    if isinstance(schema.get("items"), dict):
        checks.append(_items(compile_schema(schema["items"])))
    checks += _combinations(schema)
    checks += _list_kinds(schema)
    if not checks:
        return _nothing
    if len(checks) == 1:
        return checks[0]

    def every(path: str, value: Any, errors: list[FieldError]) -> None:
        before = len(errors)
        for i, check in enumerate(checks):
            check(path, value, errors)
            if i == 0 and types and len(errors) > before:
                return  # of the wrong type: nothing else is worth saying

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
            return (isinstance(value, int) and not isinstance(value, bool)) or (
                isinstance(value, float) and value.is_integer()
            )
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
    return True


def type_name(value: Any) -> str:
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


def _enum(values: list[Any], *, nullable: bool) -> Check:
    shown = [v if isinstance(v, str) else orjson.dumps(v).decode() for v in values]

    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if (value is None and nullable) or any(
            v == value and isinstance(v, bool) == isinstance(value, bool) for v in values
        ):
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
        checks.append(bound(factor, lambda v: not float(v / factor).is_integer(), "a multiple of"))
    if schema.get("format") in ("int32", "int64") and schema.get("type") in ("integer", "number"):
        limit = 2 ** (31 if schema["format"] == "int32" else 63)
        checks.append(_integer_format(limit, schema["format"]))
    return checks


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
    known = _FORMATS.get(name or "")
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


def _parses(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def _date(text: str) -> None:
    import datetime

    datetime.date.fromisoformat(text)
    if len(text) != 10:
        raise ValueError(text)


def _uri(text: str) -> None:
    if not urlparse(text).scheme:
        raise ValueError(text)


_FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _parses(parse_rfc3339),
    "datetime": _parses(parse_rfc3339),
    "date": _parses(_date),
    "uri": _parses(_uri),
    "email": _parses(lambda t: None if re.fullmatch(r"[^@\s]+@[^@\s]+", t) else _fail(t)),
    "hostname": _parses(lambda t: None if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", t) else _fail(t)),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(lambda t: ipaddress.ip_network(t, strict=False) if "/" in t else _fail(t)),
    "mac": _parses(lambda t: None if re.fullmatch(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}", t) else _fail(t)),
    "uuid": _parses(
        lambda t: None if re.fullmatch(r"(?i)[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", t) else _fail(t)
    ),
    "byte": _parses(lambda t: base64.b64decode(t, validate=True)),
    "duration": _parses(
        lambda t: None if re.fullmatch(r"[+-]?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h|d|w))+|0", t) else _fail(t)
    ),
}


def _fail(text: str) -> None:
    raise ValueError(text)


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
            errors.append(status.invalid_value(_shown(path), len(value) if kind is list else value, text))  # type: ignore[arg-type]

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
        for name in required:
            if name not in value:
                errors.append(status.required(f"{path}.{name}" if path else name))
        for name, inner in value.items():
            known = properties.get(name)
            if known is not None:
                known(f"{path}.{name}" if path else name, inner, errors)
            elif rest is not None:
                rest(f"{path}.{name}" if path else name, inner, errors)

    return check


def _items(item: Check) -> Check:
    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if isinstance(value, list):
            for i, inner in enumerate(value):
                item(f"{path}[{i}]", inner, errors)

    return check


def _list_kinds(schema: Obj) -> list[Check]:
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("set", "map"):
        return []
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    defaults = {
        k: p["default"]
        for k, p in ((schema.get("items") or {}).get("properties") or {}).items()
        if k in keys and "default" in p
    }

    def check(path: str, value: Any, errors: list[FieldError]) -> None:
        if not isinstance(value, list):
            return
        seen = set()
        for i, inner in enumerate(value):
            what: Any = inner
            if kind == "map" and isinstance(inner, dict):
                what = {k: inner.get(k, defaults.get(k)) for k in keys if k in inner or k in defaults}
            mark = orjson.dumps(what, option=orjson.OPT_SORT_KEYS)
            if mark in seen:
                errors.append(status.duplicate(f"{path}[{i}]", what))
            seen.add(mark)

    return [check]


# ---- allOf, anyOf, oneOf, not


def _combinations(schema: Obj) -> list[Check]:
    checks: list[Check] = []
    if schema.get("allOf"):
        checks.append(_all_of([compile_schema(s) for s in schema["allOf"]]))
    if schema.get("anyOf") and not schema.get("x-kubernetes-int-or-string"):
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
            errors.append(_combined(path, "must validate all the schemas (allOf)"))
            errors.extend(found)

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
