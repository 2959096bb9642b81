"""What a network policy may say.

Source: kubernetes pkg/apis/networking/validation ValidateNetworkPolicySpec.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from berg.apiserver.kinds import addresses, checks
from berg.apiserver.kinds.label_selectors import validate_selector
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, not_supported, required

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_DIRECTIONS = (("ingress", "from"), ("egress", "to"))
_TYPES = ("Ingress", "Egress")


def validate_network_policy(obj: Obj, old: Obj | None = None) -> list[FieldError]:
    spec = obj.get("spec") or {}
    known = frozenset(_blocks(old)) if old is not None else frozenset()
    errors = validate_selector(spec.get("podSelector"), "spec.podSelector")
    for direction, peers in _DIRECTIONS:
        for i, rule in enumerate(spec.get(direction) or ()):
            at = f"spec.{direction}[{i}]"
            for j, port in enumerate(rule.get("ports") or ()):
                errors += _port(port, f"{at}.ports[{j}]")
            for j, peer in enumerate(rule.get(peers) or ()):
                errors += _peer(peer, f"{at}.{peers}[{j}]", known)
    types = spec.get("policyTypes") or []
    if len(types) > len(_TYPES):
        errors.append(invalid_value("spec.policyTypes", types, "may not specify more than two policyTypes"))
        return errors
    for i, kind in enumerate(types):
        if kind not in _TYPES:
            errors.append(not_supported(f"spec.policyTypes[{i}]", kind, _TYPES))
    return errors


def _blocks(obj: Obj) -> Iterator[str]:
    """The address blocks that are there already, and stay whatever they are."""
    spec = obj.get("spec") or {}
    for direction, peers in _DIRECTIONS:
        for rule in spec.get(direction) or ():
            for peer in rule.get(peers) or ():
                if block := peer.get("ipBlock"):
                    yield block.get("cidr") or ""
                    yield from block.get("except") or ()


def _port(port: Obj, at: str) -> list[FieldError]:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    errors: list[FieldError] = []
    if protocol is not None and protocol not in _PROTOCOLS:
        errors.append(not_supported(f"{at}.protocol", protocol, _PROTOCOLS))
    if number is None:
        if end is not None:
            errors.append(invalid_value(f"{at}.endPort", end, "may not be specified when `port` is not specified"))
    elif isinstance(number, str):
        if end is not None:
            errors.append(invalid_value(f"{at}.endPort", end, "may not be specified when `port` is non-numeric"))
        errors += checks.named(f"{at}.port", number, names.port_name)
    else:
        errors += checks.port_number(f"{at}.port", number)
        if end is not None:
            if end < number:
                errors.append(invalid_value(f"{at}.endPort", number, "must be greater than or equal to `port`"))
            errors += checks.port_number(f"{at}.endPort", end)
    return errors


def _peer(peer: Obj, at: str, known: Collection[str]) -> list[FieldError]:
    given = [key for key in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(key) is not None]
    errors: list[FieldError] = []
    for key in given:
        if key == "ipBlock":
            errors += _block(peer[key], f"{at}.ipBlock", known)
        else:
            errors += validate_selector(peer[key], f"{at}.{key}")
    if not given:
        errors.append(required(at, "must specify a peer"))
    elif len(given) > 1 and "ipBlock" in given:
        errors.append(forbidden_field(at, "may not specify both ipBlock and another peer"))
    return errors


def _block(block: Obj, at: str, known: Collection[str]) -> list[FieldError]:
    cidr = block.get("cidr") or ""
    if not cidr:
        return [required(f"{at}.cidr")]
    errors = addresses.legacy_cidr(f"{at}.cidr", cidr, known)
    outer = addresses.parse_cidr(cidr)
    if outer is None:
        return errors
    for i, text in enumerate(block.get("except") or ()):
        path = f"{at}.except[{i}]"
        errors += addresses.legacy_cidr(path, text, known)
        inner = addresses.parse_cidr(text)
        if inner is None:
            continue
        inside = inner.version == outer.version and inner.network_address in outer
        if not inside or outer.prefixlen >= inner.prefixlen:
            errors.append(invalid_value(path, text, "must be a strict subset of `cidr`"))
    return errors
