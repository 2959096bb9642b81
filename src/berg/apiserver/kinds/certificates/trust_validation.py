"""What trust bundles may hold, and how they are called.

Source: kubernetes pkg/apis/certificates/validation ValidateClusterTrustBundle, pkg/apis/core/validation/names.go.
"""

from __future__ import annotations

import re
from base64 import b64encode

from cryptography import x509

from berg.apiserver.kinds.certificates.validation import validate_signer_name
from berg.apiserver.kinds.immutable import MESSAGE
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, invalid_value, too_long

_LARGEST = 1 << 20
_PATH = "spec.trustBundle"
_block = re.compile(rb"-----BEGIN ([^-]+)-----\s*(.*?)-----END \1-----", re.DOTALL)


def name_faults(name: str, signer: str) -> list[str]:
    if not signer:
        if ":" in name:
            return ['ClusterTrustBundle without signer name must not have ":" in its name']
        return names.dns1123_subdomain(name)
    prefix = signer.replace("/", ":") + ":"
    if not name.startswith(prefix):
        return [f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"]
    return names.dns1123_subdomain(name.removeprefix(prefix))


def validate_bundle(obj: Obj, old: Obj | None = None) -> list[FieldError]:
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name") or ""
    signer, bundle = spec.get("signerName") or "", spec.get("trustBundle") or ""
    errors = [invalid_value("metadata.name", name, text) for text in name_faults(name, signer) if name]
    if signer:
        errors += validate_signer_name("spec.signerName", signer)
    if old is None or bundle != ((old.get("spec") or {}).get("trustBundle") or ""):
        errors += _anchors(bundle)
    if old is not None and signer != ((old.get("spec") or {}).get("signerName") or ""):
        errors.append(invalid_value("spec.signerName", signer, MESSAGE))
    return errors


def _anchors(bundle: str) -> list[FieldError]:
    if len(bundle) > _LARGEST:
        return [too_long(_PATH, "", _LARGEST)]

    def bad(why: str) -> FieldError:
        return invalid_value(_PATH, "<value omitted>", why)

    errors: list[FieldError] = []
    seen: dict[str, list[int]] = {}
    for i, (kind, body) in enumerate(_block.findall(bundle.encode())):
        if kind != b"CERTIFICATE":
            errors.append(bad(f"entry {i} has bad block type: {kind.decode()}"))
            continue
        if b":" in body:
            errors.append(bad(f"entry {i} has PEM block headers"))
            continue
        try:
            pem = b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:
            errors.append(bad(f"entry {i} does not parse as X.509"))
            continue
        if not _is_authority(certificate):
            errors.append(bad(f"entry {i} does not have the CA bit set"))
            continue
        seen.setdefault(b64encode(certificate.tbs_certificate_bytes).decode(), []).append(i)
    if errors:
        return errors
    if not seen:
        errors.append(bad("at least one trust anchor must be provided"))
    for where in seen.values():
        if len(where) > 1:
            errors.append(bad(f"duplicate trust anchor (indices [{' '.join(map(str, where))}])"))
    return errors


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
