"""Which names the certificates below an authority may bear, where the authority says so.

Every certificate of a chain that has subject alternative names is held against what stands above it: none of them
may be excluded, and where names of its kind are permitted at all, it must be among them. Common names do not count.

Source: RFC 5280, section 4.2.1.10; Go's crypto/x509, whose verifier upstream uses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def hold(path: Sequence[Certificate]) -> bool:
    """`path`: from the client's certificate up."""
    from cryptography import x509

    for i, authority in enumerate(path):
        try:
            limits = authority.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            continue
        except ValueError:
            return False
        below = [name for certificate in path[:i] for name in _names(certificate)]
        if not _permitted(below, limits.permitted_subtrees, limits.excluded_subtrees):
            return False
    return True


def _names(certificate: Certificate) -> Iterable[Any]:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()


def _permitted(names: Iterable[Any], permitted: Iterable[Any] | None, excluded: Iterable[Any] | None) -> bool:
    for name in names:
        of_its_kind = [p for p in permitted or () if type(p) is type(name)]
        if any(_within(name, e) for e in excluded or () if type(e) is type(name)):
            return False
        if of_its_kind and not any(_within(name, p) for p in of_its_kind):
            return False
    return True


def _within(name: Any, subtree: Any) -> bool:
    from cryptography import x509

    value, limit = name.value, subtree.value
    match name:
        case x509.DNSName():
            return _is_below(value, limit)
        case x509.RFC822Name():
            _, _, host = value.rpartition("@")
            return value == limit if "@" in limit else _host_within(host, limit)
        case x509.UniformResourceIdentifier():
            host = urlsplit(value).hostname or ""
            return bool(host) and not _is_address(host) and _host_within(host, limit)
        case x509.IPAddress():
            return value.version == limit.version and value in limit
    return bool(value == limit)


def _host_within(host: str, limit: str) -> bool:
    """A limit without a dot in front is that host alone."""
    if limit.startswith("."):
        return host.lower().endswith(limit.lower())
    return not limit or host.lower() == limit.lower()


def _is_below(name: str, limit: str) -> bool:
    name, limit = name.lower().rstrip("."), limit.lower().strip(".")
    return not limit or name == limit or name.endswith(f".{limit}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
