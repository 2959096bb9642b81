"""All methods of authentication, as the configuration asks for them; what is read again when a file changes.

    front proxy → client certificate → bearer token: file, service account, bootstrap, JWT issuers, webhook → anonymous

Source: kubernetes pkg/kubeapiserver/authenticator/config.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from berg.apiserver import files
from berg.apiserver.auth import authentication
from berg.apiserver.auth.authentication import Anonymous, Authentication, Bearer, Found, TokenAuthenticator
from berg.apiserver.auth.bootstrap_tokens import BootstrapTokens
from berg.apiserver.auth.figures import IssuerFigures, describe_accounts, describe_caches
from berg.apiserver.auth.serviceaccount import Lookup, ServiceAccountTokens
from berg.apiserver.config import Config
from berg.apiserver.reloads import Reloads
from berg.machinery.metrics import Registry
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.apiserver.auth.oidc import JWTAuthenticator

log = logging.getLogger(__name__)

HEALTHY_WITHIN_S = 60.0
"""how long issuers of a new configuration may take until the old one is kept instead"""

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class OwnAudiences:
    """A method whose tokens name no audience: they are good for the API server itself, and for nobody else."""

    def __init__(self, method: TokenAuthenticator, audiences: Sequence[str]) -> None:
        self._method = method
        self._audiences = audiences

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> Found | Awaitable[Found]:
        good = [a for a in audiences if a in self._audiences] if audiences else list(self._audiences)
        return self._method.authenticate_token(token, good) if good else None


class Issuers(Bearer):
    """The JWT authenticators that are in force."""

    def __init__(self) -> None:
        super().__init__([])
        self.members: list[Any] = []
        self.config: list[Obj] = []

    def use(self, members: list[Any], config: list[Obj]) -> list[Any]:
        """Gives what was in force until now."""
        old, self.members, self.config = self.members, members, config
        self.methods = members
        return old


class Methods:
    """`close()` when the server stops."""

    def __init__(self, config: Config, lookup: Lookup, spawn: Spawn, server: str, registry: Registry) -> None:
        """Raises ValueError, OSError when something of the configuration cannot be used."""
        if config.service_account_signing_endpoint:
            told = "service-account-signing-endpoint: tokens are signed here; give --service-account-signing-key-file"
            raise ValueError(told)
        self.config = config
        self._spawn = spawn
        self.tokens = ServiceAccountTokens(
            signing_key_file=config.service_account_signing_key_file,
            key_files=config.service_account_key_file,
            issuers=config.service_account_issuer,
            audiences=config.api_audiences,
            lookup=lookup,
            clock=config.clock,
            check_objects=config.service_account_lookup,
            extend=config.service_account_extend_token_expiration,
        )
        self.audiences = self.tokens.audiences
        self._caches = [self.tokens.cache]
        self._issuers: Issuers | None = None
        self._registry = registry
        self._issuer_figures = IssuerFigures(server, registry)
        self._webhook: Any = None
        self.reloads: Reloads | None = None
        anonymous = Anonymous(config.anonymous_auth is not False)
        methods = list(self._certificates())
        tokens = list(self._token_methods(lookup))
        if config.authentication_config or config.oidc_issuer_url or config.oidc_client_id:
            anonymous = self._start_issuers(tokens, anonymous, server)
        if config.authentication_token_webhook_config_file:
            tokens.append(self._token_webhook())
        self.bearer = Bearer(tokens)
        methods.append(self.bearer)
        self.authentication = Authentication(methods, anonymous=anonymous)

    def _certificates(self) -> Iterator[authentication.Authenticator]:
        config = self.config
        self.authorities: list[Any] = []
        if not config.requestheader_client_ca_file and not config.client_ca_file:
            return
        from berg.apiserver.auth.certificates import X509, Authorities, RequestHeader

        if config.requestheader_client_ca_file:
            self.authorities.append(Authorities(config.requestheader_client_ca_file))
            yield RequestHeader(
                self.authorities[-1],
                config.requestheader_allowed_names,
                config.requestheader_username_headers,
                config.requestheader_group_headers,
                config.requestheader_extra_headers_prefix,
                config.requestheader_uid_headers,
            )
        if config.client_ca_file:
            self.authorities.append(Authorities(config.client_ca_file))
            found = X509(self.authorities[-1])
            help = "[ALPHA] How long the certificates that clients show are still good."
            self._registry.distribution(
                "apiserver_client_certificate_expiration_seconds",
                help,
                found.left.bounds,
                (),
                lambda: [((), found.left)],
            )
            yield found

    def _token_methods(self, lookup: Lookup) -> Iterator[TokenAuthenticator]:
        config = self.config
        if config.token_auth_file:
            yield OwnAudiences(authentication.TokenFile(config.token_auth_file), self.audiences)
        yield self.tokens
        if config.enable_bootstrap_token_auth:
            yield OwnAudiences(BootstrapTokens(lookup, config.clock), self.audiences)

    def _token_webhook(self) -> TokenAuthenticator:
        from berg.apiserver.auth.token_webhook import TokenWebhook
        from berg.apiserver.http import remote

        config = self.config
        self._webhook = TokenWebhook(
            remote.read(config.authentication_token_webhook_config_file),
            version=config.authentication_token_webhook_version,
            audiences=self.audiences,
            ttl_s=config.authentication_token_webhook_cache_ttl_s,
            clock=config.clock,
        )
        self._caches.append(self._webhook.cache)
        return self._webhook

    # ---- JWT issuers

    def _start_issuers(self, tokens: list[TokenAuthenticator], anonymous: Anonymous, server: str) -> Anonymous:
        from berg.apiserver.auth import authentication_config

        config = self.config
        found = authentication_config.of(config)
        told = found.get("anonymous")
        if told is not None:
            paths = frozenset(c.get("path") or "" for c in told.get("conditions") or ())
            anonymous = Anonymous(bool(told.get("enabled")), paths)
        self._issuers = Issuers()
        self._issuers.use(self._members(found), found.get("jwt") or [])
        for member in self._issuers.members:
            self._spawn(member.run())
        tokens.append(OwnAudiences(self._issuers, self.audiences))
        if config.authentication_config:
            self.reloads = Reloads("authentication", server, config.authentication_config)
            self._spawn(files.follow([config.authentication_config], self.reload, config.clock))
        return anonymous

    def _members(self, found: Obj) -> list[Any]:
        from berg.apiserver.auth import authentication_config
        from berg.apiserver.auth.oidc import JWTAuthenticator

        algorithms = authentication_config.algorithms(self.config)
        members = [
            JWTAuthenticator(one, clock=self.config.clock, algorithms=algorithms) for one in found.get("jwt") or ()
        ]
        for member in members:
            self._watch(member)
            self._caches.append(member.cache)
        return members

    def _watch(self, member: JWTAuthenticator) -> None:
        figures, issuer = self._issuer_figures, member.issuer
        member.verified = lambda started, ok: figures.verified(member.url, started, ok=ok)
        issuer.fetched = lambda ok: figures.fetched(member.url, issuer.jwks_hash, ok=ok)

    async def reload(self) -> None:
        """The issuers of the file as it is now, once all of them answer; the old ones stay when they do not. Who is
        anonymous does not change while the server runs."""
        from berg.apiserver.auth import authentication_config

        assert self._issuers is not None and self.reloads is not None
        try:
            found = authentication_config.reload(self.config.authentication_config, self.config.service_account_issuer)
            if (found.get("jwt") or []) == self._issuers.config:
                return
            members = self._members(found)
            await self._healthy(members)
        except Exception:
            self.reloads.done(well=False)
            raise
        old = self._issuers.use(members, found.get("jwt") or [])
        self.reloads.done(well=True)
        for member in old:
            if all(m.url != member.url for m in members):
                self._issuer_figures.gone(member.url)
            await member.close()

    async def _healthy(self, members: list[Any]) -> None:
        try:
            async with asyncio.timeout(HEALTHY_WITHIN_S):
                await asyncio.gather(*(m.run() for m in members))
        except TimeoutError:
            faults = [m.fault for m in members if m.fault]
            for member in members:
                await member.close()
            raise RuntimeError(f"authentication config: issuers do not answer: {'; '.join(faults)}") from None

    # ---- life

    def reload_authorities(self) -> None:
        for authorities in self.authorities:
            authorities.reload()

    def describe(self, registry: Registry) -> None:
        describe_caches(self._caches, registry)
        describe_accounts(self.tokens.counts, registry)
        if self.reloads is not None:
            self.reloads.describe(registry)

    async def close(self) -> None:
        for member in self._issuers.members if self._issuers is not None else ():
            await member.close()
        if self._webhook is not None:
            await self._webhook.close()
