"""Secrets of type kubernetes.io/service-account-token: filled with a token when they name a service account, and
deleted when that is gone. (Pods use bound tokens instead; these are for who asks for one that does not expire.)

Source: pkg/controller/serviceaccount/{tokens_controller,legacy_serviceaccount_token_cleaner}.go.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

from berg.controllers.context import APIController, Context
from berg.controllers.objects import time_of
from berg.controllers.pods import is_finished
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

TYPE = "kubernetes.io/service-account-token"
ACCOUNT_NAME = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"
LAST_USED = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
SINCE = "kube-apiserver-legacy-service-account-token-tracking"
BY_ACCOUNT = "service-account"


def _account_key(secret: Obj) -> str:
    return f"{meta.namespace(secret)}/{meta.annotations(secret).get(ACCOUNT_NAME, '')}"


class TokenController(APIController):
    name = "serviceaccount-token-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("secrets")
        self.accounts = ctx.informer("serviceaccounts")
        self.secrets = ctx.informer("secrets", field_selector=f"type={TYPE}")
        self.secrets.add_index(BY_ACCOUNT, lambda s: (_account_key(s),))
        self.secrets.add_handler(self.enqueue, self.enqueue_changed)
        self.accounts.add_handler(self._account, None, self._account)
        self._key: Any = None
        self._headers: dict[str, str] = {}
        self._algorithm = "RS256"
        self._ca = b""

    def _account(self, account: Obj) -> None:
        for secret in self.secrets.lister.by_index(BY_ACCOUNT, meta.key(account)):
            self.enqueue(secret)

    async def start(self) -> None:
        config = self.ctx.config
        if not config.service_account_private_key_file:
            return
        self._load_key(config.service_account_private_key_file)
        self._ca = config.root_ca()
        await super().start()

    def _load_key(self, path: str) -> None:
        import hashlib

        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

        with open(path, "rb") as f:
            # not checked for being prime: a tenth of a second for a key of our own
            self._key = serialization.load_pem_private_key(f.read(), None, unsafe_skip_rsa_key_validation=True)
        if isinstance(self._key, EllipticCurvePrivateKey):
            self._algorithm = {256: "ES256", 384: "ES384", 521: "ES512"}[self._key.key_size]
        der = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._headers = {"kid": base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()}

    async def reconcile(self, key: str) -> None:
        secret = self.secrets.lister.get_key(key)
        if secret is None or secret.get("type") != TYPE:
            return
        namespace, name = meta.namespace(secret), meta.annotations(secret).get(ACCOUNT_NAME, "")
        account = self.accounts.lister.get(namespace, name)
        uid = meta.annotations(secret).get(ACCOUNT_UID)
        if account is None or (uid and uid != meta.uid(account)):
            await self._delete_unless_there(secret, namespace, name, uid)
            return
        data = secret.get("data") or {}
        new = dict(data)
        if self._ca:
            new["ca.crt"] = base64.b64encode(self._ca).decode()
        new["namespace"] = base64.b64encode(namespace.encode()).decode()
        if not data.get("token"):
            new["token"] = base64.b64encode(self._token(account, secret).encode()).decode()
        if new == data and uid:
            return
        md = {**secret["metadata"], "annotations": {**meta.annotations(secret), ACCOUNT_UID: meta.uid(account)}}
        await self.client.update(self.resource, {**secret, "metadata": md, "data": new})

    async def _delete_unless_there(self, secret: Obj, namespace: str, name: str, uid: str | None) -> None:
        """Asks the API server itself first: the informer may not have seen the account yet."""
        try:
            account = await self.client.get(resource("serviceaccounts"), namespace, name)
            if not uid or uid == meta.uid(account):
                self.queue.add_rate_limited(meta.key(secret))
                return
        except ApiError as e:
            if e.code != 404:
                raise
        try:
            await self.client.delete(self.resource, namespace, meta.name(secret), uid=meta.uid(secret))
        except ApiError as e:
            if e.code not in (404, 409):
                raise

    def _token(self, account: Obj, secret: Obj) -> str:
        import jwt

        namespace, name = meta.namespace(account), meta.name(account)
        claims = {
            "iss": "kubernetes/serviceaccount",
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": meta.name(secret),
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": meta.uid(account),
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers=self._headers)


class LegacyTokenCleaner(APIController):
    """Token secrets that were made automatically and that no one has used for a year: marked as invalid, and
    deleted another year later."""

    name = "legacy-serviceaccount-token-cleaner-controller"
    workers = 1
    PERIOD_S = 24 * 3600

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.accounts = ctx.informer("serviceaccounts")
        self.secrets = ctx.informer("secrets", field_selector=f"type={TYPE}")
        self.pods = ctx.informer("pods")

    async def start(self) -> None:
        await super().start()
        self.queue.add("clean")

    async def reconcile(self, key: str) -> None:
        self.queue.add_after(key, self.PERIOD_S)
        candidates = [s for s in self.secrets.lister if self._automatic(s)]
        if not candidates:
            return
        tracked = await self._tracked_since()
        period = timedelta(seconds=self.ctx.config.legacy_service_account_token_clean_up_period_s)
        now = self.clock.now()
        if tracked is None or tracked + period > now:
            return
        mounted = {
            (meta.namespace(p), v["secret"].get("secretName"))
            for p in self.pods.lister
            if not is_finished(p)
            for v in p["spec"].get("volumes") or ()
            if "secret" in v
        }
        for secret in candidates:
            if (meta.namespace(secret), meta.name(secret)) not in mounted:
                await self._clean(secret, now, period)

    def _automatic(self, secret: Obj) -> bool:
        account = self.accounts.lister.get(meta.namespace(secret), meta.annotations(secret).get(ACCOUNT_NAME, ""))
        return account is not None and any(r.get("name") == meta.name(secret) for r in account.get("secrets") or ())

    async def _tracked_since(self) -> datetime | None:
        try:
            cm = await self.client.get(resource("configmaps"), "kube-system", SINCE)
        except ApiError as e:
            if e.code == 404:
                return None
            raise
        text = (cm.get("data") or {}).get("since")
        return time_of(f"{text}T00:00:00Z") if text else None

    async def _clean(self, secret: Obj, now: datetime, period: timedelta) -> None:
        labels = meta.labels(secret)
        used = labels.get(LAST_USED)
        last = time_of(f"{used}T00:00:00Z") if used else time_of(secret["metadata"]["creationTimestamp"])
        if last is None or last + period > now:
            return
        md = secret["metadata"]
        invalid = time_of(f"{labels[INVALID_SINCE]}T00:00:00Z") if labels.get(INVALID_SINCE) else None
        if invalid is None:
            patch = {"metadata": {"labels": {INVALID_SINCE: now.strftime("%Y-%m-%d")}}}
            await self.client.patch(resource("secrets"), md["namespace"], md["name"], patch)
        elif invalid + period <= now:
            await self.client.delete(resource("secrets"), md["namespace"], md["name"], uid=md["uid"])
