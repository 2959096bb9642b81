"""Names that authorities permit and exclude, as Go's verifier reads them."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from berg.apiserver.auth.authentication import Unauthorized
from berg.apiserver.auth.certificates import X509, Authorities
from berg.apiserver.http.message import Request
from berg.machinery import pki

NOW = datetime.now(UTC)
KEY = pki.new_key()
DNS, MAIL, URI = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier


def IP(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text))


def _certificate(name: str, by: str, *extensions: Any) -> Any:
    builder = (
        x509.CertificateBuilder()
        .subject_name(pki.subject(name, ["dev"]))
        .issuer_name(pki.subject(by, ["dev"]))
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256())


def _comes_in(
    directory: Path, names: list[Any], permitted: list[Any] | None, excluded: list[Any] | None, *, length: int | None
) -> bool:
    """Of a client below an intermediate below a root with these constraints."""
    root = _certificate(
        "root",
        "root",
        x509.BasicConstraints(ca=True, path_length=length),
        *([x509.NameConstraints(permitted, excluded)] if permitted or excluded else []),
    )
    middle = _certificate("middle", "root", x509.BasicConstraints(ca=True, path_length=None))
    leaf = _certificate("jane", "middle", *([x509.SubjectAlternativeName(names)] if names else []))
    file = directory / "root.crt"
    file.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    der, between = (c.public_bytes(serialization.Encoding.DER) for c in (leaf, middle))
    method = X509(Authorities(str(file)))
    try:
        user = method.authenticate(Request("GET", "/", peer_certificate=der, peer_intermediates=(between,)))
    except Unauthorized:
        assert method.left.count == 0
        return False
    assert user is not None and user.name == "jane"
    assert (method.left.count, method.left.total) == (1, pytest.approx(86_400, rel=0.1))
    return True


@pytest.mark.parametrize(
    ("names", "permitted", "excluded", "good"),
    [
        ([], [DNS("example.com")], None, True),  # common names do not count
        ([DNS("a.example.com")], [DNS("example.com")], None, True),
        ([DNS("example.com")], [DNS("example.com")], None, True),
        ([DNS("aexample.com")], [DNS("example.com")], None, False),
        ([DNS("example.com"), DNS("other.com")], [DNS("example.com")], None, False),
        ([DNS("a.example.com")], None, [DNS("example.com")], False),
        ([DNS("a.com"), IP("10.0.0.1")], [DNS("a.com")], None, True),  # of another kind
        ([IP("10.1.2.3")], [IP("10.0.0.0/8")], None, True),
        ([IP("11.1.2.3")], [IP("10.0.0.0/8")], None, False),
        ([IP("10.1.2.3")], [IP("10.0.0.0/8")], [IP("10.1.0.0/16")], False),
        ([MAIL("j@example.com")], [MAIL("example.com")], None, True),
        ([MAIL("j@a.example.com")], [MAIL("example.com")], None, False),
        ([MAIL("j@a.example.com")], [MAIL(".example.com")], None, True),
        ([MAIL("k@example.com")], [MAIL("j@example.com")], None, False),
        ([URI("spiffe://example.com/ns/a")], [URI("example.com")], None, True),
        ([URI("spiffe://10.0.0.1/ns/a")], [URI("example.com")], None, False),
    ],
)
def test_names(tmp_path: Path, names: list[Any], permitted: Any, excluded: Any, good: bool) -> None:
    assert _comes_in(tmp_path, names, permitted, excluded, length=None) is good


@pytest.mark.parametrize(("length", "good"), [(0, False), (1, True)])
def test_a_root_says_how_far_it_reaches(tmp_path: Path, length: int, good: bool) -> None:
    assert _comes_in(tmp_path, [], None, None, length=length) is good
