"""Authentication: who sends this request? Each method is a small class; the first that knows the caller decides.

A method answers None when the request carries nothing for it, and raises `Unauthorized` when what it carries is
wrong. With nothing to go by the caller is `system:anonymous`, if that is allowed.

Nearly every answer is there at once. What has to ask somebody else (a webhook, an issuer's keys) gives an awaitable
of its answer instead, and whoever asked waits for it; a request that needs none of that never leaves the loop.

Source: k8s.io/apiserver pkg/authentication.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from berg.apiserver.http.message import Request, User
from berg.machinery.status import ApiError, unauthorized

log = logging.getLogger(__name__)

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = User("system:anonymous", groups=(UNAUTHENTICATED,))
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"


class Unauthorized(Exception):
    """A credential was given and is not good; the text is for the log, the client only sees 401."""


Identified = User | None
Found = tuple[User, list[str]] | None
"""The user, and the audiences (of those asked for) that the token is good for; None: not a token of this method."""


class Authenticator(Protocol):
    def authenticate(self, request: Request) -> Identified | Awaitable[Identified]: ...


class TokenAuthenticator(Protocol):
    def authenticate_token(self, token: str, audiences: Sequence[str]) -> Found | Awaitable[Found]:
        """`audiences` empty: the API server's own."""
        ...


@dataclass(slots=True, frozen=True)
class Anonymous:
    """Whether somebody without credentials is `system:anonymous`; with `paths`, only there."""

    enabled: bool = True
    paths: frozenset[str] = frozenset()

    def user(self, request: Request) -> User:
        """Raises ApiError 401."""
        if not self.enabled or (self.paths and request.path not in self.paths):
            raise unauthorized()
        return ANONYMOUS


class Authentication:
    def __init__(self, methods: Sequence[Authenticator], *, anonymous: Anonymous) -> None:
        self.methods = methods
        self.anonymous = anonymous

    def authenticate(self, request: Request) -> User | Awaitable[User]:
        """Raises ApiError 401, at once or when awaited."""
        return self._ask(request, iter(self.methods), wrong=False)

    def _ask(self, request: Request, methods: Iterator[Authenticator], *, wrong: bool) -> User | Awaitable[User]:
        for method in methods:
            try:
                found = method.authenticate(request)
            except Unauthorized as e:
                log.debug("%s", e)
                wrong = True
                continue
            if found is None:
                continue
            if not isinstance(found, User):
                return self._wait(request, found, methods, wrong=wrong)
            return _authenticated(found)
        if wrong:
            raise unauthorized()
        return self.anonymous.user(request)

    async def _wait(
        self, request: Request, answer: Awaitable[Identified], methods: Iterator[Authenticator], *, wrong: bool
    ) -> User:
        try:
            found = await answer
        except Unauthorized as e:
            log.debug("%s", e)
            found, wrong = None, True
        if found is not None:
            return _authenticated(found)
        user = self._ask(request, methods, wrong=wrong)
        return user if isinstance(user, User) else await user


def _authenticated(user: User) -> User:
    if AUTHENTICATED in user.groups or UNAUTHENTICATED in user.groups:
        return user
    return replace(user, groups=(*user.groups, AUTHENTICATED))


_EXTRA_SPACE = "the provided authorization header contains extra space before the bearer token, and is ignored"


class Bearer:
    """`Authorization: Bearer …`, or the WebSocket subprotocol that carries a token; tokens go to each method."""

    PROTOCOL = "base64url.bearer.authorization.k8s.io."

    def __init__(self, methods: Sequence[TokenAuthenticator]) -> None:
        self.methods = methods

    def authenticate(self, request: Request) -> Identified | Awaitable[Identified]:
        header = request.headers.get("authorization")
        token = ""
        if header is not None:
            scheme, *rest = header.split(" ", 2)
            token = rest[0] if rest and scheme.lower() == "bearer" else ""
            if rest and not token and scheme.lower() == "bearer" and rest[1:]:
                request.attributes.setdefault("warnings", []).append(_EXTRA_SPACE)
        elif "sec-websocket-protocol" in request.headers and request.headers.get("upgrade", "").lower() == "websocket":
            token = self._from_protocols(request)
        if not token:
            return None
        found = self.authenticate_token(token, ())
        if found is None:
            raise Unauthorized("invalid bearer token")
        return found[0] if isinstance(found, tuple) else _user_of(found)

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> Found | Awaitable[Found]:
        """Raises Unauthorized when methods know the token and find it wrong: what each says of it."""
        return self._ask(token, audiences, iter(self.methods), [])

    def _ask(
        self, token: str, audiences: Sequence[str], methods: Iterator[TokenAuthenticator], wrong: list[str]
    ) -> Found | Awaitable[Found]:
        for method in methods:
            try:
                found = method.authenticate_token(token, audiences)
            except Unauthorized as e:
                wrong.append(str(e))
                continue
            if found is None:
                continue
            if isinstance(found, tuple):
                return found
            return self._wait(token, audiences, found, methods, wrong)
        if wrong:
            raise Unauthorized(wrong[0] if len(wrong) == 1 else ", ".join(dict.fromkeys(wrong)))
        return None

    async def _wait(
        self,
        token: str,
        audiences: Sequence[str],
        answer: Awaitable[Found],
        methods: Iterator[TokenAuthenticator],
        wrong: list[str],
    ) -> Found:
        try:
            found = await answer
        except Unauthorized as e:
            wrong.append(str(e))
            found = None
        if found is not None:
            return found
        last = self._ask(token, audiences, methods, wrong)
        return last if last is None or isinstance(last, tuple) else await last

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


async def _user_of(answer: Awaitable[Found]) -> User:
    found = await answer
    if found is None:
        raise Unauthorized("invalid bearer token")
    return found[0]


class TokenFile:
    """`--token-auth-file`: lines of token,user,uid,"group1,group2"."""

    def __init__(self, path: str) -> None:
        self._users: dict[str, User] = {}
        with open(path, newline="") as f:
            for row in csv.reader(f):
                if len(row) >= 3 and not row[0].startswith("#"):
                    groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if len(row) > 3 else ()
                    user = User(row[1].strip(), row[2].strip(), groups)
                    self._users[row[0].strip()] = _authenticated(user)  # once, not for each request

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]] | None:
        user = self._users.get(token)
        return None if user is None else (user, list(audiences))


class StaticTokens:
    """Tokens known to this process alone, such as the one its own parts use."""

    def __init__(self, users: dict[str, User]) -> None:
        self.users = {token: _authenticated(user) for token, user in users.items()}

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]] | None:
        user = self.users.get(token)
        return None if user is None else (user, list(audiences))


__all__ = [
    "ANONYMOUS",
    "AUTHENTICATED",
    "Anonymous",
    "ApiError",
    "Authentication",
    "Bearer",
    "StaticTokens",
    "TokenFile",
    "Unauthorized",
]
