"""Tokens of an OpenID issuer on loopback, over TLS with its own authority."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from berg.apiserver.auth.authentication import Unauthorized
from berg.apiserver.auth.oidc import IssuerError, JWTAuthenticator
from berg.apiserver.http.message import User
from berg.machinery.clock import FakeClock
from tests.unit.apiserver.auth.issuer import AUTHORITY, OpenIDIssuer

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOW = START.timestamp()


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[OpenIDIssuer]:
    server = OpenIDIssuer(tmp_path)
    await server.start()
    yield server
    await server.stop()


class Asked:
    """An authenticator, and a short way to ask it."""

    def __init__(self, server: OpenIDIssuer, /, **config: Any) -> None:
        self.clock = FakeClock(START)
        url = {"url": server.url, "audiences": ["berg"], "certificateAuthority": AUTHORITY.certificate.decode()}
        config.setdefault("claimMappings", {"username": {"claim": "sub", "prefix": "oidc:"}})
        self.it = JWTAuthenticator({"issuer": {**url, **config.pop("issuer", {})}, **config}, clock=self.clock)

    async def user(self, token: str) -> User | None:
        found = self.it.authenticate_token(token, ())
        found = found if found is None or isinstance(found, tuple) else await found
        return None if found is None else found[0]

    async def refused(self, token: str) -> str:
        with pytest.raises(Unauthorized) as caught:
            await self.user(token)
        return str(caught.value)


@pytest.fixture
async def asked(issuer: OpenIDIssuer) -> AsyncIterator[Any]:
    made: list[Asked] = []

    async def make(**config: Any) -> Asked:
        made.append(Asked(issuer, **config))
        await made[-1].it.run()
        return made[-1]

    yield make
    for one in made:
        await one.it.close()


async def test_a_token_names_its_user(issuer: OpenIDIssuer, asked: Any) -> None:
    groups = {"claim": "roles", "prefix": "oidc:"}
    a = await asked(claimMappings={"username": {"claim": "sub", "prefix": "oidc:"}, "groups": groups})
    user = await a.user(issuer.token(NOW, sub="jane", roles=["dev", "ops"], jti="7"))
    assert user == User(
        "oidc:jane",
        groups=("oidc:dev", "oidc:ops"),
        extra={"authentication.kubernetes.io/credential-id": ["JTI=7"]},
    )
    assert (await a.user(issuer.token(NOW, sub="joe", roles="dev"))).groups == ("oidc:dev",)


async def test_before_the_issuer_answers_nobody_comes_in(issuer: OpenIDIssuer) -> None:
    a = Asked(issuer)
    assert await a.refused(issuer.token(NOW, sub="jane")) == "oidc: authenticator not initialized"
    assert a.it.fault == f'oidc: authenticator for issuer "{issuer.url}" is not initialized'
    await a.it.close()


async def test_an_issuer_that_is_not_there_is_asked_again(issuer: OpenIDIssuer) -> None:
    answer = issuer.answers.pop("/.well-known/openid-configuration")
    a = Asked(issuer)
    slept: list[tuple[float, str | None]] = []

    async def until_it_is_there(seconds: float) -> None:
        slept.append((seconds, a.it.fault))
        issuer.answers["/.well-known/openid-configuration"] = answer

    a.clock.sleep = until_it_is_there  # type: ignore[method-assign]
    await a.it.run()
    assert slept == [(10.0, "404 Not Found: not found")]
    assert a.it.fault is None
    assert (await a.user(issuer.token(NOW, sub="jane"))).name == "oidc:jane"
    await a.it.close()


async def test_an_issuer_that_says_it_is_another_is_not_believed(issuer: OpenIDIssuer) -> None:
    issuer.answers["/.well-known/openid-configuration"] = lambda _: {"issuer": "https://x", "jwks_uri": "https://x/k"}
    a = Asked(issuer)
    with pytest.raises(IssuerError, match=f'did not match .* expected "{issuer.url}" got "https://x"'):
        await a.it.issuer.discover()
    assert a.it.issuer.keys is None
    await a.it.close()


async def test_keys_are_read_once_and_again_when_they_changed(issuer: OpenIDIssuer, asked: Any) -> None:
    a = await asked()
    for name in ("jane", "joe"):
        await a.user(issuer.token(NOW, sub=name))
    assert issuer.asked_for("/keys") == 1
    old = issuer.token(NOW, sub="jim")
    issuer.rotate("two")
    assert (await a.user(issuer.token(NOW, sub="ann"))).name == "oidc:ann"
    assert issuer.asked_for("/keys") == 2
    assert await a.refused(old) == (
        "oidc: verify token: failed to verify signature: failed to verify id token signature"
    )


async def test_many_tokens_of_a_new_key_wait_for_one_answer(issuer: OpenIDIssuer, asked: Any) -> None:
    a = await asked()
    users = await asyncio.gather(*(a.user(issuer.token(NOW, sub=f"u{i}")) for i in range(20)))
    assert [u.name for u in users] == [f"oidc:u{i}" for i in range(20)]
    assert issuer.asked_for("/keys") == 1


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": NOW - 1}, "oidc: verify token: oidc: token is expired (Token Expiry: 2026-11-21 11:59:59 +0000 UTC)"),
        ({"exp": "soon"}, "oidc: verify token: oidc: failed to unmarshal claims: exp is no number"),
        (
            {"nbf": NOW + 3600},
            "oidc: verify token: oidc: current time 2026-11-21 12:00:00 +0000 UTC before the nbf (not before) time: "
            "2026-11-21 13:00:00 +0000 UTC",
        ),
        ({"aud": ["a", "b"]}, 'oidc: verify token: oidc: expected audience "berg" got ["a" "b"]'),
        (
            {"sub": 7},
            "oidc: verify token: oidc: failed to unmarshal claims: json: cannot unmarshal number into Go struct field "
            "idToken.sub of type string",
        ),
    ],
)
async def test_what_a_token_may_not_say(issuer: OpenIDIssuer, asked: Any, claims: dict[str, Any], why: str) -> None:
    a = await asked()
    await a.user(issuer.token(NOW, sub="warm"))
    assert await a.refused(issuer.signed({**issuer.claims(NOW), "sub": "jane", **claims})) == why


async def test_an_algorithm_that_is_not_allowed(issuer: OpenIDIssuer, asked: Any) -> None:
    import jwt

    a = await asked()
    claims = {"iss": issuer.url, "aud": "berg", "exp": int(NOW) + 300, "sub": "jane"}
    token = jwt.encode(claims, "s" * 64, algorithm="HS256")
    assert 'unsupported algorithm, expected ["ES256"' in await a.refused(token)
    unsigned = jwt.encode(claims, None, algorithm="none")
    assert 'got "none"' in await a.refused(unsigned)


async def test_tokens_of_others_are_left_to_others(issuer: OpenIDIssuer, asked: Any) -> None:
    a = await asked()
    assert await a.user(issuer.token(NOW, iss="https://other", sub="jane")) is None
    assert await a.user("no.jwt.at-all") is None
    assert await a.user("opaque") is None
    assert issuer.asked_for("/keys") == 0


async def test_claims_are_mapped_by_expressions(issuer: OpenIDIssuer, asked: Any) -> None:
    a = await asked(
        claimMappings={
            "username": {"expression": "claims.email.split('@')[0] + ':' + claims.tenant"},
            "groups": {"expression": "claims.roles.map(r, 'g-' + r)"},
            "uid": {"expression": "claims.sub"},
            "extra": [
                {"key": "example.org/tenant", "valueExpression": "claims.tenant"},
                {"key": "example.org/none", "valueExpression": "''"},
            ],
        },
        claimValidationRules=[
            {"claim": "hd", "requiredValue": "example.org"},
            {"expression": "claims.email_verified == true", "message": "unverified"},
        ],
        userValidationRules=[{"expression": "!user.username.startsWith('system:')", "message": "reserved"}],
    )
    good = {"email": "jane@x", "tenant": "t", "roles": ["a"], "sub": "1", "hd": "example.org", "email_verified": True}
    user = await a.user(issuer.token(NOW, **good))
    assert user == User("jane:t", "1", ("g-a",), {"example.org/tenant": ["t"]})
    for change, why in (
        ({"hd": "x"}, "oidc: required claim hd value does not match. Got = x, want = example.org"),
        (
            {"email_verified": False},
            "oidc: error evaluating claim validation expression: validation expression "
            "'claims.email_verified == true' failed: unverified",
        ),
        (
            {"email": "system:a@x"},
            "oidc: error evaluating user info validation rule: validation expression "
            "'!user.username.startsWith('system:')' failed: reserved",
        ),
        ({"roles": [1]}, "oidc: error evaluating group claim expression: "),
    ):
        assert (await a.refused(issuer.token(NOW, **{**good, **change}))).startswith(why)
    del good["hd"]
    assert await a.refused(issuer.token(NOW, **good)) == "oidc: required claim hd not present in ID token"


async def test_an_email_that_is_not_verified(issuer: OpenIDIssuer, asked: Any) -> None:
    a = await asked(claimMappings={"username": {"claim": "email", "prefix": ""}})
    assert (await a.user(issuer.token(NOW, email="j@x"))).name == "j@x"
    assert await a.refused(issuer.token(NOW, email="j@x", email_verified=False)) == "oidc: email not verified"


async def test_groups_that_live_elsewhere(issuer: OpenIDIssuer, asked: Any) -> None:
    mapping = {"username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": "x:"}}
    a = await asked(claimMappings=mapping)
    issuer.answers["/groups"] = lambda _: issuer.token(NOW, groups=["dev"])
    source = {"_claim_names": {"groups": "s"}, "_claim_sources": {"s": {"endpoint": f"{issuer.url}/groups"}}}
    assert (await a.user(issuer.token(NOW, sub="jane", **source))).groups == ("x:dev",)
    issuer.answers["/groups"] = lambda _: issuer.token(NOW, other=1)
    assert "did not contain claim: groups" in await a.refused(issuer.token(NOW, sub="joe", **source))


async def test_a_discovery_url_of_its_own(issuer: OpenIDIssuer, asked: Any) -> None:
    issuer.answers["/discovery"] = lambda _: {"issuer": "https://idp.example", "jwks_uri": f"{issuer.url}/keys"}
    a = await asked(issuer={"url": "https://idp.example", "discoveryURL": f"{issuer.url}/discovery"})
    assert (await a.user(issuer.token(NOW, iss="https://idp.example", sub="jane"))).name == "oidc:jane"


async def test_what_was_verified_is_kept_no_longer_than_the_token_holds(issuer: OpenIDIssuer, asked: Any) -> None:
    a = await asked()
    token = issuer.token(NOW, sub="jane", exp=int(NOW) + 5)
    assert (await a.user(token)).name == "oidc:jane"
    await a.clock.advance(6)
    assert "token is expired" in await a.refused(token)
