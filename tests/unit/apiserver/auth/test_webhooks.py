"""Webhooks that say who a token names, and who may do what; and the one that gets audit events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from berg.apiserver.audit.backends import Webhook
from berg.apiserver.auth.access_webhook import AccessWebhook, Terms
from berg.apiserver.auth.authentication import Bearer, Found, TokenAuthenticator, Unauthorized
from berg.apiserver.auth.authorization import AlwaysAllow, AuthzAttributes, Decision, Union, Verdict, settled
from berg.apiserver.auth.token_webhook import TokenWebhook
from berg.apiserver.http import remote
from berg.apiserver.http.message import User
from berg.apiserver.http.remote import BadKubeconfig
from berg.machinery.clock import FakeClock
from tests.unit.apiserver.auth.issuer import TLSServer

JANE = User("jane", "7", ("dev",), {"k": ["v"]})


class QuickClock(FakeClock):
    """Does not wait between tries."""

    async def sleep(self, seconds: float) -> None:
        self.slept = [*getattr(self, "slept", ()), seconds]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TLSServer]:
    it = TLSServer(tmp_path)
    await it.start()
    yield it
    await it.stop()


# ---- who a token names


def _tokens(server: TLSServer, clock: FakeClock, **options: Any) -> TokenWebhook:
    given = {"version": "v1", "audiences": ["api"], "ttl_s": 60.0, **options}
    return TokenWebhook(remote.read(server.kubeconfig("/authenticate")), clock=clock, **given)


async def _found(method: TokenAuthenticator, token: str, *audiences: str) -> Found:
    answer = method.authenticate_token(token, audiences)
    return answer if answer is None or isinstance(answer, tuple) else await answer


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_a_token_is_asked_for_and_kept(server: TLSServer, version: str) -> None:
    clock = QuickClock()
    user = {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"k": ["v"]}}
    server.answers["/authenticate"] = lambda _: {"status": {"authenticated": True, "user": user}}
    webhook = _tokens(server, clock, version=version)
    assert await _found(webhook, "t") == (JANE, ["api"])
    (path, asked), *_ = server.asked
    assert path == "/authenticate"
    assert asked["apiVersion"] == f"authentication.k8s.io/{version}"
    assert asked["spec"] == {"token": "t", "audiences": ["api"]}
    assert await _found(webhook, "t") == (JANE, ["api"])
    assert len(server.asked) == 1
    await clock.advance(61)
    await asyncio.gather(*(_found(webhook, "t") for _ in range(5)))
    assert len(server.asked) == 2
    await webhook.close()


async def test_a_token_that_nobody_knows(server: TLSServer) -> None:
    server.answers["/authenticate"] = lambda _: {"status": {"authenticated": False}}
    webhook = _tokens(server, QuickClock())
    bearer = Bearer([webhook])
    assert await _found(bearer, "t") is None
    server.answers["/authenticate"] = lambda _: {"status": {"authenticated": False, "error": "revoked"}}
    with pytest.raises(Unauthorized, match=r"^revoked$"):
        await _found(bearer, "other")
    await webhook.close()


async def test_audiences_that_a_webhook_says(server: TLSServer) -> None:
    said: dict[str, Any] = {"authenticated": True, "user": {"username": "jane"}}
    server.answers["/authenticate"] = lambda _: {"status": said}
    webhook = _tokens(server, QuickClock())
    assert await _found(webhook, "t", "elsewhere") is None
    said["audiences"] = ["elsewhere"]
    found = await _found(webhook, "u", "elsewhere", "api")
    assert found is not None
    assert found[1] == ["elsewhere"]
    await webhook.close()


async def test_a_webhook_that_fails_is_tried_again(server: TLSServer) -> None:
    clock = QuickClock()
    server.answers["/authenticate"] = lambda _: 500
    webhook = _tokens(server, clock)
    with pytest.raises(Unauthorized, match="an error on the server"):
        await _found(webhook, "t")
    assert len(server.asked) == 5
    assert [round(s / 0.5 / 1.5**i, 1) >= 1 for i, s in enumerate(clock.slept)] == [True] * 4
    server.answers["/authenticate"] = lambda _: 403
    with pytest.raises(Unauthorized):
        await _found(webhook, "t")
    assert len(server.asked) == 6
    await webhook.close()


async def test_the_next_method_is_asked_after_one_that_waits(server: TLSServer) -> None:
    class Known:
        def authenticate_token(self, token: str, audiences: Any) -> Found:
            return JANE, ["api"]

    server.answers["/authenticate"] = lambda _: {"status": {"authenticated": False, "error": "no"}}
    webhook = _tokens(server, QuickClock())
    assert await _found(Bearer([webhook, Known()]), "t") == (JANE, ["api"])
    await webhook.close()


# ---- who may do what

GET = AuthzAttributes(JANE, "list", "apps", "v1", "deployments", "", "ns", label_selector="a=b,c", field_selector="x=y")


def _access(server: TLSServer, clock: FakeClock, **terms: Any) -> AccessWebhook:
    return AccessWebhook(remote.read(server.kubeconfig("/authorize"), timeout_s=3), Terms(**terms), clock)


async def _decided(webhook: AccessWebhook, a: AuthzAttributes = GET) -> Verdict:
    return await settled(webhook.authorize(a))


@pytest.mark.parametrize(("version", "groups"), [("v1", "groups"), ("v1beta1", "group")])
async def test_a_question_is_asked_as_a_review(server: TLSServer, version: str, groups: str) -> None:
    server.answers["/authorize"] = lambda _: {"status": {"allowed": True, "reason": "why not"}}
    webhook = _access(server, QuickClock(), version=version)
    assert await _decided(webhook) == Verdict(Decision.ALLOW, "why not")
    assert server.asked[0][1]["spec"] == {
        "resourceAttributes": {
            "namespace": "ns",
            "verb": "list",
            "group": "apps",
            "version": "v1",
            "resource": "deployments",
            "fieldSelector": {"requirements": [{"key": "x", "operator": "In", "values": ["y"]}]},
            "labelSelector": {
                "requirements": [{"key": "a", "operator": "In", "values": ["b"]}, {"key": "c", "operator": "Exists"}]
            },
        },
        "user": "jane",
        "uid": "7",
        groups: ["dev"],
        "extra": {"k": ["v"]},
    }
    await webhook.close()


@pytest.mark.parametrize(
    ("status", "decision", "error"),
    [
        ({"allowed": True}, Decision.ALLOW, ""),
        ({"allowed": False}, Decision.NO_OPINION, ""),
        ({"denied": True}, Decision.DENY, ""),
        (
            {"allowed": True, "denied": True},
            Decision.DENY,
            "webhook subject access review returned both allow and deny response",
        ),
    ],
)
async def test_answers(server: TLSServer, status: dict[str, Any], decision: Decision, error: str) -> None:
    server.answers["/authorize"] = lambda _: {"status": status}
    webhook = _access(server, QuickClock())
    assert await _decided(webhook) == Verdict(decision, "", error)
    await webhook.close()


async def test_what_was_allowed_and_what_was_not_is_kept_apart(server: TLSServer) -> None:
    clock = QuickClock()
    server.answers["/authorize"] = lambda review: {"status": {"allowed": review["spec"]["user"] == "jane"}}
    webhook = _access(server, clock, authorized_s=100.0, unauthorized_s=10.0)
    joe = AuthzAttributes(User("joe"), "get", path="/x", is_resource=False)
    for _ in range(3):
        await _decided(webhook)
        await _decided(webhook, joe)
    assert len(server.asked) == 2
    await clock.advance(11)
    await _decided(webhook)
    await _decided(webhook, joe)
    assert len(server.asked) == 3
    large = AuthzAttributes(JANE, "get", path="/" + "x" * 10_000, is_resource=False)
    for _ in range(2):
        await _decided(webhook, large)
    assert len(server.asked) == 5
    await webhook.close()


async def test_match_conditions_decide_whether_it_is_asked(server: TLSServer) -> None:
    server.answers["/authorize"] = lambda _: {"status": {"denied": True}}
    conditions = ["has(request.resourceAttributes)", "request.resourceAttributes.namespace == 'ns'"]
    webhook = _access(server, QuickClock(), conditions=conditions)
    assert (await _decided(webhook)).decision is Decision.DENY
    elsewhere = AuthzAttributes(JANE, "get", "", "v1", "pods", "", "other")
    assert await _decided(webhook, elsewhere) == Verdict(Decision.NO_OPINION)
    path = AuthzAttributes(JANE, "get", path="/x", is_resource=False)
    assert await _decided(webhook, path) == Verdict(Decision.NO_OPINION)  # one is false: that the other fails is moot
    assert len(server.asked) == 1
    failing = _access(server, QuickClock(), conditions=[conditions[1]], on_failure=Decision.DENY)
    verdict = await _decided(failing, path)
    assert verdict.decision is Decision.DENY
    assert "resulted in error: no such key" in verdict.error
    await webhook.close()
    await failing.close()


async def test_a_webhook_that_does_not_answer(server: TLSServer) -> None:
    server.answers["/authorize"] = lambda _: 403
    webhook = _access(server, QuickClock())
    verdict = await settled(Union([webhook, AlwaysAllow()]).authorize(GET))
    assert verdict.allowed
    figures = webhook.figures
    assert figures.evaluations.values == {("default", "error"): 1}
    assert figures.failed_open.values == {("default", "error"): 1}
    alone = await settled(Union([webhook]).authorize(GET))
    assert alone == Verdict(Decision.NO_OPINION, "", "broken")
    denying = _access(server, QuickClock(), on_failure=Decision.DENY)
    verdict = await settled(Union([denying, AlwaysAllow()]).authorize(GET))
    assert verdict.decision is Decision.DENY
    for one in (webhook, denying):
        await one.close()


async def test_masters_are_not_asked_about(server: TLSServer) -> None:
    webhook = _access(server, QuickClock())
    root = AuthzAttributes(User("root", groups=("system:masters",)), "get", path="/x", is_resource=False)
    assert Union([webhook]).authorize(root) == Verdict(Decision.ALLOW)
    assert server.asked == []
    await webhook.close()


# ---- audit


async def test_audit_events_are_sent_as_a_list(server: TLSServer) -> None:
    server.answers["/audit"] = lambda _: ""
    webhook = Webhook(remote.read(server.kubeconfig("/audit")), QuickClock(), 10.0)
    event = {"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "1"}
    assert await webhook.process([event, {**event, "auditID": "2"}]) is True
    (_, sent) = server.asked[0]
    assert (sent["kind"], sent["apiVersion"]) == ("EventList", "audit.k8s.io/v1")
    assert sent["items"] == [{"auditID": "1"}, {"auditID": "2"}]
    server.answers["/audit"] = lambda _: 403
    assert await webhook.process([event]) is False
    await webhook.close()


# ---- the kubeconfig


def test_a_kubeconfig_that_names_no_server(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text("{current-context: x, contexts: [{name: x, context: {cluster: z}}]}")
    with pytest.raises(BadKubeconfig, match='cluster "z" does not exist'):
        remote.read(str(path))
