"""Webhook token authentication: another server is asked who a token names, by a TokenReview; answers are kept.

Source: k8s.io/apiserver plugin/pkg/authenticator/token/webhook.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Sequence
from functools import partial
from time import perf_counter

from berg.apiserver.auth.authentication import Found, Unauthorized
from berg.apiserver.auth.figures import CacheFigures
from berg.apiserver.http.message import User
from berg.apiserver.http.remote import Backoff, Remote, RemoteError
from berg.machinery.clock import Clock
from berg.machinery.status import Obj

log = logging.getLogger(__name__)

VERSIONS = ("v1", "v1beta1")
TIMEOUT_S = 10.0
KEEP_SUCCESS_S = 10.0
"""upstream keeps every good answer that long, whatever `--authentication-token-webhook-cache-ttl` says"""
MAX_KEPT = 10_000


class TokenWebhook:
    def __init__(
        self,
        remote: Remote,
        *,
        version: str,
        audiences: Sequence[str],
        ttl_s: float,
        clock: Clock,
        backoff: Backoff | None = None,
    ) -> None:
        """`audiences`: the API server's own. Raises ValueError."""
        if version not in VERSIONS:
            known = ", ".join(f'"{v}"' for v in VERSIONS)
            told = f'unsupported webhook authenticator version "{version}", supported versions are {known}'
            raise ValueError(told)
        self._remote = remote
        self.cache = CacheFigures()
        self._version = version
        self._audiences = list(audiences)
        self._ttl_s = ttl_s
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._salt = secrets.token_bytes(16)
        self._kept: dict[bytes, tuple[Found, float]] = {}
        self._asked: dict[bytes, asyncio.Task[Found]] = {}

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> Found | Awaitable[Found]:
        wanted = list(audiences) or self._audiences
        key = hashlib.sha256(self._salt + "\0".join((token, *wanted)).encode()).digest()
        kept = self._kept.get(key)
        if kept is not None:
            if self._clock.monotonic() < kept[1]:
                self.cache.hits += 1
                return kept[0]
            del self._kept[key]
        asked = self._asked.get(key)
        if asked is not None:  # the same token by many requests at once is asked for once
            self.cache.blocked += 1
            asked.add_done_callback(self._unblocked)
        else:
            asked = self._asked[key] = asyncio.get_running_loop().create_task(self._ask(key, token, wanted))
            asked.add_done_callback(partial(self._answered, key, perf_counter()))
            self.cache.asking += 1
        return asyncio.shield(asked)

    def _answered(self, key: bytes, started: float, task: asyncio.Task[Found]) -> None:
        self._asked.pop(key, None)
        self.cache.asking -= 1
        self.cache.missed(started, ok=not task.cancelled() and task.exception() is None)

    def _unblocked(self, _: asyncio.Task[Found]) -> None:
        self.cache.blocked -= 1

    async def _ask(self, key: bytes, token: str, wanted: list[str]) -> Found:
        review: Obj = {
            "kind": "TokenReview",
            "apiVersion": f"authentication.k8s.io/{self._version}",
            "metadata": {},
            "spec": {"token": token, "audiences": wanted},
            "status": {"user": {}},
        }
        try:
            answer = await self._remote.post_patiently(review, self._clock, self._backoff, TIMEOUT_S)
        except RemoteError as e:
            log.error("Failed to make webhook authenticator request: %s", e)
            raise Unauthorized(str(e)) from None
        found = self._read(answer.get("status") or {}, wanted)
        ttl_s = self._ttl_s if found is None else max(self._ttl_s, KEEP_SUCCESS_S)
        if ttl_s > 0:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = found, self._clock.monotonic() + ttl_s
        return found

    def _read(self, status: Obj, wanted: list[str]) -> Found:
        given = status.get("audiences") or self._audiences
        good = [a for a in wanted if a in given]
        if not good:
            return None
        if not status.get("authenticated"):
            if status.get("error"):
                raise Unauthorized(status["error"])
            return None
        user = status.get("user") or {}
        extra = {k: list(v or ()) for k, v in (user.get("extra") or {}).items()}
        named = User(user.get("username") or "", user.get("uid") or "", tuple(user.get("groups") or ()), extra)
        return named, good

    async def close(self) -> None:
        for task in list(self._asked.values()):
            task.cancel()
        await self._remote.close()
