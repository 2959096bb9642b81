"""Client certificates: who they name, and the front proxy that is known by one.

The handshake takes any certificate (`http/server.py`), so that a wrong one is answered with 401 as upstream does;
whether it comes from an authority, over intermediates that the client sent, and is in its time is asked here. The
users' authority and the front proxy's are apart: the proxy's must not make users. What was found of a certificate
is kept, so a request on a known connection costs one look-up.

Source: k8s.io/apiserver pkg/authentication/request/x509, headerrequest.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from berg.apiserver.auth import name_constraints
from berg.apiserver.auth.authentication import AUTHENTICATED, CREDENTIAL_ID, Unauthorized
from berg.apiserver.http.message import Request, User
from berg.machinery.metrics import Cell

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_KNOWN = 10_000
MAX_DEPTH = 8
UID = "1.3.6.1.4.1.57683.2"
_HOUR, _DAY = 3600.0, 86_400.0
_LEFT_S = (0.0, _HOUR / 2, _HOUR, 2 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 4 * _DAY, 7 * _DAY, 30 * _DAY,
           90 * _DAY, 180 * _DAY, 360 * _DAY)  # fmt: skip


@dataclass(slots=True, frozen=True)
class Verified:
    """A certificate with a chain to an authority; the times are those that the whole chain is good in."""

    certificate: Certificate
    not_before: float
    not_after: float


class Authorities:
    """The certificates of one file."""

    def __init__(self, ca_file: str, now: Callable[[], float] = time.time) -> None:
        self._file = ca_file
        self.now = now
        self.reload()

    def reload(self) -> None:
        from cryptography import x509

        self._roots = x509.load_pem_x509_certificates(Path(self._file).read_bytes())
        self._known: dict[tuple[bytes, ...], Verified | None] = {}

    def verify(self, request: Request) -> Verified:
        """What the client's certificate is. Raises Unauthorized."""
        assert request.peer_certificate is not None
        chain = (request.peer_certificate, *request.peer_intermediates)
        found = self._known.get(chain)
        if found is None and chain not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            found = self._known[chain] = self._find(chain)
        if found is None:
            raise Unauthorized("x509: certificate signed by unknown authority")
        now = self.now()
        if not found.not_before <= now <= found.not_after:
            raise Unauthorized("x509: certificate has expired or is not yet valid")
        return found

    def _find(self, chain: Sequence[bytes]) -> Verified | None:
        from cryptography import x509

        try:
            leaf, *others = (x509.load_der_x509_certificate(der) for der in chain)
        except ValueError:
            return None
        path = self._path(leaf, others, 0)
        if path is None or not _for_clients(leaf):
            return None
        if not name_constraints.hold(path):
            return None
        starts = max(c.not_valid_before_utc for c in path).timestamp()
        return Verified(leaf, starts, min(c.not_valid_after_utc for c in path).timestamp())

    def _path(self, certificate: Certificate, others: list[Certificate], depth: int) -> list[Certificate] | None:
        """The certificate, what issued it, and so on up to one of ours."""
        for root in self._roots:
            if certificate == root:
                return [certificate]
            if _issued_by(certificate, root) and _not_too_far(root, depth):
                return [certificate, root]
        if depth < MAX_DEPTH:
            for other in others:
                if other != certificate and _may_issue(other, depth) and _issued_by(certificate, other):
                    above = self._path(other, others, depth + 1)
                    if above is not None:
                        return [certificate, *above]
        return None


def _issued_by(certificate: Certificate, authority: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:
        return False
    return True


def _may_issue(certificate: Certificate, depth: int) -> bool:
    from cryptography import x509

    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and (constraints.path_length is None or depth <= constraints.path_length)


def _not_too_far(root: Certificate, depth: int) -> bool:
    """An authority of ours need not say that it is one, but what it says of its distance counts."""
    from cryptography import x509

    try:
        constraints = root.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return True
    return constraints.path_length is None or depth <= constraints.path_length


def _for_clients(certificate: Certificate) -> bool:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usages or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages


class X509:
    """CN is the name, each O a group."""

    def __init__(self, authorities: Authorities) -> None:
        self.authorities = authorities
        self._users: dict[bytes, User | None] = {}
        self.left = Cell(_LEFT_S)
        """how long certificates that were shown are still good"""

    def authenticate(self, request: Request) -> User | None:
        der = request.peer_certificate
        if der is None:
            return None
        verified = self.authorities.verify(request)
        self.left.observe(verified.not_after - self.authorities.now())
        user = self._users.get(der)
        if user is None:
            if len(self._users) >= MAX_KNOWN:
                self._users.clear()
            user = self._users[der] = _user(der, verified.certificate)
        return user


def _user(der: bytes, certificate: Certificate) -> User | None:
    from cryptography.x509.oid import NameOID, ObjectIdentifier

    subject = certificate.subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names or not names[-1].value:
        return None
    uids = [str(a.value) for a in subject.get_attributes_for_oid(ObjectIdentifier(UID))]
    if len(uids) > 1:
        raise Unauthorized(f"expected 1 UID, but found multiple: {uids}")
    if uids == [""]:
        raise Unauthorized("UID cannot be an empty string")
    groups = (str(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    return User(
        str(names[-1].value),
        uids[0] if uids else "",
        (*groups, AUTHENTICATED),
        {CREDENTIAL_ID: [f"X509SHA256={hashlib.sha256(der).hexdigest()}"]},
    )


class RequestHeader:
    """A front proxy, known by its certificate, says who asks."""

    def __init__(
        self,
        authorities: Authorities,
        allowed_names: Sequence[str],
        username_headers: Sequence[str],
        group_headers: Sequence[str],
        extra_prefixes: Sequence[str],
        uid_headers: Sequence[str] = (),
    ) -> None:
        self.authorities = authorities
        self._allowed = frozenset(allowed_names)
        self._user = [h.lower() for h in username_headers]
        self._uid = [h.lower() for h in uid_headers]
        self._group = [h.lower() for h in group_headers]
        self._extra = tuple(p.lower() for p in extra_prefixes)

    def authenticate(self, request: Request) -> User | None:
        """Raises Unauthorized: whoever names a user must be the proxy. Who names none is left to other methods."""
        headers = request.headers
        name = next((headers[h] for h in self._user if headers.get(h)), "").partition("\n")[0]
        if not name or request.peer_certificate is None:
            return None
        self._must_be_proxy(request)
        uid = next((headers[h] for h in self._uid if headers.get(h)), "").partition("\n")[0]
        groups = tuple(g for h in self._group if h in headers for g in headers[h].split("\n") if g)
        extra: dict[str, list[str]] = {}
        for prefix in self._extra:
            for header, values in headers.items():
                if header.startswith(prefix):
                    extra.setdefault(unquote(header[len(prefix) :]), []).extend(values.split("\n"))
        for h in [*self._user, *self._uid, *self._group, *(h for h in headers if h.startswith(self._extra))]:
            headers.pop(h, None)
        return User(name, uid, groups, extra)

    def _must_be_proxy(self, request: Request) -> None:
        from cryptography.x509.oid import NameOID

        certificate = self.authorities.verify(request).certificate
        names = {str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
        if self._allowed and not self._allowed & names:
            raise Unauthorized(f"x509: subject with cn={', '.join(names)} is not in the allowed list")
