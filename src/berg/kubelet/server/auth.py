"""Who asks the kubelet, and may they: client certificates of the cluster's CA, tokens by TokenReview, and
SubjectAccessReview on `nodes/…`. Answers are kept for a short while, as upstream keeps them.

Source: pkg/kubelet/server/auth.go, cmd/kubelet/app/auth.go.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from berg.client.rest import Client
from berg.kubelet.server.http import Request
from berg.machinery.clock import Clock
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

TOKEN_TTL_S = 120.0
ALLOWED_TTL_S = 300.0
DENIED_TTL_S = 30.0
MAX_CACHED = 1000


@dataclass(frozen=True, slots=True)
class User:
    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = field(default_factory=dict, hash=False)


def from_certificate(peer: Any) -> User | None:
    """The name and groups of a verified certificate: its CN and its O's."""
    names: list[str] = []
    groups: list[str] = []
    for relative in peer.get("subject") or ():
        for key, value in relative:
            if key == "commonName":
                names.append(value)
            elif key == "organizationName":
                groups.append(value)
    return User(names[-1], groups=(*groups, "system:authenticated")) if names else None


# Path prefix → subresource of the node; what is none of these is nodes/proxy.
SUBRESOURCES = {
    "/stats": ("stats",),
    "/metrics": ("metrics",),
    "/logs": ("log",),
    "/checkpoint": ("checkpoint",),
    "/statusz": ("statusz",),
    "/flagz": ("flagz",),
    "/configz": ("configz",),
    "/pods": ("pods",),
    "/runningpods": ("pods",),
    "/healthz": ("healthz",),
}
VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def attributes(request: Request) -> tuple[str, list[str]]:
    """(verb, the node's subresources any of which is enough). Source: KEP-2862."""
    found: list[str] = []
    for prefix, names in SUBRESOURCES.items():
        if request.path == prefix or request.path.startswith(prefix + "/"):
            found = list(names)
            break
    coarse = found[0] in ("stats", "metrics", "log", "checkpoint") if found else False
    return VERBS.get(request.method, ""), found if coarse else [*found, "proxy"]


class Authorizer:
    def __init__(
        self, client: Client, clock: Clock, node_name: str, *, anonymous: bool, webhook: bool, mode: str
    ) -> None:
        self._client = client
        self._clock = clock
        self._node_name = node_name
        self._anonymous = anonymous
        self._webhook = webhook
        self._mode = mode
        self._tokens: dict[bytes, tuple[float, User | None]] = {}
        self._decisions: dict[Any, tuple[float, bool, str]] = {}

    async def authenticate(self, request: Request) -> User | None:
        if request.peer is not None and (user := from_certificate(request.peer)) is not None:
            return user
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token and self._webhook:
            return await self._review(token.strip())
        if self._anonymous and not token:
            return User("system:anonymous", groups=("system:unauthenticated",))
        return None

    async def _review(self, token: str) -> User | None:
        key, now = hashlib.sha256(token.encode()).digest(), self._clock.monotonic()
        if (known := self._tokens.get(key)) is not None and known[0] > now:
            return known[1]
        review: Obj = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        try:
            answer = await self._client.create(resource("tokenreviews.authentication.k8s.io"), review)
        except ApiError:
            return None
        status = answer.get("status") or {}
        user = None
        if status.get("authenticated"):
            u = status.get("user") or {}
            user = User(u.get("username", ""), u.get("uid", ""), tuple(u.get("groups") or ()), u.get("extra") or {})
        if len(self._tokens) >= MAX_CACHED:
            self._tokens.clear()
        self._tokens[key] = (now + TOKEN_TTL_S, user)
        return user

    async def allowed(self, user: User, request: Request) -> tuple[bool, str]:
        """(yes or no, what the 403 names)."""
        verb, subresources = attributes(request)
        if self._mode == "AlwaysAllow":
            return True, ""
        for sub in subresources:
            if await self._may(user, verb, sub):
                return True, ""
        return False, (
            f"Forbidden (user={user.name}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(subresources)}])"
        )

    async def _may(self, user: User, verb: str, subresource: str) -> bool:
        key, now = (user.name, user.groups, verb, subresource), self._clock.monotonic()
        if (known := self._decisions.get(key)) is not None and known[0] > now:
            return known[1]
        review: Obj = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "uid": user.uid,
                "groups": list(user.groups),
                "extra": user.extra,
                "resourceAttributes": {
                    "verb": verb,
                    "group": "",
                    "version": "v1",
                    "resource": "nodes",
                    "subresource": subresource,
                    "name": self._node_name,
                },
            },
        }
        try:
            answer = await self._client.create(resource("subjectaccessreviews.authorization.k8s.io"), review)
        except ApiError:
            return False
        ok = bool((answer.get("status") or {}).get("allowed"))
        if len(self._decisions) >= MAX_CACHED:
            self._decisions.clear()
        self._decisions[key] = (now + (ALLOWED_TTL_S if ok else DENIED_TTL_S), ok, "")
        return ok
