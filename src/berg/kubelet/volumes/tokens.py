"""Service account tokens for projected volumes: requested once, renewed in time.

A token is renewed when 80 % of its life is over, or when it is older than 24 hours.

Source: pkg/kubelet/token/token_manager.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from berg.client.rest import Client
from berg.kubelet import pod as p
from berg.machinery.clock import Clock, parse_rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

DEFAULT_EXPIRATION_S = 3600
MAX_TTL_S = 24 * 3600


@dataclass(slots=True)
class _Token:
    text: str
    expires: float
    lifetime: float

    def renew_at(self) -> float:
        begun = self.expires - self.lifetime
        return min(begun + self.lifetime * 0.8, begun + MAX_TTL_S)


class TokenManager:
    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._tokens: dict[tuple[str, str, str, int], _Token] = {}

    async def get(self, pod: Obj, source: Obj) -> str:
        """Raises ApiError. A token that could not be renewed is used as long as it is valid."""
        audience = source.get("audience") or ""
        seconds = int(source.get("expirationSeconds") or DEFAULT_EXPIRATION_S)
        key = (p.uid(pod), pod["spec"].get("serviceAccountName") or "default", audience, seconds)
        now = self._clock.now().timestamp()
        held = self._tokens.get(key)
        if held is not None and now < held.renew_at():
            return held.text
        try:
            held = await self._request(pod, key[1], audience, seconds)
        except ApiError:
            if held is not None and now < held.expires:
                return held.text
            raise
        self._tokens[key] = held
        return held.text

    async def _request(self, pod: Obj, account: str, audience: str, seconds: int) -> _Token:
        bound = {"apiVersion": "v1", "kind": "Pod", "name": p.name(pod), "uid": p.uid(pod)}
        request: Obj = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": seconds,
                "boundObjectRef": bound,
                "audiences": [audience] if audience else [],
            },
        }
        answer = await self._client.create(
            resource("serviceaccounts"), request, p.namespace(pod), name=account, subresource="token"
        )
        expires = parse_rfc3339(answer["status"]["expirationTimestamp"]).timestamp()
        return _Token(answer["status"]["token"], expires, expires - self._clock.now().timestamp())

    def next_renewal(self, uid: str) -> float | None:
        """When the next token of this pod must be renewed (wall seconds)."""
        times = [t.renew_at() for key, t in self._tokens.items() if key[0] == uid]
        return min(times) if times else None

    def forget(self, uid: str) -> None:
        for key in [k for k in self._tokens if k[0] == uid]:
            del self._tokens[key]
