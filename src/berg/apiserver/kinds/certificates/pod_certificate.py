"""What a PodCertificateRequest asks for, and when its answer is believed.

A pod's key is proved by a certificate signing request that says nothing else, or (older) by a signature over the
pod's UID. The answer is written once: issued, denied or failed, and what was issued must be what was asked for.

Source: kubernetes pkg/apis/certificates/validation ValidatePodCertificateRequestCreate, …StatusUpdate.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.certificates.validation import validate_signer_name
from berg.apiserver.kinds.core.pod_spec.projections import DAY, HOUR, validate_user_annotations
from berg.apiserver.kinds.label_selectors import validate_conditions
from berg.apiserver.kinds.sameness import same
from berg.machinery.clock import Clock, parse_rfc3339
from berg.machinery.status import OMITTED, FieldError, Obj, invalid_value, not_supported, required, too_long

KNOWN = ("Issued", "Denied", "Failed")
LARGEST_KEY, LARGEST_CHAIN = 10 * 1024, 100 * 1024
_REQUEST, _KEY, _PROOF = "spec.stubPKCS10Request", "spec.pkixPublicKey", "spec.proofOfPossession"
_CHAIN = "status.certificateChain"
_block = re.compile(r"-----BEGIN ([^-]+)-----\s*(.*?)-----END \1-----", re.DOTALL)


def is_kubernetes_signer(name: str) -> bool:
    host = name.partition("/")[0]
    return host == "kubernetes.io" or host.endswith(".kubernetes.io")


def validate_request(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    signer = spec.get("signerName") or ""
    errors = validate_signer_name("spec.signerName", signer)
    at = "spec.unverifiedUserAnnotations"
    errors += validate_user_annotations(spec.get("unverifiedUserAnnotations") or {}, at)
    for name, uid in (("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")):
        errors += checks.named(f"spec.{name}", spec.get(name) or "")
        value = spec.get(uid) or ""
        if not value:
            errors.append(invalid_value(f"spec.{uid}", value, "must not be empty"))
        if len(value) > 128:
            errors.append(too_long(f"spec.{uid}", value, 128))
    seconds = spec.get("maxExpirationSeconds")
    if seconds is None:
        return [*errors, required("spec.maxExpirationSeconds", "must be set")]
    longest = DAY if is_kubernetes_signer(signer) else 91 * DAY
    if not HOUR <= seconds <= longest:
        errors.append(invalid_value("spec.maxExpirationSeconds", seconds, f"must be in the range [{HOUR}, {longest}]"))
    request, key, proof = (
        b64decode(spec.get(k) or "") for k in ("stubPKCS10Request", "pkixPublicKey", "proofOfPossession")
    )
    if request and not key and not proof:
        return errors + _signing_request(request)
    if not request and key and proof:
        return errors + _proven_key(key, proof, (spec.get("podUID") or "").encode())
    why = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"
    return [*errors, invalid_value("spec", OMITTED, why)]


def validate_request_update(obj: Obj, old: Obj) -> list[FieldError]:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    return [] if same(spec, before) else [invalid_value("spec", spec, "field is immutable")]


def _key_fault(path: str, key: Any, curves: str) -> list[FieldError]:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return []
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
            return []
        return [invalid_value(path, f"curve P-{key.key_size}", f"elliptic public keys must use curve {curves}")]
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size in (3072, 4096):
            return []
        return [invalid_value(path, f"{key.key_size}-bit modulus", "RSA keys must have modulus size 3072 or 4096")]
    return [invalid_value(path, OMITTED, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")]


def _signing_request(der: bytes) -> list[FieldError]:
    if len(der) > LARGEST_KEY:
        return [too_long(_REQUEST, "", LARGEST_KEY)]
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return [invalid_value(_REQUEST, OMITTED, "must be a valid PKCS#10 CSR")]
    if errors := _key_fault(_REQUEST, key, "P256, P384, or P521"):
        return errors
    return [] if request.is_signature_valid else [invalid_value(_REQUEST, OMITTED, "invalid signature")]


def _proven_key(der: bytes, proof: bytes, said: bytes) -> list[FieldError]:
    for path, value in ((_KEY, der), (_PROOF, proof)):
        if len(value) > LARGEST_KEY:
            return [too_long(path, "", LARGEST_KEY)]
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return [invalid_value(_KEY, OMITTED, "must be a valid PKIX-serialized public key")]
    if errors := _key_fault(_KEY, key, "P256 or P384"):
        return errors
    digest, hashed = hashlib.sha256(said).digest(), utils.Prehashed(SHA256())
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(proof, said)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(proof, digest, ec.ECDSA(hashed))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(proof, digest, padding.PSS(padding.MGF1(SHA256()), padding.PSS.AUTO), hashed)
    except InvalidSignature:
        return [invalid_value(_PROOF, OMITTED, "could not verify proof-of-possession signature")]
    return []


# ---- the answer


def answer(obj: Obj) -> str:
    """Issued, Denied or Failed; "" while there is none."""
    for c in (obj.get("status") or {}).get("conditions") or ():
        if c.get("type") in KNOWN and c.get("status") == "True":
            return str(c["type"])
    return ""


def validate_request_status(obj: Obj, old: Obj, clock: Clock) -> list[FieldError]:
    status, before = obj.get("status") or {}, old.get("status") or {}
    if errors := _conditions(status.get("conditions") or []):
        return errors
    now = answer(obj)
    if answer(old):
        why, wanted = "immutable after PodCertificateRequest is issued, denied, or failed", before
    elif now in ("Denied", "Failed"):
        why = "non-condition status fields must be empty when denying or failing the PodCertificateRequest"
        wanted = {"conditions": status["conditions"]}
    elif now == "Issued":
        return _issued(obj.get("spec") or {}, status, clock.now())
    else:
        why, wanted = 'status is immutable unless transitioning to "Issued", "Denied", or "Failed"', before
    return [] if same(status, wanted) else [invalid_value("status", OMITTED, why)]


def _conditions(conditions: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    known = 0
    for i, c in enumerate(conditions):
        at, kind = f"status.conditions.[{i}]", c.get("type") or ""
        if kind not in KNOWN:
            errors.append(not_supported(f"{at}.type", kind, KNOWN))
            continue
        known += 1
        if known > 1:
            why = 'There may be at most one condition with type "Issued", "Denied", or "Failed"'
            errors.append(invalid_value(f"{at}.type", kind, why))
        if c.get("status") != "True":
            errors.append(not_supported(f"{at}.status", c.get("status") or "", ["True"]))
    return errors + validate_conditions(conditions, "status.conditions")


def _issued(spec: Obj, status: Obj, now: datetime) -> list[FieldError]:
    chain = status.get("certificateChain") or ""
    if len(chain) > LARGEST_CHAIN:
        return [too_long(_CHAIN, "", LARGEST_CHAIN)]
    blocks = list(_block.finditer(chain))
    if not blocks:
        return [invalid_value(_CHAIN, chain, "issued certificate chain must contain at least one certificate")]
    certificates: list[x509.Certificate] = []
    for i, block in enumerate(blocks):
        if block[1] != "CERTIFICATE":
            why = "issued certificate chain must consist entirely of CERTIFICATE PEM blocks"
            return [invalid_value(_CHAIN, chain, why)]
        try:
            certificates.append(x509.load_pem_x509_certificate(block[0].encode()))
        except ValueError:
            which = "intermediate" if i else "leaf"
            return [invalid_value(_CHAIN, chain, f"{which} certificate does not parse as valid X.509")]
    leaf = certificates[0]
    if _der(leaf.public_key()) != _der(_wanted_key(spec)):
        return [invalid_value(_CHAIN, chain, "leaf certificate was not issued to the requested public key")]
    return _times(spec, status, leaf, now)


def _wanted_key(spec: Obj) -> Any:
    if request := spec.get("stubPKCS10Request"):
        return x509.load_der_x509_csr(b64decode(request)).public_key()
    return load_der_public_key(b64decode(spec.get("pkixPublicKey") or ""))


def _der(key: Any) -> bytes:
    der: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def _times(spec: Obj, status: Obj, leaf: x509.Certificate, now: datetime) -> list[FieldError]:
    """The status repeats the certificate's times, and says when to ask again."""
    issued = "must be present and consistent with the issued certificate"
    wanted = (
        ("notBefore", issued),
        ("notAfter", issued),
        ("beginRefreshAt", "must be present and in the range [notbefore+10min, notafter-10min]"),
    )
    if missing := [required(f"status.{key}", why) for key, why in wanted if not status.get(key)]:
        return missing
    start, end, refresh = (parse_rfc3339(status[key]) for key, _ in wanted)
    lifetime, margin = leaf.not_valid_after_utc - leaf.not_valid_before_utc, timedelta(minutes=10)
    longest = spec.get("maxExpirationSeconds") or 0
    for wrong, path, value, why in (
        (
            start != leaf.not_valid_before_utc,
            "status.notBefore",
            status["notBefore"],
            "must be set to the NotBefore time encoded in the leaf certificate",
        ),
        (
            abs(start - now) > timedelta(minutes=5),
            "status.notBefore",
            status["notBefore"],
            "must be set to within 5 minutes of kube-apiserver's current time",
        ),
        (
            end != leaf.not_valid_after_utc,
            "status.notAfter",
            status["notAfter"],
            "must be set to the NotAfter time encoded in the leaf certificate",
        ),
        (
            lifetime < timedelta(hours=1),
            _CHAIN,
            int(lifetime.total_seconds() * 1e9),
            "leaf certificate lifetime must be >= 1 hour",
        ),
        (
            lifetime > timedelta(seconds=longest),
            _CHAIN,
            int(lifetime.total_seconds() * 1e9),
            f"leaf certificate lifetime must be <= spec.maxExpirationSeconds ({longest})",
        ),
        (
            refresh < start + margin,
            "status.beginRefreshAt",
            status["beginRefreshAt"],
            "must be at least 10 minutes after status.notBefore",
        ),
        (
            refresh > end - margin,
            "status.beginRefreshAt",
            status["beginRefreshAt"],
            "must be at least 10 minutes before status.notAfter",
        ),
    ):
        if wrong:
            return [invalid_value(path, value, why)]
    return []
