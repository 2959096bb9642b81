"""What is counted of tokens: those found again and those looked into, which issuers' keys were fetched, and what kind
service accounts' tokens were of.

Source: k8s.io/apiserver pkg/authentication/token/cache/stats.go, plugin/pkg/authenticator/token/oidc/metrics.go;
kubernetes pkg/serviceaccount/metrics.go.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from time import perf_counter

from berg.machinery.metrics import Cell, Labels, Registry, Samples

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CONDITION_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25)
_JWT_SECONDS = (0.001, *_SECONDS)
_KINDS = {
    "valid_tokens": "Tokens that are good and not old",
    "stale_tokens": "Tokens that live on only because they were extended",
    "legacy_tokens": "Tokens that lie in Secrets",
    "legacy_auto_token_uses": "Tokens that lie in Secrets, made without being asked for",
    "legacy_manual_token_uses": "Tokens that lie in Secrets, made by hand",
    "invalid_legacy_auto_token_uses": "Tokens that lie in Secrets and are no longer good",
}


class CacheFigures:
    """Of one method that keeps what it found of a token."""

    __slots__ = ("asking", "blocked", "failed", "hits", "misses", "ok")

    def __init__(self) -> None:
        self.hits = self.ok = self.failed = 0
        self.misses = Cell(_SECONDS)
        self.asking = self.blocked = 0
        """who asks another server just now, and who waits for an answer that another has asked for"""

    def missed(self, started: float, *, ok: bool) -> None:
        self.misses.observe(perf_counter() - started)
        self.ok += ok
        self.failed += not ok


def describe_caches(caches: Iterable[CacheFigures], r: Registry) -> None:
    def told(read: Callable[[CacheFigures], dict[str, int]]) -> Callable[[], Samples]:
        def samples() -> Samples:
            sums: Counter[str] = Counter()
            for cache in caches:
                sums.update(read(cache))
            return [((name,), count) for name, count in sums.items()]

        return samples

    def seconds() -> Iterable[tuple[Labels, Cell]]:
        hits, misses = Cell(_SECONDS), Cell(_SECONDS)
        for cache in caches:
            hits.observe_many(0.0, cache.hits)  # a look-up takes no millisecond, which is what upstream measures in
            misses = misses.plus(cache.misses)
        return [((name,), cell) for name, cell in (("hit", hits), ("miss", misses)) if cell.count]

    prefix, labels = "authentication_token_cache", ("status",)
    help = "[ALPHA] Tokens that were looked up."
    r.total(f"{prefix}_request_total", help, labels, told(lambda c: {"hit": c.hits, "miss": c.misses.count}))
    help = "[ALPHA] How long it took to look up a token."
    r.distribution(f"{prefix}_request_duration_seconds", help, _SECONDS, labels, seconds)
    help = "[ALPHA] Tokens that had to be looked into."
    r.total(f"{prefix}_fetch_total", help, labels, told(lambda c: {"ok": c.ok, "error": c.failed}))
    help = "[ALPHA] Tokens that are looked into now."
    read = told(lambda c: {"in_flight": c.asking, "blocked": c.blocked})
    r.gauge(f"{prefix}_active_fetch_count", help, labels, read)


def describe_accounts(counts: Counter[str], r: Registry) -> None:
    for name, what in _KINDS.items():
        r.total(f"serviceaccount_{name}_total", f"[ALPHA] {what}.", (), lambda name=name: [((), counts[name])])  # type: ignore[misc]


def hashed(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class IssuerFigures:
    """Of all issuers of JSON web tokens."""

    def __init__(self, server: str, r: Registry) -> None:
        """`server`: the API server's identity."""
        self._server = hashed(server)
        prefix = "apiserver_authentication_jwt_authenticator"
        help = "[ALPHA] How long it took to look into a token that was not known."
        self._seconds = r.histogram(f"{prefix}_latency_seconds", help, _JWT_SECONDS, ("result", "jwt_issuer_hash"))
        self._fetched: dict[tuple[str, str], float] = {}
        self._keys: dict[str, str] = {}
        r.gauge(
            f"{prefix}_jwks_fetch_last_timestamp_seconds",
            "[ALPHA] When an issuer's keys were last fetched.",
            ("result", "jwt_issuer_hash", "apiserver_id_hash"),
            lambda: [((*about, self._server), when) for about, when in self._fetched.items()],
        )
        r.gauge(
            f"{prefix}_jwks_fetch_last_key_set_info",
            "[ALPHA] Which keys an issuer has.",
            ("jwt_issuer_hash", "apiserver_id_hash", "hash"),
            lambda: [((issuer, self._server, keys), 1) for issuer, keys in self._keys.items()],
        )

    def verified(self, issuer: str, started: float, *, ok: bool) -> None:
        self._seconds.observe(perf_counter() - started, "success" if ok else "failure", hashed(issuer))

    def fetched(self, issuer: str, keys: str, *, ok: bool) -> None:
        """`keys`: their hash."""
        self._fetched["success" if ok else "failure", hashed(issuer)] = time.time()
        if ok:
            self._keys[hashed(issuer)] = keys

    def gone(self, issuer: str) -> None:
        """It is no longer in the configuration."""
        self._keys.pop(hashed(issuer), None)
        for result in ("success", "failure"):
            self._fetched.pop((result, hashed(issuer)), None)


class WebhookFigures:
    """Of all authorization webhooks, by name."""

    def __init__(self, r: Registry) -> None:
        prefix, of, about = "apiserver_authorization", ("name", "result"), ("name", "type")
        help = "[ALPHA] Round-trips to authorization webhooks."
        self.evaluations = r.counter(f"{prefix}_webhook_evaluations_total", help, of)
        help = "[ALPHA] Webhooks that had no opinion because they did not answer."
        self.failed_open = r.counter(f"{prefix}_webhook_evaluations_fail_open_total", help, of)
        help = "[ALPHA] How long authorization webhooks took."
        self.seconds = r.histogram(f"{prefix}_webhook_duration_seconds", help, _SECONDS, of)
        help = "[ALPHA] How long match conditions of authorization webhooks took."
        self._conditions = r.histogram(f"{prefix}_match_condition_evaluation_seconds", help, _CONDITION_SECONDS, about)
        help = "[ALPHA] Match conditions of authorization webhooks that failed."
        self._faults = r.counter(f"{prefix}_match_condition_evaluation_errors_total", help, about)
        help = "[ALPHA] Authorization webhooks that were not asked as their match conditions say."
        self._exclusions = r.counter(f"{prefix}_match_condition_exclusions_total", help, about)

    def asked(self, name: str, result: str, started: float) -> None:
        self.evaluations.inc(name, result)
        self.seconds.observe(perf_counter() - started, name, result)

    def matched(self, name: str, started: float, *, holds: bool, fault: bool) -> None:
        self._conditions.observe(perf_counter() - started, name, "Webhook")
        if fault:
            self._faults.inc(name, "Webhook")
        elif not holds:
            self._exclusions.inc(name, "Webhook")
