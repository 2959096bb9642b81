"""What certificate signing requests may say, and who may change what of them.

Source: kubernetes pkg/apis/certificates/validation, pkg/apis/core/validation/names.go.
"""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from berg.machinery import names
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)

_USAGES = frozenset(
    {
        "any",
        "cert sign",
        "client auth",
        "code signing",
        "content commitment",
        "crl sign",
        "data encipherment",
        "decipher only",
        "digital signature",
        "email protection",
        "encipher only",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "key agreement",
        "key encipherment",
        "microsoft sgc",
        "netscape sgc",
        "ocsp signing",
        "s/mime",
        "server auth",
        "signing",
        "timestamping",
    }
)
_LEGACY = "kubernetes.io/legacy-unknown"
_DECISIONS = ("Approved", "Denied")
_KEPT = ("Approved", "Denied", "Failed")
_CONDITIONS = "status.conditions"
_LONGEST_DOMAIN = 253
_LONGEST_SIGNER = 253 + 253 + 63 + 1 + 1


def validate_request(obj: Obj, old: Obj | None = None) -> list[FieldError]:
    spec, before = obj.get("spec") or {}, (old or {}).get("spec") or {}
    errors = _request(spec)
    usages = spec.get("usages") or []
    if not usages:
        errors.append(required("spec.usages"))
    if usages != before.get("usages"):
        supported = sorted(_USAGES)
        errors += [not_supported(f"spec.usages[{i}]", u, supported) for i, u in enumerate(usages) if u not in _USAGES]
        errors += [duplicate(f"spec.usages[{i}]", u) for i, u in enumerate(usages) if u in usages[:i]]
    signer = spec.get("signerName") or ""
    if signer == _LEGACY and before.get("signerName") != _LEGACY:
        why = "the legacy signerName is not allowed via this API version"
        errors.append(invalid_value("spec.signerName", signer, why))
    else:
        errors += validate_signer_name("spec.signerName", signer)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        why = "may not specify a duration less than 600 seconds (10 minutes)"
        errors.append(invalid_value("spec.expirationSeconds", seconds, why))
    errors += _conditions(obj, old)
    certificate = _certificate(obj)
    if certificate != _certificate(old or {}):
        errors += _pem(certificate)
    return errors


def validate_conditions_of_request(obj: Obj, old: Obj, *, approving: bool = False) -> list[FieldError]:
    """An update that may decide, when it came by /approval, and never issues."""
    errors = validate_request(obj, old) + _kept(obj, old)
    if not approving:
        errors += _undecided(obj, old)
    if _certificate(obj) != _certificate(old):
        errors.append(forbidden_field("status.certificate", "updates may not set certificate content"))
    return errors


def validate_request_status(obj: Obj, old: Obj) -> list[FieldError]:
    """An update that may issue, once, and never decides."""
    errors = validate_request(obj, old) + _kept(obj, old) + _undecided(obj, old)
    if _certificate(old) and _certificate(obj) != _certificate(old):
        why = "updates may not modify existing certificate content"
        errors.append(forbidden_field("status.certificate", why))
    return errors


def _request(spec: Obj) -> list[FieldError]:
    encoded = spec.get("request") or ""

    def bad(why: str) -> list[FieldError]:
        return [invalid_value("spec.request", spec.get("request"), why)]

    try:
        pem = base64.b64decode(encoded)
    except binascii.Error:
        pem = b""
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
        return bad("PEM block type must be CERTIFICATE REQUEST")
    try:
        if not x509.load_pem_x509_csr(pem).is_signature_valid:
            return bad("x509: signature is not valid")
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        return bad(f"asn1: structure error: {e}")
    return []


def _certificate(obj: Obj) -> str:
    return (obj.get("status") or {}).get("certificate") or ""


def _pem(encoded: str) -> list[FieldError]:
    if not encoded:
        return []

    def bad(why: str) -> list[FieldError]:
        return [invalid_value("status.certificate", "<certificate data>", why)]

    try:
        text = base64.b64decode(encoded)
        for block in text.split(b"-----BEGIN ")[1:]:
            kind = block.split(b"-----", 1)[0].decode("ascii", "replace")
            if kind != "CERTIFICATE":
                return bad(f'only CERTIFICATE PEM blocks are allowed, found "{kind}"')
        if b"-----BEGIN CERTIFICATE-----" not in text:
            return bad("must contain at least one CERTIFICATE PEM block")
        x509.load_pem_x509_certificates(text)
    except (ValueError, binascii.Error) as e:
        return bad(str(e))
    return []


def _of(obj: Obj) -> list[Obj]:
    return (obj.get("status") or {}).get("conditions") or []


def _conditions(obj: Obj, old: Obj | None) -> list[FieldError]:
    before = [c.get("type") or "" for c in _of(old or {})]
    may_repeat, may_both = len(set(before)) < len(before), set(_DECISIONS) <= set(before)
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, c in enumerate(_of(obj)):
        kind, state = c.get("type") or "", c.get("status") or ""
        at = f"{_CONDITIONS}[{i}]"
        if not kind and "" not in before:
            errors.append(required(f"{at}.type"))
        allowed = ("True",) if kind in _KEPT else ("False", "True", "Unknown")
        if not state:
            errors.append(required(f"{at}.status"))
        elif state not in allowed:
            errors.append(not_supported(f"{at}.status", state, allowed))
        if kind in _DECISIONS and not may_both and seen & (set(_DECISIONS) - {kind}):
            why = "Approved and Denied conditions are mutually exclusive"
            errors.append(invalid_value(_CONDITIONS, kind, why))
        if kind in seen and not may_repeat:
            errors.append(duplicate(f"{at}.type", kind))
        seen.add(kind)
    return errors


def _kept(obj: Obj, old: Obj) -> list[FieldError]:
    return [
        forbidden_field(_CONDITIONS, f'updates may not remove a condition of type "{kind}"')
        for kind in _KEPT
        if _count(obj, kind) < _count(old, kind)
    ]


def _undecided(obj: Obj, old: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for kind in _DECISIONS:
        if _count(obj, kind) > _count(old, kind):
            why = f'updates may not add a condition of type "{kind}"'
            errors.append(forbidden_field(_CONDITIONS, why))
        elif _count(obj, kind) == _count(old, kind):
            new, known = ([c for c in _of(o) if c.get("type") == kind] for o in (obj, old))
            if new != known:
                why = f'updates may not modify a condition of type "{kind}"'
                errors.append(forbidden_field(_CONDITIONS, why))
    return errors


def _count(obj: Obj, kind: str) -> int:
    return sum(c.get("type") == kind for c in _of(obj))


def validate_signer_name(path: str, name: str) -> list[FieldError]:
    if not name:
        return [required(path)]
    parts = name.split("/")
    if len(parts) != 2:
        why = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [invalid_value(path, name, why)]
    domain, rest = parts
    errors = [too_long(path, "", _LONGEST_DOMAIN)] if len(domain) > _LONGEST_DOMAIN else []
    for label in domain.split("."):
        if bad := names.dns1123_label(label):
            errors += [invalid_value(path, domain, f'validating label "{label}": {text}') for text in bad]
            break
    if "." not in domain:
        why = "should be a domain with at least two segments separated by dots"
        errors.append(invalid_value(path, domain, why))
    for label in rest.split("."):
        if bad := names.dns1123_subdomain(label):
            errors += [invalid_value(path, rest, f'validating label "{label}": {text}') for text in bad]
            break
    if len(name) > _LONGEST_SIGNER:
        errors.append(too_long(path, "", _LONGEST_SIGNER))
    return errors
