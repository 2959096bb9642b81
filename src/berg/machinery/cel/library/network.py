"""URLs, addresses, networks.

Source: k8s.io/apiserver pkg/cel/library/{urls,ip,cidr}.go, whose parsers are Go's net/url and net/netip.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from berg.machinery.cel.library import on
from berg.machinery.cel.values import EvaluationError, Named

_URL, _IP, _CIDR = "kubernetes.URL", "net.IP", "net.CIDR"


# ---- URLs


def _split(text: str) -> Any:
    """Absolute URLs, and absolute paths. Raises ValueError."""
    parts = urlsplit(text)
    if not (parts.scheme or text.startswith("/")) or any(c < " " or c == "\x7f" for c in text):
        raise ValueError("invalid URI for request")
    if " " in parts.netloc:
        raise ValueError('invalid character " " in host name')
    _ = parts.port
    return parts


@on("url", "string")
def url(text: str) -> Named:
    try:
        _split(text)
    except ValueError as e:
        raise EvaluationError(f'URL parse error during conversion from string: parse "{text}": {e}') from None
    return Named(_URL, text)


@on("isURL", "string")
def is_url(text: str) -> bool:
    try:
        _split(text)
    except ValueError:
        return False
    return True


def _hostname(u: Named) -> str:
    host = urlsplit(u.value).netloc.rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _port(u: Named) -> str:
    host = urlsplit(u.value).netloc.rpartition("@")[2]
    return host.rpartition("]")[2].rpartition(":")[2] if ":" in host.rpartition("]")[2] else ""


on("getScheme", _URL)(lambda u: urlsplit(u.value).scheme)
on("getHost", _URL)(lambda u: urlsplit(u.value).netloc.rpartition("@")[2])
on("getHostname", _URL)(_hostname)
on("getPort", _URL)(_port)
on("getEscapedPath", _URL)(lambda u: quote(urlsplit(u.value).path, safe="/%:@!$&'()*+,;=~-._"))
on("getQuery", _URL)(lambda u: parse_qs(urlsplit(u.value).query, keep_blank_values=True))


# ---- addresses


def _parsed(text: str) -> Any:
    """Raises ValueError in upstream's words."""
    if "%" in text:
        raise ValueError(f"IP address {_quoted(text)} with zone value is not allowed")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(
            f"IP Address {_quoted(text)} parse error during conversion from string: unable to parse IP"
        ) from None
    if address.version == 6 and address.ipv4_mapped is not None:
        raise ValueError(f"IPv4-mapped IPv6 address {_quoted(text)} is not allowed")
    return address


def _quoted(text: str) -> str:
    return f'"{text}"'


def _address(text: str) -> Any:
    try:
        return _parsed(text)
    except ValueError as e:
        raise EvaluationError(str(e)) from None


@on("ip", "string")
def ip(text: str) -> Named:
    return Named(_IP, _address(text))


@on("isIP", "string")
def is_ip(text: str) -> bool:
    try:
        _parsed(text)
    except ValueError:
        return False
    return True


@on("ip.isCanonical", "string")
def is_canonical(text: str) -> bool:
    return str(_address(text)) == text


on("string", _IP)(lambda a: str(a.value))
on("family", _IP)(lambda a: a.value.version)
on("isUnspecified", _IP)(lambda a: a.value.is_unspecified)
on("isLoopback", _IP)(lambda a: a.value.is_loopback)
on("isLinkLocalUnicast", _IP)(lambda a: a.value.is_link_local)
on("isLinkLocalMulticast", _IP)(lambda a: _is_local_multicast(a.value))


def _is_local_multicast(address: Any) -> bool:
    local = "224.0.0.0/24" if address.version == 4 else "ff02::/16"
    return address in ipaddress.ip_network(local)


@on("isGlobalUnicast", _IP)
def is_global_unicast(a: Named) -> bool:
    of = a.value
    broadcast = str(of) == "255.255.255.255"
    return not (of.is_multicast or of.is_unspecified or of.is_loopback or of.is_link_local or broadcast)


# ---- networks


def _network(text: str) -> Any:
    """Raises ValueError in upstream's words."""
    base, slash, bits = text.partition("/")
    if not slash or not bits.isdigit() or (len(bits) > 1 and bits[0] == "0"):
        raise ValueError(f"network address parse error during conversion from string: {_quoted(text)}")
    if "%" in base:
        raise ValueError(f"CIDR {_quoted(text)} with zone value is not allowed")
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"network address parse error during conversion from string: {_quoted(text)}") from None
    if found.version == 6 and found.ip.ipv4_mapped is not None:
        raise ValueError(f"IPv4-mapped IPv6 address {_quoted(base)} is not allowed")
    return found


@on("cidr", "string")
def cidr(text: str) -> Named:
    try:
        return Named(_CIDR, _network(text))
    except ValueError as e:
        raise EvaluationError(str(e)) from None


@on("isCIDR", "string")
def is_cidr(text: str) -> bool:
    try:
        _network(text)
    except ValueError:
        return False
    return True


def _inside(inner: Any, outer: Any) -> bool:
    return bool(inner.version == outer.version and inner.network.subnet_of(outer.network))


on("string", _CIDR)(lambda c: str(c.value))
on("ip", _CIDR)(lambda c: Named(_IP, c.value.ip))
on("prefixLength", _CIDR)(lambda c: c.value.network.prefixlen)
on("masked", _CIDR)(lambda c: Named(_CIDR, ipaddress.ip_interface(str(c.value.network))))
on("containsIP", _CIDR, _IP)(lambda c, a: a.value in c.value.network)
on("containsIP", _CIDR, "string")(lambda c, a: _address(a) in c.value.network)
on("containsCIDR", _CIDR, _CIDR)(lambda c, d: _inside(d.value, c.value))
on("containsCIDR", _CIDR, "string")(lambda c, d: _inside(cidr(d).value, c.value))
