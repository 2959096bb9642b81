"""Bootstrap tokens: the public cluster-info signed with each of them, and their end.

Source: pkg/controller/bootstrap, k8s.io/cluster-bootstrap.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

import orjson

from berg.controllers.context import APIController, Context
from berg.controllers.objects import time_of
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

TYPE = "bootstrap.kubernetes.io/token"
PREFIX = "jws-kubeconfig-"


def _data(secret: Obj, name: str) -> str:
    return base64.b64decode((secret.get("data") or {}).get(name) or "").decode(errors="replace")


def _expires_in(secret: Obj, ctx: Context) -> float | None:
    """Seconds; zero or less when it is over, None when it never is."""
    text = _data(secret, "expiration")
    if not text:
        return None
    try:
        at = time_of(text)
    except ValueError:
        return 0.0
    return (at - ctx.clock.now()).total_seconds() if at else None


def signature(content: str, token_id: str, secret: str) -> str:
    """A detached JWS (HS256) of `content` with the token as its key."""

    def encode(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    header = encode(orjson.dumps({"alg": "HS256", "kid": token_id}))
    key = f"{token_id}.{secret}".encode()
    mac = hmac.new(key, header + b"." + encode(content.encode()), hashlib.sha256).digest()
    return f"{header.decode()}..{encode(mac).decode()}"


class BootstrapSigner(APIController):
    name = "bootstrap-signer-controller"
    workers = 1

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("configmaps")
        self.secrets = ctx.informer("secrets", namespace="kube-system", field_selector=f"type={TYPE}")
        self.maps = ctx.informer("configmaps", namespace="kube-public", field_selector="metadata.name=cluster-info")
        for informer in (self.secrets, self.maps):
            informer.add_handler(self._poke, lambda old, new: self._poke(new), self._poke)

    def _poke(self, obj: Obj) -> None:
        self.queue.add("cluster-info")

    async def reconcile(self, key: str) -> None:
        cm = self.maps.lister.get("kube-public", "cluster-info")
        if cm is None or "kubeconfig" not in (cm.get("data") or {}):
            return
        data = {k: v for k, v in cm["data"].items() if not k.startswith(PREFIX)}
        for secret in self.secrets.lister:
            token_id, token = _data(secret, "token-id"), _data(secret, "token-secret")
            left = _expires_in(secret, self.ctx)
            if not token_id or not token or _data(secret, "usage-bootstrap-signing") != "true":
                continue
            if left is not None and left <= 0:
                continue
            data[PREFIX + token_id] = signature(cm["data"]["kubeconfig"], token_id, token)
        if data != cm["data"]:
            await self.client.update(self.resource, {**cm, "data": data})


class TokenCleaner(APIController):
    name = "token-cleaner-controller"
    workers = 1

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("secrets")
        self.secrets = ctx.informer("secrets", namespace="kube-system", field_selector=f"type={TYPE}")
        self.secrets.add_handler(self.enqueue, self.enqueue_changed)

    async def reconcile(self, key: str) -> None:
        secret = self.secrets.lister.get_key(key)
        if secret is None or (left := _expires_in(secret, self.ctx)) is None:
            return
        if left > 0:
            self.queue.add_after(key, left)
            return
        try:
            await self.client.delete(self.resource, meta.namespace(secret), meta.name(secret), uid=meta.uid(secret))
        except ApiError as e:
            if e.code not in (404, 409):
                raise
