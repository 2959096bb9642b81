"""Webhook authorization: another server is asked by a SubjectAccessReview; its answers are kept for a while.

Match conditions decide whether it is asked at all: one that is false leaves the question to the next authorizer;
one that fails is a fault, which the failure policy decides about, as it does when no answer comes.

Source: k8s.io/apiserver plugin/pkg/authorizer/webhook/webhook.go, pkg/authorization/cel.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from time import perf_counter

import orjson

from berg.apiserver.auth import selectors
from berg.apiserver.auth.authorization import NO_OPINION, AuthzAttributes, Decision, Verdict
from berg.apiserver.auth.figures import WebhookFigures
from berg.apiserver.http.remote import Backoff, Remote, RemoteError
from berg.machinery.cel import EvaluationError
from berg.machinery.cel.access import compile_over
from berg.machinery.clock import Clock
from berg.machinery.metrics import Registry
from berg.machinery.status import Obj

log = logging.getLogger(__name__)

VERSIONS = ("v1", "v1beta1")
MAX_KEPT = 8192
MAX_KEPT_BYTES = 10_000
"""what a client can make as large as it likes is not kept"""


@dataclass(slots=True)
class Terms:
    """How the webhook is asked, and what counts when it does not answer."""

    name: str = "default"
    version: str = "v1"
    authorized_s: float = 300.0
    unauthorized_s: float = 30.0
    on_failure: Decision = Decision.NO_OPINION
    conditions: Sequence[str] = ()


class AccessWebhook:
    def __init__(
        self,
        remote: Remote,
        terms: Terms,
        clock: Clock,
        backoff: Backoff | None = None,
        figures: WebhookFigures | None = None,
    ) -> None:
        self._remote = remote
        self._terms = terms
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._conditions = [compile_over("request", text) for text in terms.conditions]
        self._kept: dict[bytes, tuple[Verdict, float]] = {}
        self.figures = figures or WebhookFigures(Registry())

    @property
    def name(self) -> str:
        return self._terms.name

    def authorize(self, a: AuthzAttributes) -> Verdict | Awaitable[Verdict]:
        spec = review_spec(a)
        try:
            if self._conditions and not self._told_matches(spec):
                return NO_OPINION
        except EvaluationError as e:
            return Verdict(self._terms.on_failure, "", str(e))
        key = orjson.dumps(spec)
        kept = self._kept.get(key)
        if kept is not None:
            if self._clock.monotonic() < kept[1]:
                return kept[0]
            del self._kept[key]
        return self._ask(key, spec, a)

    def _told_matches(self, spec: Obj) -> bool:
        """The same, counted."""
        started = perf_counter()
        holds, fault = False, True
        try:
            holds = self._matches(spec)
            fault = False
        finally:
            self.figures.matched(self.name, started, holds=holds, fault=fault)
        return holds

    def _matches(self, spec: Obj) -> bool:
        """Raises EvaluationError when a condition fails and none is false."""
        fault: EvaluationError | None = None
        for condition in self._conditions:
            try:
                if condition.evaluate({"request": _shown(spec)}) is not True:
                    return False
            except EvaluationError as e:
                fault = EvaluationError(f"cel evaluation error: expression '{condition.text}' resulted in error: {e}")
        if fault is not None:
            raise fault
        return True

    async def _ask(self, key: bytes, spec: Obj, a: AuthzAttributes) -> Verdict:
        terms = self._terms
        review: Obj = {
            "kind": "SubjectAccessReview",
            "apiVersion": f"authorization.k8s.io/{terms.version}",
            "metadata": {},
            "spec": spec if terms.version == "v1" else _beta(spec),
            "status": {"allowed": False},
        }
        started = perf_counter()
        try:
            answer = await self._remote.post_patiently(review, self._clock, self._backoff)
        except RemoteError as e:
            self.figures.asked(self.name, e.result, started)
            if terms.on_failure is Decision.NO_OPINION:
                self.figures.failed_open.inc(self.name, e.result)
            log.error("Failed to make webhook authorizer request: %s", e)
            return Verdict(terms.on_failure, "", str(e))
        self.figures.asked(self.name, "success", started)
        status = answer.get("status") or {}
        verdict = _verdict(status)
        ttl_s = terms.authorized_s if status.get("allowed") else terms.unauthorized_s
        if ttl_s > 0 and _size(a) < MAX_KEPT_BYTES:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = verdict, self._clock.monotonic() + ttl_s
        return verdict

    async def close(self) -> None:
        await self._remote.close()


def _verdict(status: Obj) -> Verdict:
    reason = status.get("reason") or ""
    if status.get("denied"):
        if status.get("allowed"):
            return Verdict(Decision.DENY, reason, "webhook subject access review returned both allow and deny response")
        return Verdict(Decision.DENY, reason)
    return Verdict(Decision.ALLOW if status.get("allowed") else Decision.NO_OPINION, reason)


def review_spec(a: AuthzAttributes) -> Obj:
    """The question as the spec of a SubjectAccessReview v1."""
    spec: Obj = {}
    if a.is_resource:
        about = {
            "namespace": a.namespace,
            "verb": a.verb,
            "group": a.group,
            "version": a.version,
            "resource": a.resource,
            "subresource": a.subresource,
            "name": a.name,
        }
        asked: Obj = {k: v for k, v in about.items() if v}
        if a.field_selector and (requirements := selectors.field_requirements(a.field_selector)):
            asked["fieldSelector"] = {"requirements": requirements}
        if a.label_selector and (requirements := selectors.label_requirements(a.label_selector)):
            asked["labelSelector"] = {"requirements": requirements}
        spec["resourceAttributes"] = asked
    else:
        spec["nonResourceAttributes"] = {k: v for k, v in (("path", a.path), ("verb", a.verb)) if v}
    user = a.user
    if user.name:
        spec["user"] = user.name
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.extra:
        spec["extra"] = {k: list(v) for k, v in user.extra.items()}
    if user.uid:
        spec["uid"] = user.uid
    return spec


def _beta(spec: Obj) -> Obj:
    """v1beta1 says `group` where v1 says `groups`."""
    return {("group" if k == "groups" else k): v for k, v in spec.items()}


def _shown(spec: Obj) -> Obj:
    """`request` in match conditions: its own fields are always there; one of the two kinds of attributes is."""
    shown: Obj = {"user": "", "groups": [], "uid": "", "extra": {}, **spec}
    of = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
    if "resourceAttributes" in spec:
        shown["resourceAttributes"] = {**dict.fromkeys(of, ""), **spec["resourceAttributes"]}
    else:
        shown["nonResourceAttributes"] = {"path": "", "verb": "", **spec["nonResourceAttributes"]}
    return shown


def _size(a: AuthzAttributes) -> int:
    return sum(map(len, (a.namespace, a.verb, a.group, a.version, a.resource, a.subresource, a.name, a.path)))
