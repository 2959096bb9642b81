"""Which certificate requests the signers of Kubernetes accept, and the signing itself.

A rule gives the fault of a request, or an empty text.

Source: pkg/apis/certificates/helpers.go, pkg/controller/certificates/{signer,authority}.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from berg.machinery.status import Obj

KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
CLIENT = "kubernetes.io/kube-apiserver-client"
LEGACY = "kubernetes.io/legacy-unknown"
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
BACKDATE = timedelta(minutes=5)
SHORT = timedelta(hours=8)


def parse(csr: Obj) -> Any:
    """Raises ValueError when it is no certificate request."""
    from cryptography import x509

    return x509.load_pem_x509_csr(base64.b64decode(csr["spec"]["request"]))


def _attributes(request: Any, oid: Any) -> list[str]:
    return [str(a.value) for a in request.subject.get_attributes_for_oid(oid)]


def common_name(request: Any) -> str:
    from cryptography.x509.oid import NameOID

    found = _attributes(request, NameOID.COMMON_NAME)
    return found[-1] if found else ""


def _organizations(request: Any) -> list[str]:
    from cryptography.x509.oid import NameOID

    return _attributes(request, NameOID.ORGANIZATION_NAME)


def _names(request: Any) -> dict[str, int]:
    """How many alternative names of each kind."""
    from cryptography import x509

    found = {"DNSName": 0, "IPAddress": 0, "RFC822Name": 0, "UniformResourceIdentifier": 0}
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    for name in names:
        found[type(name).__name__] = found.get(type(name).__name__, 0) + 1
    return found


def _is_node(request: Any) -> str:
    if _organizations(request) != [NODES]:
        return "subject organization is not system:nodes"
    if not common_name(request).startswith(NODE_PREFIX):
        return "subject common name does not begin with system:node:"
    return ""


def _usages_fault(usages: list[str], auth: str) -> str:
    without_rsa = {"digital signature", auth}
    if set(usages) in (without_rsa, without_rsa | {"key encipherment"}):
        return ""
    return f"usages did not match [{' '.join(sorted([*without_rsa, 'key encipherment']))}]"


def kubelet_client_fault(request: Any, usages: list[str]) -> str:
    names = _names(request)
    forbidden = (
        ("DNSName", "DNS subjectAltNames are not allowed"),
        ("RFC822Name", "Email subjectAltNames are not allowed"),
        ("IPAddress", "IP subjectAltNames are not allowed"),
        ("UniformResourceIdentifier", "URI subjectAltNames are not allowed"),
    )
    faults = [text for kind, text in forbidden if names[kind]]
    return _is_node(request) or (faults[0] if faults else "") or _usages_fault(usages, "client auth")


def kubelet_serving_fault(request: Any, usages: list[str]) -> str:
    names = _names(request)
    if fault := _is_node(request):
        return fault
    if not names["DNSName"] and not names["IPAddress"]:
        return "DNS or IP subjectAltName is required"
    if names["RFC822Name"]:
        return "Email subjectAltNames are not allowed"
    if names["UniformResourceIdentifier"]:
        return "URI subjectAltNames are not allowed"
    return _usages_fault(usages, "server auth")


def client_fault(request: Any, usages: list[str]) -> str:
    for usage in usages:
        if usage not in ("client auth", "digital signature", "key encipherment"):
            return f"invalid usage for client certificate: {usage}"
    return "" if "client auth" in usages else "missing required usage for client certificate: client auth"


RULES: dict[str, Callable[[Any, list[str]], str]] = {
    KUBELET_CLIENT: kubelet_client_fault,
    KUBELET_SERVING: kubelet_serving_fault,
    CLIENT: client_fault,
    LEGACY: lambda request, usages: "",
}

KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
}
EXTENDED_USAGES = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
}


def load_authority(cert_file: str, key_file: str) -> tuple[Any, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    with open(cert_file, "rb") as f:
        certificate = x509.load_pem_x509_certificate(f.read())
    with open(key_file, "rb") as f:
        return certificate, serialization.load_pem_private_key(f.read(), None)


def sign(request: Any, usages: list[str], lifetime: timedelta, now: datetime, authority: Any, key: Any) -> bytes:
    """A certificate in PEM: subject, names and key as asked, usages as stated, never longer than the CA's own."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    # A short certificate loses little by starting in the past; a long one keeps its length.
    end = now + lifetime - (BACKDATE if lifetime < SHORT else timedelta(0))
    named = dict.fromkeys((*KEY_USAGES.values(), "encipher_only", "decipher_only"), False) | {
        KEY_USAGES[u]: True for u in usages if u in KEY_USAGES
    }
    extended = [x509.ObjectIdentifier(EXTENDED_USAGES[u]) for u in usages if u in EXTENDED_USAGES]
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(authority.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(end, authority.not_valid_after_utc))
        .add_extension(x509.KeyUsage(**named), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    if extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        builder = builder.add_extension(names, critical=False)
    except x509.ExtensionNotFound:
        pass
    return bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def expires(pem: bytes) -> datetime | None:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except ValueError:
        return None
