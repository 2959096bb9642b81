"""Keys and certificates: thin over `cryptography`, the shapes Kubernetes needs and no more.

A certificate's identity is its subject: CN is the user, each O a group. Keys are ECDSA P-256 (RSA 2048 where a
peer wants RS256: service-account tokens). All values are PEM bytes; files with private keys are 0600.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from berg.machinery.private import write_private

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

YEAR = timedelta(days=365)
_BACKDATE = timedelta(minutes=5)
"""Certificates start a little in the past, so that clocks may differ."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Writes NAME.crt and NAME.key; returns their paths."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        write_private(key, self.key)
        certificate.write_bytes(self.certificate)
        return certificate, key

    @classmethod
    def read(cls, directory: Path, name: str) -> KeyPair:
        """Raises OSError when one of the files is missing."""
        return cls((directory / f"{name}.crt").read_bytes(), (directory / f"{name}.key").read_bytes())


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def new_rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_key(pem: bytes) -> PrivateKey:
    """Raises ValueError when it is no usable key."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError(f"a {type(key).__name__} is neither an ECDSA nor an RSA key")
    return key


def subject(common_name: str, organizations: Sequence[str] = ()) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
        + [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    )


def alternative_names(names: Sequence[str]) -> x509.SubjectAlternativeName | None:
    """IP addresses and DNS names, told apart by their look."""
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(found) if found else None


def new_csr(common_name: str, organizations: Sequence[str] = (), names: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """(request, key)"""
    key = new_key()
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(common_name, organizations))
    if san := alternative_names(names):
        builder = builder.add_extension(san, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), key_pem(key)


class CertificateAuthority:
    def __init__(self, pair: KeyPair) -> None:
        self.pair = pair
        self._certificate = x509.load_pem_x509_certificate(pair.certificate)
        self._key = load_key(pair.key)

    @property
    def certificate(self) -> bytes:
        return self.pair.certificate

    @classmethod
    def create(cls, common_name: str, lifetime: timedelta = 10 * YEAR) -> CertificateAuthority:
        key = new_key()
        now = datetime.now(UTC)
        name = subject(common_name)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(KeyPair(certificate.public_bytes(serialization.Encoding.PEM), key_pem(key)))

    def issue(
        self,
        common_name: str,
        organizations: Sequence[str] = (),
        *,
        names: Sequence[str] = (),
        server: bool = False,
        client: bool = False,
        lifetime: timedelta = YEAR,
    ) -> KeyPair:
        """A new key and its certificate; `names` are its DNS names and IP addresses."""
        key = new_key()
        certificate = self._sign(
            subject(common_name, organizations),
            key.public_key(),
            alternative_names(names),
            server=server,
            client=client,
            lifetime=lifetime,
        )
        return KeyPair(certificate, key_pem(key))

    def sign_request(self, csr: bytes, *, server: bool, client: bool, lifetime: timedelta) -> bytes:
        """The certificate for a CSR (PEM). Raises ValueError when its signature does not hold."""
        request = x509.load_pem_x509_csr(csr)
        if not request.is_signature_valid:
            raise ValueError("the certificate request's signature is not valid")
        try:
            san = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            san = None
        public = request.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise ValueError(f"a {type(public).__name__} is neither an ECDSA nor an RSA key")
        return self._sign(request.subject, public, san, server=server, client=client, lifetime=lifetime)

    def _sign(
        self,
        name: x509.Name,
        public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        san: x509.SubjectAlternativeName | None,
        *,
        server: bool,
        client: bool,
        lifetime: timedelta,
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(min(now + lifetime, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._certificate.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if san is not None:
            builder = builder.add_extension(san, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def expires(certificate: bytes) -> datetime:
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc
