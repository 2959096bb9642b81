"""What a user who has logged in shows instead of the password: `--auth-token`.

`simple`   known to this process only, and gone some minutes after its last use
`jwt`      signed, so every member and every other program with the public key can check it; it names the revision
           of users and roles it was made at, and is refused once they have changed

Source: etcd server/auth/simple_token.go, jwt.go, options.go.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Protocol

from berg.machinery.clock import Clock
from berg.machinery.duration import seconds

SIMPLE_TTL_S, JWT_TTL_S = 300.0, 300.0
_INVALID = "auth: invalid auth options"


class Tokens(Protocol):
    def assign(self, name: str, auth_revision: int, store_revision: int) -> str:
        """A new token. Raises ValueError where tokens can only be checked."""
        ...

    def who(self, token: str) -> tuple[str, int | None] | None:
        """(the user's name, the revision of users and roles the token holds for); None: the token is no good."""
        ...

    def forget(self, name: str | None = None) -> None:
        """Ends the tokens of a user, or all, as far as they can be ended."""
        ...


class SimpleTokens:
    def __init__(self, clock: Clock, ttl_s: float = SIMPLE_TTL_S) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._known: dict[str, tuple[str, float]] = {}

    def assign(self, name: str, auth_revision: int, store_revision: int) -> str:
        token = f"{secrets.token_urlsafe(16)}.{store_revision}"
        now = self._clock.monotonic()
        self._known = {t: known for t, known in self._known.items() if known[1] >= now}
        self._known[token] = (name, now + self._ttl_s)
        return token

    def who(self, token: str) -> tuple[str, int | None] | None:
        known = self._known.get(token)
        now = self._clock.monotonic()
        if known is None or known[1] < now:
            self._known.pop(token, None)
            return None
        self._known[token] = (known[0], now + self._ttl_s)
        return known[0], None

    def forget(self, name: str | None = None) -> None:
        self._known = {t: known for t, known in self._known.items() if name is not None and known[0] != name}


class JWTTokens:
    def __init__(self, clock: Clock, options: dict[str, str]) -> None:
        """Raises ValueError, OSError."""
        import jwt

        self._jwt = jwt
        self._clock = clock
        self._method = options.get("sign-method", "")
        self._ttl_s = seconds(options["ttl"]) if options.get("ttl") else JWT_TTL_S
        if self._method not in jwt.algorithms.get_default_algorithms() or self._method == "none":
            raise ValueError("auth: invalid auth signing method")
        self._private, self._public = _keys(self._method, options.get("priv-key", ""), options.get("pub-key", ""))

    def assign(self, name: str, auth_revision: int, store_revision: int) -> str:
        if self._private is None:
            raise ValueError("auth: token signing attempted with verify-only key")
        expires = int(self._clock.now().timestamp() + self._ttl_s)
        claims = {"username": name, "revision": auth_revision, "exp": expires}
        return self._jwt.encode(claims, self._private, algorithm=self._method)

    def who(self, token: str) -> tuple[str, int | None] | None:
        try:
            claims = self._jwt.decode(token, self._public, algorithms=[self._method], options={"verify_exp": False})
        except self._jwt.PyJWTError:
            return None
        name, revision, expires = claims.get("username"), claims.get("revision"), claims.get("exp")
        if not isinstance(name, str) or not isinstance(revision, int | float):
            return None
        if isinstance(expires, int | float) and expires < self._clock.now().timestamp():
            return None
        return name, int(revision)

    def forget(self, name: str | None = None) -> None:
        pass  # the revision in them ends them: whatever asks for this changes it


def _keys(method: str, private_file: str, public_file: str) -> tuple[Any, Any]:
    """(to sign with, to check with); None for the first when there is only a public key."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    private = Path(private_file).read_bytes() if private_file else b""
    public = Path(public_file).read_bytes() if public_file else b""
    if method.startswith("HS"):
        if not private:
            raise ValueError("auth: missing key data")
        return private, private
    checked: Any = load_pem_public_key(public) if public else None
    if not private:
        if checked is None:
            raise ValueError("auth: missing key data")
        return None, checked
    signing: Any = load_pem_private_key(private, password=None)
    if checked is not None and checked != signing.public_key():
        raise ValueError("auth: public and private keys don't match")
    return signing, signing.public_key()


def open_tokens(flag: str, clock: Clock, simple_ttl_s: float = SIMPLE_TTL_S) -> Tokens:
    """Of etcd's flag: `simple`, or `jwt,pub-key=…,priv-key=…,sign-method=…,ttl=…`. Raises ValueError, OSError."""
    kind, *rest = flag.split(",")
    options: dict[str, str] = {}
    for option in rest:
        name, equals, value = option.partition("=")
        if not equals or "=" in value or name in options:
            raise ValueError(_INVALID)
        options[name] = value
    if kind == "simple":
        return SimpleTokens(clock, simple_ttl_s)
    if kind == "jwt":
        return JWTTokens(clock, options)
    raise ValueError(_INVALID)
