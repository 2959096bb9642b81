"""Whether the certificate and the key of a TLS secret belong together; told as a warning."""

from __future__ import annotations


def mismatch(certificate: bytes, key: bytes) -> str:
    """The fault, or ""."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        wanted = x509.load_pem_x509_certificate(certificate).public_key()
    except ValueError:
        return "tls: failed to find any PEM data in certificate input"
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls: failed to find any PEM data in key input"
    encoding = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if wanted.public_bytes(*encoding) != private.public_key().public_bytes(*encoding):
        return "tls: private key does not match public key"
    return ""
