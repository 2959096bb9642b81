"""Tokens of OpenID issuers: signed JWTs, verified with the keys that the issuer publishes.

    discovery (every 10 s until it answers) ─► jwks_uri ─► keys, read again when a token fits none of them

With the keys in memory a token is verified at once, and what it says is kept for ten seconds; only a token that
no known key has signed waits for the issuer. A groups claim may live elsewhere (a distributed claim), which is
asked for each time.

Source: k8s.io/apiserver plugin/pkg/authenticator/token/oidc/oidc.go; OpenID Connect Discovery 1.0; RFC 7517.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from berg.apiserver.auth.authentication import Found, Unauthorized
from berg.apiserver.auth.claims import Mapping, json_kind
from berg.apiserver.auth.figures import CacheFigures
from berg.apiserver.http.message import User
from berg.machinery.clock import Clock
from berg.machinery.status import Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

ALGORITHMS = ("ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
RETRY_S = 10.0
KEEP_S = 10.0
LEEWAY_S = 60.0
MAX_KEPT = 10_000
TIMEOUT_S = 30.0
_WELL_KNOWN = "/.well-known/openid-configuration"
_GOOGLE = "https://accounts.google.com"


class IssuerError(Exception):
    """The issuer cannot be reached, or what it says cannot be used."""


class Issuer:
    """What one issuer publishes. `discovery_url` is asked instead of the well-known place below `url`."""

    def __init__(self, url: str, discovery_url: str, tls: ssl.SSLContext) -> None:
        self.url = url
        self.keys: list[Any] | None = None
        """jwt.PyJWK each; None: not discovered yet"""
        self.jwks_hash = ""
        self.fetched: Callable[[bool], None] = lambda ok: None
        self._discovery_url = discovery_url or url.rstrip("/") + _WELL_KNOWN
        self._tls = tls
        self._jwks_url = ""
        self._session: Any = None
        self._fetching: asyncio.Task[None] | None = None

    async def discover(self) -> None:
        """Raises IssuerError."""
        found = _parsed(await self.get(self._discovery_url), "oidc: failed to decode provider discovery object")
        if found.get("issuer") != self.url:
            told = f'expected "{self.url}" got "{found.get("issuer") or ""}"'
            raise IssuerError(f"oidc: issuer did not match the issuer returned by provider, {told}")
        if not found.get("jwks_uri"):
            raise IssuerError("provider did not return JWKS URL")
        self._jwks_url = found["jwks_uri"]
        self.keys = []

    async def refresh(self) -> None:
        """Reads the keys again; several who ask at once wait for one answer. Raises IssuerError."""
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
            self._fetching.add_done_callback(self._fetched)
        await asyncio.shield(self._fetching)

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        self.fetched(not task.cancelled() and task.exception() is None)

    async def _fetch(self) -> None:
        import jwt

        body = await self.get(self._jwks_url)
        found = _parsed(body, "oidc: failed to decode keys")
        keys = []
        for one in found.get("keys") or ():
            try:
                keys.append(jwt.PyJWK.from_dict(one))
            except (jwt.PyJWTError, ValueError, TypeError):
                continue
        self.keys = keys
        self.jwks_hash = f"sha256:{hashlib.sha256(body).hexdigest()}"

    def payload(self, token: str, key_id: str | None, algorithm: str) -> Obj | None:
        """The claims, when one of the known keys has signed them."""
        import jwt

        for key in self.keys or ():
            if key_id and key.key_id != key_id:
                continue
            try:
                return json.loads(jwt.PyJWS().decode(token, key.key, algorithms=[algorithm]))
            except (jwt.PyJWTError, ValueError, TypeError):
                continue
        return None

    async def get(self, url: str, token: str = "") -> bytes:
        import aiohttp

        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), trust_env=True
            )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with self._session.get(url, headers=headers) as response:
                body: bytes = await response.read()
                if response.status != 200:
                    raise IssuerError(f"{response.status} {response.reason}: {body.decode('utf-8', 'replace')}")
                return body
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise IssuerError(f'Get "{url}": {e or type(e).__name__}') from None

    async def close(self) -> None:
        await end(self._fetching)
        if self._session is not None:
            await self._session.close()


class JWTAuthenticator:
    """One entry of `jwt` in an AuthenticationConfiguration."""

    def __init__(self, config: Obj, *, clock: Clock, algorithms: Sequence[str] = ALGORITHMS) -> None:
        issuer = config["issuer"]
        self.url: str = issuer["url"]
        self._audiences: list[str] = issuer["audiences"]
        self._algorithms = list(algorithms)
        self._mapping = Mapping(config)
        self._clock = clock
        ca = issuer.get("certificateAuthority") or ""
        self._tls = _client_tls(ca)
        self.issuer = Issuer(self.url, issuer.get("discoveryURL") or "", self._tls)
        self._elsewhere: dict[str, Issuer] = {}
        """issuers of distributed claims"""
        self._kept: dict[str, tuple[User, float]] = {}
        self.cache = CacheFigures()
        self.verified: Callable[[float, bool], None] = lambda started, ok: None
        """told when a token was looked into, since when, and whether it was good"""
        self.fault: str | None = f'oidc: authenticator for issuer "{self.url}" is not initialized'

    # ---- the issuer

    async def run(self) -> None:
        """Discovers the issuer, however long that takes."""
        while self.issuer.keys is None:
            try:
                await self.issuer.discover()
            except IssuerError as e:
                self.fault = str(e)
                log.error("oidc authenticator: initializing plugin: %s", e)
                await self._clock.sleep(RETRY_S)
        self.fault = None

    async def close(self) -> None:
        for issuer in (self.issuer, *self._elsewhere.values()):
            await issuer.close()

    # ---- tokens

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> Found | Awaitable[Found]:
        kept = self._kept.get(token)
        if kept is not None and self._clock.monotonic() < kept[1]:
            self.cache.hits += 1
            return kept[0], list(audiences)
        header, claims = _untrusted(token)
        if claims is None or _issuer_of(claims) != self.url:
            return None
        started = perf_counter()
        try:
            found = self._looked_into(token, header, audiences)
        except Unauthorized:
            self._told(started, ok=False)
            raise
        if isinstance(found, tuple):
            self._told(started, ok=True)
            return found
        return self._waited_for(started, found)

    async def _waited_for(self, started: float, answer: Awaitable[Found]) -> Found:
        self.cache.asking += 1
        ok = False
        try:
            found = await answer
            ok = True
        finally:
            self.cache.asking -= 1
            self._told(started, ok=ok)
        return found

    def _told(self, started: float, *, ok: bool) -> None:
        self.cache.missed(started, ok=ok)
        self.verified(started, ok)

    def _looked_into(
        self, token: str, header: Obj, audiences: Sequence[str]
    ) -> tuple[User, list[str]] | Awaitable[Found]:
        signature = token.rpartition(".")[2]
        if len(signature) % 4 == 1:  # no base64 is that long
            why = f"malformed jwt: illegal base64 data at input byte {len(signature) - 1}"
            raise Unauthorized(f"oidc: verify token: oidc: {why}")
        if self.issuer.keys is None:
            raise Unauthorized("oidc: authenticator not initialized")
        algorithm = self._algorithm(header)
        payload = self.issuer.payload(token, header.get("kid"), algorithm)
        if payload is None:
            return self._after_refresh(token, header, algorithm, audiences)
        self._check(payload, self.url)
        if self._is_distributed(payload):
            return self._expanded(payload, audiences)
        return self._keep(token, self._mapping.user(payload), payload), list(audiences)

    async def _after_refresh(self, token: str, header: Obj, algorithm: str, audiences: Sequence[str]) -> Found:
        payload = await self._verified(self.issuer, token, header, algorithm, "oidc: verify token")
        self._check(payload, self.url)
        if self._is_distributed(payload):
            return await self._expanded(payload, audiences)
        return self._keep(token, self._mapping.user(payload), payload), list(audiences)

    async def _verified(self, issuer: Issuer, token: str, header: Obj, algorithm: str, what: str) -> Obj:
        payload = issuer.payload(token, header.get("kid"), algorithm)
        if payload is not None:
            return payload
        try:
            await issuer.refresh()
        except IssuerError as e:
            raise Unauthorized(f"{what}: failed to verify signature: fetching keys {e}") from None
        payload = issuer.payload(token, header.get("kid"), algorithm)
        if payload is None:
            raise Unauthorized(f"{what}: failed to verify signature: failed to verify id token signature")
        return payload

    def _algorithm(self, header: Obj) -> str:
        algorithm = str(header.get("alg"))
        if algorithm not in self._algorithms:
            expected = "[" + " ".join(f'"{a}"' for a in self._algorithms) + "]"
            why = f'id token signed with unsupported algorithm, expected {expected} got "{algorithm}"'
            raise Unauthorized(f"oidc: verify token: oidc: {why}")
        return algorithm

    def _check(self, claims: Obj, issuer: str) -> None:
        """Issuer, audience and times of a token whose signature holds."""
        for name in ("iss", "sub", "nonce", "at_hash"):
            value = claims.get(name)
            if value is not None and not isinstance(value, str):
                field = f"Go struct field idToken.{name} of type string"
                why = f"failed to unmarshal claims: json: cannot unmarshal {json_kind(value)} into {field}"
                raise Unauthorized(f"oidc: verify token: oidc: {why}")
        if _issuer_of(claims) != issuer:
            raise Unauthorized("oidc: verify token: oidc: id token issued by a different provider")
        given = claims.get("aud")
        given = [given] if isinstance(given, str) else given or []
        if not set(given) & set(self._audiences):
            if len(self._audiences) == 1:
                expected = f'"{self._audiences[0]}"'
            else:
                expected = f"in {_quoted(sorted(self._audiences))}"
            raise Unauthorized(f"oidc: verify token: oidc: expected audience {expected} got {_quoted(given)}")
        now = self._clock.now().timestamp()
        expires, starts = _time(claims, "exp") or 0, _time(claims, "nbf")
        if expires < now:
            raise Unauthorized(f"oidc: verify token: oidc: token is expired (Token Expiry: {_moment(expires)})")
        if starts is not None and now + LEEWAY_S < starts:
            why = f"current time {_moment(now)} before the nbf (not before) time: {_moment(starts)}"
            raise Unauthorized(f"oidc: verify token: oidc: {why}")

    def _keep(self, token: str, user: User, claims: Obj) -> User:
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        left = claims["exp"] - self._clock.now().timestamp()
        self._kept[token] = user, self._clock.monotonic() + min(KEEP_S, left)
        return user

    # ---- distributed claims: OpenID Connect Core 1.0, 5.6.2

    def _is_distributed(self, claims: Obj) -> bool:
        claim = self._mapping.groups_claim
        return bool(claim) and claim not in claims and "_claim_names" in claims

    async def _expanded(self, claims: Obj, audiences: Sequence[str]) -> Found:
        what = "oidc: could not expand distributed claims"
        claim = self._mapping.groups_claim
        sources, names = claims.get("_claim_sources"), claims["_claim_names"]
        if not isinstance(sources, dict) or not isinstance(names, dict):
            raise Unauthorized(f"{what}: oidc: no claim sources")
        source = names.get(claim)
        if source is not None:
            if source not in sources:
                why = f"id token _claim_names contained a source {source} missing in _claims_sources"
                raise Unauthorized(f"{what}: {why}")
            url = sources[source].get("endpoint")
            if url:
                claims = {**claims, claim: await self._fetch_claim(url, sources[source].get("access_token") or "")}
        return self._mapping.user(claims), list(audiences)

    async def _fetch_claim(self, url: str, access_token: str) -> Any:
        what = "oidc: could not expand distributed claims"
        claim = self._mapping.groups_claim
        try:
            token = (await self.issuer.get(url, access_token)).decode("ascii", "replace").strip()
            header, untrusted = _untrusted(token)
            if untrusted is None:
                raise IssuerError("malformed token")
            url_of_issuer = _issuer_of(untrusted)
            issuer = self._elsewhere.get(url_of_issuer)
            if issuer is None:
                issuer = self.issuer if url_of_issuer == self.url else Issuer(url_of_issuer, "", self._tls)
                if issuer is not self.issuer:
                    self._elsewhere[url_of_issuer] = issuer
            if issuer.keys is None:
                await issuer.discover()
        except IssuerError as e:
            raise Unauthorized(f'{what}: while getting distributed claim "{claim}": {e}') from None
        payload = await self._verified(issuer, token, header, self._algorithm(header), f"{what}: verify")
        self._check(payload, url_of_issuer)
        if claim not in payload:
            why = f'jwt returned by distributed claim endpoint "{url}" did not contain claim: {claim}'
            raise Unauthorized(f"{what}: {why}")
        return payload[claim]


def _untrusted(token: str) -> tuple[Obj, Obj | None]:
    """Header and claims of a token that nobody has verified; no claims when it is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}, None
    try:
        header, claims = (json.loads(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4))) for p in parts[:2])
    except (ValueError, binascii.Error):
        return {}, None
    return (header, claims) if isinstance(header, dict) and isinstance(claims, dict) else ({}, None)


def _time(claims: Obj, name: str) -> float | None:
    value = claims.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise Unauthorized(f"oidc: verify token: oidc: failed to unmarshal claims: {name} is no number")
    return value


def _moment(timestamp: float) -> str:
    """As Go prints a time; 0 is no time."""
    if timestamp <= 0:
        return "0001-01-01 00:00:00 +0000 UTC"
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M:%S} +0000 UTC"


def _issuer_of(claims: Obj) -> str:
    issuer = str(claims.get("iss") or "")
    return _GOOGLE if issuer == "accounts.google.com" else issuer


def _client_tls(ca: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca or None)
    if ca:  # an authority made by older tools lacks what strict verification asks for
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _parsed(body: bytes, what: str) -> Obj:
    try:
        found = json.loads(body)
    except ValueError as e:
        raise IssuerError(f"{what}: {e}") from None
    if not isinstance(found, dict):
        raise IssuerError(f"{what}: not an object")
    return found


def _quoted(values: Sequence[Any]) -> str:
    return "[" + " ".join(json.dumps(v) for v in values) + "]"
