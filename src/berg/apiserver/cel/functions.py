"""Kubernetes' CEL functions: quantities, URLs, addresses, regular expressions, lists, formats, versions.

A value of a type that CEL does not know is a map with its kind under `_`. A method `x.f(a)` is the function
`f(x, a)`, so functions of one name for several types tell them apart themselves.

Source: k8s.io/apiserver pkg/cel/library.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cel

from berg.apiserver.cel import authorizer
from berg.machinery import names, quantity

Value = dict[str, Any]


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, dict) and value.get("_") == kind


def _quiet(parse: Callable[[Any], Any]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        try:
            parse(value)
        except (ValueError, TypeError):
            return False
        return True

    return check


# ---- quantities


def _quantity(text: str) -> Value:
    quantity.parse(text)
    return {"_": "quantity", "text": quantity.canonical(text)}


def _exact(value: Value) -> Any:
    return quantity.parse(value["text"])


def _number(value: Any) -> Value:
    return value if _is(value, "quantity") else _quantity(str(value))


def _add(a: Any, b: Any) -> Value:
    return _quantity(str(_exact(_number(a)) + _exact(_number(b))))


def _sub(a: Any, b: Any) -> Value:
    return _quantity(str(_exact(_number(a)) - _exact(_number(b))))


def _compare(a: Any, b: Any) -> int:
    if _is(a, "semver"):
        return (_order(a) > _order(b)) - (_order(a) < _order(b))
    x, y = _exact(_number(a)), _exact(_number(b))
    return (x > y) - (x < y)


def _sign(a: Value) -> int:
    return _compare(a, _quantity("0"))


def _is_integer(a: Value) -> bool:
    milli = quantity.milli(a["text"])
    return milli % 1000 == 0


def _as_integer(a: Value) -> int:
    if not _is_integer(a):
        raise ValueError("cannot convert value to integer")
    return quantity.value(a["text"])


# ---- URLs


def _url(text: str) -> Value:
    parts = urlsplit(text)
    if not (parts.scheme or text.startswith("/")):
        raise ValueError(f"URL parse error: {text}")
    return {"_": "url", "text": text}


def _url_parts(u: Value) -> Any:
    return urlsplit(u["text"])


def _url_host(u: Value) -> str:
    return str(_url_parts(u).netloc.rpartition("@")[2])


# ---- addresses


def _ip(value: Any) -> Value:
    if _is(value, "cidr"):
        return {"_": "ip", "text": str(ipaddress.ip_interface(value["text"]).ip)}
    address = ipaddress.ip_address(value)
    return {"_": "ip", "text": str(address)}


def _address(value: Any) -> Any:
    return ipaddress.ip_address(value["text"] if isinstance(value, dict) else value)


def _cidr(text: str) -> Value:
    if "/" not in text:
        raise ValueError(f"invalid CIDR: {text}")
    ipaddress.ip_interface(text)
    return {"_": "cidr", "text": text}


def _network(value: Any) -> Any:
    return ipaddress.ip_network(value["text"] if isinstance(value, dict) else value, strict=False)


def _contains_cidr(outer: Any, inner: Any) -> bool:
    a, b = _network(outer), _network(inner)
    return a.version == b.version and b.subnet_of(a)


def _masked(value: Value) -> Value:
    return {"_": "cidr", "text": str(_network(value))}


def _family(value: Any) -> int:
    return int(_address(value).version)


# ---- text and lists


def _find(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match.group(0) if match else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [m.group(0) for m in re.finditer(pattern, text)]
    return found if limit < 0 else found[:limit]


def _is_sorted(values: list[Any]) -> bool:
    return all(a <= b for a, b in pairwise(values))


def _index_of(where: Any, what: Any, offset: int = 0) -> int:
    if isinstance(where, str):
        return where.find(what, offset)
    return next((i for i, v in enumerate(where) if v == what), -1)


def _last_index_of(where: Any, what: Any, offset: int | None = None) -> int:
    if isinstance(where, str):
        return where.rfind(what) if offset is None else where.rfind(what, 0, offset + len(what))
    return next((i for i in range(len(where) - 1, -1, -1) if where[i] == what), -1)


def _sum(values: Any) -> Any:
    return sum(values)


def _reverse(value: Any) -> Any:
    return value[::-1]


def _format(text: str, values: list[Any]) -> str:
    parts = iter(values)

    def one(match: re.Match[str]) -> str:
        verb = match.group(0)
        if verb == "%%":
            return "%"
        value = next(parts)
        if verb[-1] in "fe":
            return verb % float(value)
        if verb[-1] in "dxXob":
            return {"x": "%x", "X": "%X", "o": "%o", "d": "%d"}.get(verb[-1], "%d") % int(value)
        return _show(value)

    return re.sub(r"%(?:\.\d+)?[sdfexXob%]", one, text)


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_show(v) for v in value) + "]"
    if isinstance(value, dict) and "text" in value and "_" in value:
        return str(value["text"])
    return "null" if value is None else str(value)


# ---- formats


_FORMATS: dict[str, Callable[[str], list[str]]] = {
    "dns1123Label": names.dns1123_label,
    "dns1123Subdomain": names.dns1123_subdomain,
    "dns1035Label": names.dns1035_label,
    "qualifiedName": names.qualified_name,
    "labelValue": names.label_value,
}


def _validate(form: Value, text: str) -> Any:
    faults = _FORMATS[form["name"]](text)
    return cel.OptionalValue.of(list(faults)) if faults else cel.OptionalValue.none()


def _named_format(name: str) -> Any:
    return cel.OptionalValue.of({"_": "format", "name": name}) if name in _FORMATS else cel.OptionalValue.none()


# ---- versions

_SEMVER = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")


def _semver(text: str, normalize: bool = False) -> Value:
    if normalize:
        text = text.removeprefix("v")
        core, dash, rest = text.partition("-")
        core = ".".join(str(int(p)) for p in (core.split(".") + ["0", "0"])[:3])
        text = core + dash + rest
    if not _SEMVER.fullmatch(text):
        raise ValueError(f"invalid semver: {text}")
    return {"_": "semver", "text": text}


def _order(value: Value) -> tuple[Any, ...]:
    match = _SEMVER.fullmatch(value["text"])
    assert match is not None
    pre = match.group(4)
    rest = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in pre.split(".")) if pre else ()
    return int(match[1]), int(match[2]), int(match[3]), pre is None, rest


# ---- optionals


def _opt_select(value: Any, name: str) -> Any:
    if isinstance(value, cel.OptionalValue):
        if not value.has_value():
            return value
        value = value.value()
    return cel.OptionalValue.of(value[name]) if isinstance(value, dict) and name in value else cel.OptionalValue.none()


def _opt_index(value: Any, key: Any) -> Any:
    if isinstance(value, cel.OptionalValue):
        if not value.has_value():
            return value
        value = value.value()
    try:
        return cel.OptionalValue.of(value[key])
    except (KeyError, IndexError, TypeError):
        return cel.OptionalValue.none()


# ---- comprehensions of two variables


def _two_keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def _two_map(keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    return dict(zip(keys, values, strict=True))


def all_functions() -> dict[str, Callable[..., Any]]:
    formats = {f"format.{name}": (lambda name=name: {"_": "format", "name": name}) for name in _FORMATS}
    return {
        "quantity": _quantity,
        "isQuantity": _quiet(_quantity),
        "add": _add,
        "sub": _sub,
        "sign": _sign,
        "compareTo": _compare,
        "isGreaterThan": lambda a, b: _compare(a, b) > 0,
        "isLessThan": lambda a, b: _compare(a, b) < 0,
        "isInteger": _is_integer,
        "asInteger": _as_integer,
        "asApproximateFloat": lambda a: quantity.milli(a["text"]) / 1000,
        "url": _url,
        "isURL": _quiet(_url),
        "getScheme": lambda u: _url_parts(u).scheme,
        "getHost": _url_host,
        "getHostname": lambda u: _url_parts(u).hostname or "",
        "getPort": lambda u: str(_url_parts(u).port or ""),
        "getEscapedPath": lambda u: _url_parts(u).path,
        "getQuery": lambda u: parse_qs(_url_parts(u).query, keep_blank_values=True),
        "ip": _ip,
        "isIP": _quiet(_ip),
        "ip.isCanonical": lambda t: str(ipaddress.ip_address(t)) == t,
        "family": _family,
        "isUnspecified": lambda a: _address(a).is_unspecified,
        "isLoopback": lambda a: _address(a).is_loopback,
        "isLinkLocalMulticast": lambda a: _address(a).is_multicast and _address(a) in _network("224.0.0.0/24"),
        "isLinkLocalUnicast": lambda a: _address(a).is_link_local,
        "isGlobalUnicast": lambda a: (
            not (
                _address(a).is_multicast
                or _address(a).is_unspecified
                or _address(a).is_loopback
                or _address(a).is_link_local
            )
        ),
        "cidr": _cidr,
        "isCIDR": _quiet(_cidr),
        "containsIP": lambda c, a: _address(a) in _network(c),
        "containsCIDR": _contains_cidr,
        "prefixLength": lambda c: _network(c).prefixlen,
        "masked": _masked,
        "find": _find,
        "findAll": _find_all,
        "isSorted": _is_sorted,
        "indexOf": _index_of,
        "lastIndexOf": _last_index_of,
        "sum": _sum,
        "reverse": _reverse,
        "format": _format,
        "format.named": _named_format,
        "validate": _validate,
        "semver": _semver,
        "isSemver": _quiet(_semver),
        "major": lambda v: _order(v)[0],
        "minor": lambda v: _order(v)[1],
        "patch": lambda v: _order(v)[2],
        "optSelect": _opt_select,
        "optIndex": _opt_index,
        "twoKeys": _two_keys,
        "twoAt": lambda value, key: value[key],
        "twoMap": _two_map,
        **authorizer.functions(),
        **formats,
    }
