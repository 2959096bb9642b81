"""The authorizers that the configuration asks for, in its order; exchanged when its file changes.

Source: kubernetes pkg/kubeapiserver/authorizer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from berg.apiserver import files
from berg.apiserver.auth import authorization, authorization_config
from berg.apiserver.auth.authorization import AlwaysAllow, AlwaysDeny, Authorizer, Decision, Union
from berg.apiserver.auth.configuration_file import BadConfiguration
from berg.apiserver.auth.figures import WebhookFigures
from berg.apiserver.auth.rbac import RBACAuthorizer
from berg.apiserver.registry.services import Services
from berg.apiserver.reloads import Reloads
from berg.machinery import duration
from berg.machinery.metrics import Registry, Samples
from berg.machinery.status import Obj

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class Authorizers:
    """`union` is what is asked. `close()` when the server stops."""

    def __init__(self, services: Services, rbac: RBACAuthorizer, spawn: Spawn, server: str) -> None:
        """Raises ValueError, OSError when the configuration cannot be used."""
        config = self._config = services.config
        self._services = services
        self._rbac = rbac
        found = authorization_config.of(config)
        self._first = [a["type"] for a in found["authorizers"]]
        self._known: dict[str, Authorizer] = {}
        self._named: dict[Authorizer, tuple[str, str]] = {}
        """type and name of each that there is or was"""
        self.webhooks = WebhookFigures(services.metrics)
        self._read: Obj = found
        self.union = Union([self._make(a) for a in found["authorizers"]])
        self.reloads: Reloads | None = None
        if config.authorization_config:
            self.reloads = Reloads("authorization", server, config.authorization_config)
            spawn(files.follow([config.authorization_config], self.reload, config.clock))

    def _make(self, one: Obj) -> Authorizer:
        found = self._found(one)
        self._named[found] = (one["type"], one.get("name") or one["type"].lower())
        return found

    def _found(self, one: Obj) -> Authorizer:
        type_ = one["type"]
        if type_ == "Webhook":
            return self._webhook(one["name"], one["webhook"])
        if type_ not in self._known:
            if type_ in ("Node", "RBAC", "ABAC") and type_ not in self._first:
                told = f"authorizer type {type_} is not allowed if it was not enabled at initial server startup"
                raise BadConfiguration(told)
            self._known[type_] = self._built_in(type_)
        return self._known[type_]

    def _built_in(self, type_: str) -> Authorizer:
        match type_:
            case "RBAC":
                return self._rbac
            case "Node":
                from berg.apiserver.auth.node import NodeAuthorizer

                return NodeAuthorizer(self._services)
            case "ABAC":
                from berg.apiserver.auth.abac import ABACAuthorizer

                return ABACAuthorizer.read(self._config.authorization_policy_file)
            case "AlwaysAllow":
                return AlwaysAllow()
            case _:
                return AlwaysDeny()

    def _webhook(self, name: str, webhook: Obj) -> Authorizer:
        from berg.apiserver.auth.access_webhook import VERSIONS, AccessWebhook, Terms
        from berg.apiserver.http import remote

        def ttl_s(which: str) -> float:
            cached = webhook.get(f"cache{which[0].upper()}{which[1:]}Requests")
            return duration.seconds(webhook[f"{which}TTL"]) if cached is not False else 0.0

        version = webhook["subjectAccessReviewVersion"]
        if version not in VERSIONS:
            known = ", ".join(f'"{v}"' for v in VERSIONS)
            told = f'unsupported webhook authorizer version "{version}", supported versions are {known}'
            raise BadConfiguration(told)
        terms = Terms(
            name,
            version,
            ttl_s("authorized"),
            ttl_s("unauthorized"),
            Decision.DENY if webhook["failurePolicy"] == "Deny" else Decision.NO_OPINION,
            [c["expression"] for c in webhook.get("matchConditions") or ()],
        )
        file = webhook["connectionInfo"].get("kubeConfigFile") or ""
        server = remote.read(file, timeout_s=duration.seconds(webhook["timeout"]))
        return AccessWebhook(server, terms, self._config.clock, figures=self.webhooks)

    async def reload(self) -> None:
        """The authorizers of the file as it is now; the old ones stay when it cannot be used."""
        assert self.reloads is not None
        try:
            found = authorization_config.load(self._config.authorization_config)
            if found == self._read:
                return
            new = [self._make(a) for a in found["authorizers"]]
        except Exception:
            self.reloads.done(well=False)
            raise
        old, self.union.authorizers = self.union.authorizers, new
        self._read = found
        self.reloads.done(well=True)
        for one in old:
            if one not in new:
                await _close(one)

    async def close(self) -> None:
        for one in self.union.authorizers:
            await _close(one)

    def describe(self, registry: Registry) -> None:
        def decisions() -> Samples:
            sums: dict[tuple[str, ...], int] = {}
            for (authorizer, allowed), count in self.union.decisions.items():
                type_, name = self._named[authorizer]
                labels = ("allowed" if allowed else "denied", name, type_)
                sums[labels] = sums.get(labels, 0) + count
            return sums.items()

        help = "[ALPHA] Decisions that were final, by who made them."
        registry.total("apiserver_authorization_decisions_total", help, ("decision", "name", "type"), decisions)
        if self.reloads is not None:
            self.reloads.describe(registry)


async def _close(authorizer: authorization.Authorizer) -> None:
    close = getattr(authorizer, "close", None)
    if close is not None:
        await close()
