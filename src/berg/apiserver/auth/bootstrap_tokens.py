"""Bootstrap tokens: short-lived ones that lie in Secrets, with which nodes join.

Source: kubernetes plugin/pkg/auth/authenticator/token/bootstrap.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence

from berg.apiserver.auth.serviceaccount import Lookup
from berg.apiserver.http.message import User
from berg.machinery.clock import Clock, parse_rfc3339

_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


class BootstrapTokens:
    """`ID.SECRET` of a Secret `bootstrap-token-ID` in kube-system."""

    def __init__(self, lookup: Lookup, clock: Clock) -> None:
        self._lookup = lookup
        self._clock = clock

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]] | None:
        identity, dot, secret = token.partition(".")
        if not dot or len(identity) != 6 or len(secret) != 16:
            return None
        found = self._lookup("secrets", "kube-system", f"bootstrap-token-{identity}")
        if found is None or found["metadata"].get("deletionTimestamp"):
            return None
        if found.get("type") != "bootstrap.kubernetes.io/token":
            return None
        data = {k: base64.b64decode(v).decode("utf-8", "replace") for k, v in (found.get("data") or {}).items()}
        if data.get("token-id") != identity or not hmac.compare_digest(
            data.get("token-secret", "").encode(), secret.encode()
        ):
            return None
        if data.get("usage-bootstrap-authentication") != "true" or self._is_expired(data.get("expiration", "")):
            return None
        extra = [g for g in data.get("auth-extra-groups", "").split(",") if g]
        if not all(map(_GROUP.fullmatch, extra)):
            return None
        groups = sorted({"system:bootstrappers", *extra})
        return User(f"system:bootstrap:{identity}", "", tuple(groups)), list(audiences)

    def _is_expired(self, text: str) -> bool:
        if not text:
            return False
        try:
            return self._clock.now() > parse_rfc3339(text)
        except ValueError:
            return True
