"""Authentication: who sends this request? Each method is a small class; the first that knows the caller decides.

A method answers None when the request carries nothing for it, and raises `Unauthorized` when what it carries is
wrong. With nothing to go by the caller is `system:anonymous`, if that is allowed.

Source: k8s.io/apiserver pkg/authentication.
"""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from berg.apiserver.http.message import Request, User
from berg.machinery.status import ApiError, unauthorized

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = User("system:anonymous", groups=(UNAUTHENTICATED,))
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"


class Unauthorized(Exception):
    """A credential was given and is not good; the text is for the log, the client only sees 401."""


class Authenticator(Protocol):
    def authenticate(self, request: Request) -> User | None: ...


class TokenAuthenticator(Protocol):
    def authenticate_token(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]] | None:
        """The user, and the audiences (of those asked for) that the token is good for. `audiences` empty: the
        API server's own."""
        ...


class Authentication:
    def __init__(self, methods: Sequence[Authenticator], *, anonymous: bool) -> None:
        self.methods = methods
        self.anonymous = anonymous

    def authenticate(self, request: Request) -> User:
        """Raises ApiError 401."""
        wrong = False
        for method in self.methods:
            try:
                user = method.authenticate(request)
            except Unauthorized:
                wrong = True
                continue
            if user is not None:
                if AUTHENTICATED in user.groups or UNAUTHENTICATED in user.groups:
                    return user
                return replace(user, groups=(*user.groups, AUTHENTICATED))
        if wrong or not self.anonymous:
            raise unauthorized()
        return ANONYMOUS


class X509:
    """A client certificate from the cluster's authority: CN is the name, each O a group.

    The handshake has verified the chain against all authorities that this server trusts; whether it is *this*
    one is asked here, since the front proxy's authority must not make users.
    """

    def __init__(self, ca_file: str) -> None:
        from cryptography import x509

        self._authorities = x509.load_pem_x509_certificates(Path(ca_file).read_bytes())
        self._known: dict[bytes, tuple[User, float] | None] = {}

    def authenticate(self, request: Request) -> User | None:
        der = request.peer_certificate
        if der is None:
            return None
        found = self._known.get(der, False)
        if found is False:
            if len(self._known) > 10_000:
                self._known.clear()
            found = self._known[der] = self._read(der)
        if found is None:
            return None
        user, not_after = found  # type: ignore[misc]
        if time.time() > not_after:
            raise Unauthorized("certificate has expired")
        return user

    def _read(self, der: bytes) -> tuple[User, float] | None:
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

        certificate = x509.load_der_x509_certificate(der)
        if not any(issued_by(certificate, ca) for ca in self._authorities):
            return None
        try:
            usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            if (
                ExtendedKeyUsageOID.CLIENT_AUTH not in usages
                and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usages
            ):
                return None
        except x509.ExtensionNotFound:
            pass
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if not names:
            return None
        groups = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        uids = certificate.subject.get_attributes_for_oid(ObjectIdentifier("1.3.6.1.4.1.57683.2"))
        user = User(
            str(names[0].value),
            str(uids[0].value) if uids else "",
            (*(str(g.value) for g in groups), AUTHENTICATED),
            {CREDENTIAL_ID: [f"X509SHA256={hashlib.sha256(der).hexdigest()}"]},
        )
        return user, certificate.not_valid_after_utc.timestamp()


def issued_by(certificate: object, authority: object) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)  # type: ignore[attr-defined]
    except Exception:
        return False
    return True


class RequestHeader:
    """A front proxy, known by its certificate, says who asks."""

    def __init__(
        self,
        ca_file: str,
        allowed_names: Sequence[str],
        username_headers: Sequence[str],
        group_headers: Sequence[str],
        extra_prefixes: Sequence[str],
    ) -> None:
        from cryptography import x509

        self._authorities = x509.load_pem_x509_certificates(Path(ca_file).read_bytes())
        self._allowed = frozenset(allowed_names)
        self._user = [h.lower() for h in username_headers]
        self._group = [h.lower() for h in group_headers]
        self._extra = [p.lower() for p in extra_prefixes]
        self._proxies: dict[bytes, bool] = {}

    def authenticate(self, request: Request) -> User | None:
        name = next((request.headers[h] for h in self._user if request.headers.get(h)), "")
        if not name or request.peer_certificate is None:
            return None
        der = request.peer_certificate
        trusted = self._proxies.get(der)
        if trusted is None:
            trusted = self._proxies[der] = self._is_proxy(der)
        if not trusted:
            return None
        headers = request.headers
        groups = tuple(g for h in self._group if h in headers for g in headers[h].split("\n"))
        extra = {
            unquote(h[len(prefix) :]): headers[h].split("\n")
            for prefix in self._extra
            for h in headers
            if h.startswith(prefix)
        }
        for h in [*self._user, *self._group, *(h for h in headers if h.startswith(tuple(self._extra)))]:
            headers.pop(h, None)
        return User(name, "", groups, extra)

    def _is_proxy(self, der: bytes) -> bool:
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        certificate = x509.load_der_x509_certificate(der)
        if not any(issued_by(certificate, ca) for ca in self._authorities):
            return False
        names = {str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
        return not self._allowed or bool(self._allowed & names)


class Bearer:
    """`Authorization: Bearer …`, or the WebSocket subprotocol that carries a token; tokens go to each method."""

    PROTOCOL = "base64url.bearer.authorization.k8s.io."

    def __init__(self, methods: Sequence[TokenAuthenticator]) -> None:
        self.methods = methods

    def authenticate(self, request: Request) -> User | None:
        header = request.headers.get("authorization")
        token = ""
        if header is not None:
            scheme, _, rest = header.partition(" ")
            token = rest.strip() if scheme.lower() == "bearer" else ""
        elif "sec-websocket-protocol" in request.headers:
            token = self._from_protocols(request)
        if not token:
            return None
        found = self.authenticate_token(token, ())
        if found is None:
            raise Unauthorized("invalid bearer token")
        return found[0]

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]] | None:
        """Raises Unauthorized when a method knows the token and finds it wrong."""
        wrong: Unauthorized | None = None
        for method in self.methods:
            try:
                found = method.authenticate_token(token, audiences)
            except Unauthorized as e:
                wrong = e
                continue
            if found is not None:
                return found
        if wrong is not None:
            raise wrong
        return None

    def _from_protocols(self, request: Request) -> str:
        import base64
        import binascii

        offered = [p.strip() for p in request.headers["sec-websocket-protocol"].split(",")]
        for protocol in offered:
            if protocol.startswith(self.PROTOCOL):
                encoded = protocol[len(self.PROTOCOL) :]
                rest = [p for p in offered if p != protocol]
                request.headers["sec-websocket-protocol"] = ", ".join(rest)
                try:
                    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
                except (binascii.Error, UnicodeDecodeError):
                    raise Unauthorized("bad token in WebSocket protocol") from None
        return ""


class TokenFile:
    """`--token-auth-file`: lines of token,user,uid,"group1,group2"."""

    def __init__(self, path: str) -> None:
        self._users: dict[str, User] = {}
        with open(path, newline="") as f:
            for row in csv.reader(f):
                if len(row) >= 3 and not row[0].startswith("#"):
                    groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if len(row) > 3 else ()
                    self._users[row[0].strip()] = User(row[1].strip(), row[2].strip(), groups)

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]] | None:
        user = self._users.get(token)
        return None if user is None else (user, list(audiences))


class StaticTokens:
    """Tokens known to this process alone, such as the one its own parts use."""

    def __init__(self, users: dict[str, User]) -> None:
        self.users = users

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]] | None:
        user = self.users.get(token)
        return None if user is None else (user, list(audiences))


__all__ = [
    "ANONYMOUS",
    "AUTHENTICATED",
    "ApiError",
    "Authentication",
    "Bearer",
    "RequestHeader",
    "StaticTokens",
    "TokenFile",
    "Unauthorized",
    "X509",
]
