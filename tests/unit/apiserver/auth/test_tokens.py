"""Tokens of service accounts and bootstrap tokens, and what a TokenReview says of them."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from berg.apiserver.hooks import legacy_token_tracking
from berg.apiserver.http.message import Request
from berg.machinery.resources import resource
from tests.unit.apiserver.served_api import Served

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ISSUER = "https://kubernetes.default.svc.cluster.local"


async def _account(served: Served) -> Any:
    return await served.create(ACCOUNTS, {"metadata": {"name": "a"}})


async def _token(served: Served, **spec: Any) -> str:
    _, answer = await served.ask("POST", f"{ACCOUNTS}/a/token", {"spec": spec})
    return str(answer["status"]["token"])


async def _review(served: Served, token: str, *audiences: str) -> Any:
    _, answer = await served.ask("POST", REVIEWS, {"spec": {"token": token, "audiences": list(audiences)}})
    return answer["status"]


async def test_audiences(served: Served) -> None:
    await _account(served)
    token = await _token(served, audiences=["x", "y"])
    assert (await _review(served, token, "y", "z"))["audiences"] == ["y"]
    assert await _review(served, token) == {
        "user": {},
        "error": f'[invalid bearer token, token audiences ["x" "y"] is invalid for the target audiences ["{ISSUER}"]]',
    }
    assert await _review(served, "opaque") == {"user": {}, "error": "invalid bearer token"}


async def test_what_a_token_is_bound_to(served: Served) -> None:
    await _account(served)
    secrets = "/api/v1/namespaces/default/secrets"
    await served.create(secrets, {"metadata": {"name": "s"}})
    bound = {"kind": "Secret", "apiVersion": "v1", "name": "s"}
    token = await _token(served, boundObjectRef=bound)
    assert (await _review(served, token))["authenticated"] is True
    await served.ask("DELETE", f"{secrets}/s")
    assert (await _review(served, token))["error"] == (
        "[invalid bearer token, service account token has been invalidated]"
    )
    fresh = await served.create(secrets, {"metadata": {"name": "s"}})
    told = (await _review(served, token))["error"]
    assert f"secret UID ({fresh['metadata']['uid']}) does not match service account secret ref claim" in told
    code, refused = await served.ask("POST", f"{ACCOUNTS}/a/token", {"spec": {"boundObjectRef": {}}})
    assert (code, refused["message"]) == (400, "cannot bind token to object of type /, Kind=")


async def test_an_account_that_was_made_again(served: Served) -> None:
    await _account(served)
    token = await _token(served)
    await served.ask("DELETE", f"{ACCOUNTS}/a")
    assert 'serviceaccounts "a" not found' in (await _review(served, token))["error"]
    await _account(served)
    assert "service account UID (" in (await _review(served, token))["error"]


async def _legacy(served: Served) -> tuple[str, str]:
    """A token as the token controller puts it into a Secret, and the Secret's path."""
    account = await _account(served)
    claims = {
        "iss": "kubernetes/serviceaccount",
        "sub": "system:serviceaccount:default:a",
        "kubernetes.io/serviceaccount/namespace": "default",
        "kubernetes.io/serviceaccount/secret.name": "t",
        "kubernetes.io/serviceaccount/service-account.name": "a",
        "kubernetes.io/serviceaccount/service-account.uid": account["metadata"]["uid"],
    }
    token = served.server.services.tokens.sign(claims)
    meta = {"name": "t", "annotations": {"kubernetes.io/service-account.name": "a"}}
    data = {"token": base64.b64encode(token.encode()).decode()}
    await served.create(
        "/api/v1/namespaces/default/secrets",
        {"metadata": meta, "type": "kubernetes.io/service-account-token", "data": data},
    )
    return token, "/api/v1/namespaces/default/secrets/t"


async def test_a_token_that_lies_in_a_secret(served: Served) -> None:
    token, secret = await _legacy(served)
    assert (await _review(served, token))["authenticated"] is True
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    today = f"{served.clock.now():%Y-%m-%d}"
    labels = (await served.get(secret))["metadata"]["labels"]
    assert labels == {"kubernetes.io/legacy-token-last-used": today}
    await served.patch(secret, {"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": today}}})
    assert "has been marked invalid" in (await _review(served, token))["error"]
    await served.patch(secret, {"data": {"token": base64.b64encode(b"other").decode()}})
    assert "Token does not match server's copy" in (await _review(served, token))["error"]
    await served.ask("DELETE", secret)
    assert "Token has been invalidated" in (await _review(served, token))["error"]


async def test_what_the_audit_log_is_told_about_tokens(served: Served) -> None:
    tokens = served.server.services.tokens
    legacy, _ = await _legacy(served)
    services = served.server.services
    await services.create(
        resource("pods"), "default", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    )
    pod = services.get(resource("pods"), "default", "p")
    account = services.get(resource("serviceaccounts"), "default", "a")
    extended, _, _ = tokens.issue(account, audiences=(), expiration_s=3607, bound=("pod", pod))

    def notes(token: str) -> dict[str, str]:
        return dict(tokens.authenticate_token(token, ())[0].notes)

    assert notes(legacy) == {"authentication.k8s.io/legacy-token-manual-secret": "t"}
    await served.patch(f"{ACCOUNTS}/a", {"secrets": [{"name": "t"}]})
    assert notes(legacy) == {"authentication.k8s.io/legacy-token-autogenerated-secret": "t"}
    assert notes(extended) == {}
    await served.clock.advance(3617)
    assert notes(extended) == {
        "authentication.k8s.io/stale-token": "subject: system:serviceaccount:default:a, "
        "seconds after warning threshold: 10"
    }


async def test_since_when_use_is_noted(served: Served) -> None:
    path = f"/api/v1/namespaces/kube-system/configmaps/{legacy_token_tracking.NAME}"
    assert (await served.get(path))["data"] == {"since": f"{served.clock.now():%Y-%m-%d}"}
    await served.patch(path, {"data": {"since": "2020-01-01"}})
    await legacy_token_tracking.run(served.server.services)
    assert (await served.get(path))["data"] == {"since": "2020-01-01"}
    await served.patch(path, {"data": {"since": "long ago"}})
    await legacy_token_tracking.run(served.server.services)
    assert (await served.get(path))["data"] == {"since": f"{served.clock.now():%Y-%m-%d}"}


@pytest.mark.parametrize(
    ("change", "groups"),
    [
        ({}, ["system:bootstrappers", "system:authenticated"]),
        (
            {"auth-extra-groups": "system:bootstrappers:b,system:bootstrappers:a"},
            ["system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:b", "system:authenticated"],
        ),
        ({"auth-extra-groups": "system:masters"}, None),
        ({"usage-bootstrap-authentication": "false"}, None),
        ({"token-secret": "fedcba9876543210"}, None),
        ({"expiration": "2020-01-01T00:00:00Z"}, None),
        ({"expiration": "soon"}, None),
    ],
)
async def test_bootstrap_tokens(served: Served, change: dict[str, str], groups: list[str] | None) -> None:
    data = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}
    secret = {
        "metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {**data, **change},
    }
    await served.create("/api/v1/namespaces/kube-system/secrets", secret)
    status = await _review(served, "abcdef.0123456789abcdef")
    assert status.get("authenticated") is (True if groups else None)
    assert status["user"].get("groups") == groups


async def test_a_token_in_a_websockets_protocol(served: Served) -> None:
    await _account(served)
    token = base64.urlsafe_b64encode((await _token(served)).encode()).decode().rstrip("=")
    headers = {"sec-websocket-protocol": f"base64url.bearer.authorization.k8s.io.{token}, x"}

    async def name(more: dict[str, str]) -> str:
        request = Request("GET", "/", headers={**headers, **more})
        user = served.server.authentication.authenticate(request)
        return user.name  # type: ignore[union-attr]

    assert await name({"upgrade": "websocket"}) == "system:serviceaccount:default:a"
    assert await name({}) == "system:anonymous"


async def test_times_are_checked_with_a_minute_to_spare(served: Served) -> None:
    await _account(served)
    token = await _token(served, expirationSeconds=600)
    await served.clock.advance(650)
    assert (await _review(served, token))["authenticated"] is True
    await served.clock.advance(20)
    assert (await _review(served, token))["error"] == "[invalid bearer token, service account token has expired]"
    import jwt

    claims = jwt.decode(await _token(served), options={"verify_signature": False})
    for claim, why in (("nbf", "is not valid yet"), ("iat", "is issued in the future")):
        early = served.server.services.tokens.sign({**claims, claim: claims[claim] + 300})
        assert (await _review(served, early))["error"] == f"[invalid bearer token, service account token {why}]"
