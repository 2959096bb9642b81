"""IP addresses and CIDRs in fields: faults and warnings in upstream's words.

Values that are already stored may be of the forms that Go's old parser accepted (leading zeros, IPv4-mapped IPv6);
new ones may not. Fields that came later demand the canonical form.

Source: apimachinery pkg/util/validation/ip.go.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

from berg.machinery.status import FieldError, invalid_value

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
BAD_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
BAD_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"

_ZEROS = re.compile(r"(?<![0-9a-fA-F:])0+(?=[0-9])")


def _without_leading_zeros(text: str) -> str:
    return _ZEROS.sub("", text) if "." in text else text


def parse_ip(text: str) -> Address | None:
    """As the old parser reads it."""
    if "%" in text:
        return None
    try:
        return ipaddress.ip_address(_without_leading_zeros(text))
    except ValueError:
        return None


def _mapped(address: Address) -> bool:
    return address.version == 6 and address.ipv4_mapped is not None


def show(address: Address) -> str:
    """As Go writes it: a mapped address as the IPv4 one it is."""
    if address.version == 6 and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def legacy_ip(path: str, text: str, known: Collection[str] = ()) -> list[FieldError]:
    """The check of fields that have always been there; `known`: what is stored, which may stay as it is."""
    return [] if text in known else _sound_ip(path, text)


def _sound_ip(path: str, text: str) -> list[FieldError]:
    address = parse_ip(text)
    if address is None:
        return [invalid_value(path, text, BAD_IP)]
    if _without_leading_zeros(text) != text:
        return [invalid_value(path, text, "must not have leading 0s")]
    if _mapped(address):
        return [invalid_value(path, text, "must not be an IPv4-mapped IPv6 address")]
    return []


def strict_ip(path: str, text: str) -> list[FieldError]:
    if errors := _sound_ip(path, text):
        return errors
    canonical = str(parse_ip(text))
    return [] if canonical == text else [invalid_value(path, text, f'must be in canonical form ("{canonical}")')]


def ip_warnings(path: str, text: str) -> list[str]:
    address = parse_ip(text)
    if address is None:
        return []
    if _without_leading_zeros(text) != text or _mapped(address):
        return [f'{path}: non-standard IP address "{text}" is invalid: use "{show(address)}"']
    if address.version == 6 and str(address) != text:
        return [f'{path}: IPv6 address "{text}" should be in RFC 5952 canonical format ("{address}")']
    return []


def _split(text: str) -> tuple[Address, int] | None:
    ip, slash, bits = text.partition("/")
    address = parse_ip(ip)
    if address is None or not slash or not bits.isdigit() or int(bits) > address.max_prefixlen:
        return None
    return address, int(bits)


def parse_cidr(text: str) -> Network | None:
    parts = _split(text)
    return None if parts is None else ipaddress.ip_network((str(parts[0]), parts[1]), strict=False)


def legacy_cidr(path: str, text: str, known: Collection[str] = ()) -> list[FieldError]:
    return [] if text in known else _sound_cidr(path, text)


def _sound_cidr(path: str, text: str) -> list[FieldError]:
    network, parts = parse_cidr(text), _split(text)
    if network is None or parts is None:
        return [invalid_value(path, text, BAD_CIDR)]
    ip, _, bits = text.partition("/")
    if _without_leading_zeros(ip) != ip or str(int(bits)) != bits:
        return [invalid_value(path, text, "must not have leading 0s in IP or prefix length")]
    if _mapped(parts[0]):
        return [invalid_value(path, text, "must not have an IPv4-mapped IPv6 address")]
    if parts[0] != network.network_address:
        return [invalid_value(path, text, "must not have bits set beyond the prefix length")]
    return []


def strict_cidr(path: str, text: str) -> list[FieldError]:
    if errors := _sound_cidr(path, text):
        return errors
    canonical = str(parse_cidr(text))
    return [] if canonical == text else [invalid_value(path, text, f'must be in canonical form ("{canonical}")')]


def cidr_warnings(path: str, text: str) -> list[str]:
    network, parts = parse_cidr(text), _split(text)
    if network is None or parts is None:
        return []
    found: list[str] = []
    ip, _, bits = text.partition("/")
    if parts[0] != network.network_address:
        single = f"{show(parts[0])}/{parts[0].max_prefixlen}"
        found.append(f'{path}: CIDR value "{text}" is ambiguous in this context (should be "{network}" or "{single}"?)')
    if _without_leading_zeros(ip) != ip or str(int(bits)) != bits or _mapped(parts[0]):
        found.append(f'{path}: non-standard CIDR value "{text}" is invalid: use "{network}"')
    if not found and network.version == 6 and f"{parts[0]}/{parts[1]}" != text:
        found.append(f'{path}: IPv6 CIDR value "{text}" should be in RFC 5952 canonical format ("{network}")')
    return found


def dual_stack(families: Sequence[int]) -> bool:
    return len(set(families)) == 2


def interface_address(path: str, text: str) -> list[FieldError]:
    """An address with the length of its network's prefix, in the canonical form."""
    found = _split(text)
    if found is None:
        why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"
        return [invalid_value(path, text, why)]
    address, bits = found
    if _mapped(address) and bits > 32:
        bits -= 96
    canonical = f"{show(address)}/{bits}"
    return [] if text == canonical else [invalid_value(path, text, f'must be in canonical form ("{canonical}")')]
