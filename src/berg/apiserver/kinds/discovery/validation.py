"""What an endpoint slice may say.

Source: kubernetes pkg/apis/discovery/validation.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.apiserver.kinds import addresses, checks, immutable
from berg.apiserver.kinds.core.endpoints_validation import PROTOCOLS
from berg.apiserver.kinds.core.service_validation import endpoint_ip
from berg.apiserver.kinds.label_selectors import validate_labels
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, invalid_value, required, too_many

_TYPES = ("FQDN", "IPv4", "IPv6")
_TOPOLOGY, _ADDRESSES, _PORTS, _ENDPOINTS, _HINTS = 16, 100, 20000, 1000, 8


def validate_endpoint_slice(obj: Obj) -> list[FieldError]:
    errors = checks.one_of("addressType", obj.get("addressType"), _TYPES)
    return errors + _ports(obj.get("ports") or []) + _endpoints(obj)


def validate_endpoint_slice_update(obj: Obj, old: Obj) -> list[FieldError]:
    errors = checks.one_of("addressType", obj.get("addressType"), _TYPES) + _ports(obj.get("ports") or [])
    if obj.get("endpoints") != old.get("endpoints"):
        errors += _endpoints(obj)
    return errors + immutable.immutable(obj, old, "addressType")


def endpoint_slice_warnings(obj: Obj, *, new: bool) -> list[str]:
    if new and obj.get("addressType") == "FQDN":
        return ["spec.addressType: FQDN endpoints are deprecated"]
    warnings: list[str] = []
    for i, endpoint in enumerate(obj.get("endpoints") or ()):
        for j, text in enumerate(endpoint.get("addresses") or ()):
            warnings += addresses.ip_warnings(f"endpoints[{i}].addresses[{j}]", text)
    return warnings


def _ports(ports: list[Obj]) -> list[FieldError]:
    if len(ports) > _PORTS:
        return [too_many("ports", len(ports), _PORTS)]
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, port in enumerate(ports):
        at = f"ports[{i}]"
        name = port.get("name") or ""
        if name:
            errors += checks.named(f"{at}.name", name, names.dns1123_label)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        errors += checks.one_of(f"{at}.protocol", port.get("protocol"), PROTOCOLS, empty=None)
        if port.get("appProtocol") is not None:
            errors += checks.named(f"{at}.appProtocol", port["appProtocol"], names.qualified_name)
    return errors


def _endpoints(obj: Obj) -> list[FieldError]:
    endpoints = obj.get("endpoints") or []
    if len(endpoints) > _ENDPOINTS:
        return [too_many("endpoints", len(endpoints), _ENDPOINTS)]
    errors: list[FieldError] = []
    for i, endpoint in enumerate(endpoints):
        errors += _endpoint(endpoint, obj.get("addressType") or "", f"endpoints[{i}]")
    return errors


def _endpoint(endpoint: Obj, kind: str, at: str) -> list[FieldError]:
    path = f"{at}.addresses"
    given = endpoint.get("addresses") or []
    errors: list[FieldError] = []
    if not given:
        errors.append(required(path, "must contain at least 1 address"))
    elif len(given) > _ADDRESSES:
        errors.append(too_many(path, len(given), _ADDRESSES))
    for j, text in enumerate(given):
        errors += _address(path, j, text, kind)
    if endpoint.get("nodeName") is not None:
        errors += checks.named(f"{at}.nodeName", endpoint["nodeName"])
    topology = endpoint.get("deprecatedTopology") or {}
    if len(topology) > _TOPOLOGY:
        errors.append(too_many(f"{at}.deprecatedTopology", len(topology), _TOPOLOGY))
    errors += validate_labels(topology, f"{at}.deprecatedTopology")
    if endpoint.get("hostname") is not None:
        errors += checks.named(f"{at}.hostname", endpoint["hostname"], names.dns1123_label)
    hints = endpoint.get("hints") or {}
    errors += _hints(hints.get("forZones") or [], f"{at}.hints.forZones", names.label_value)
    if len(hints.get("forZones") or []) <= _HINTS:
        errors += _hints(hints.get("forNodes") or [], f"{at}.hints.forNodes", names.dns1123_subdomain)
    return errors


def _address(path: str, index: int, text: str, kind: str) -> list[FieldError]:
    at = f"{path}[{index}]"
    if kind == "FQDN":
        return fully_qualified(at, text)
    if kind not in ("IPv4", "IPv6"):
        return []
    if errors := addresses.legacy_ip(at, text) if kind == "IPv4" else addresses.strict_ip(at, text):
        return errors
    ip = addresses.parse_ip(text)
    wrong = ip is None or ip.version != (4 if kind == "IPv4" else 6)
    errors = [invalid_value(path, text, f"must be an {kind} address")] if wrong else []
    return errors + endpoint_ip(at, text)


def fully_qualified(path: str, name: str) -> list[FieldError]:
    if not name:
        return [required(path)]
    name = name.removesuffix(".")
    if bad := names.dns1123_subdomain(name):
        return [invalid_value(path, name, ",".join(bad))]
    labels = name.split(".")
    if len(labels) < 2:
        return [invalid_value(path, name, "should be a domain with at least two segments separated by dots")]
    for label in labels:
        if bad := names.dns1123_label(label):
            return [invalid_value(path, label, ",".join(bad))]
    return []


def _hints(hints: list[Obj], path: str, check: Callable[[str], list[str]]) -> list[FieldError]:
    if len(hints) > _HINTS:
        return [too_many(path, len(hints), _HINTS)]
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, hint in enumerate(hints):
        name = hint.get("name") or ""
        if name in seen:
            errors.append(duplicate(f"{path}[{i}].name", name))
        seen.add(name)
        errors += checks.named(f"{path}[{i}].name", name, check)
    return errors
