"""Impersonation: acting as someone else, for which there are several rights. The first that is held counts.

    associated-node   a service account, as the node that its pod is on   impersonate:associated-node nodes *
    arbitrary-node    as any node                                         impersonate:arbitrary-node nodes NAME
    serviceaccount    as a service account                                impersonate:serviceaccount serviceaccounts
    user-info         as anybody else                                     impersonate:user-info users, groups, …
    legacy            as anybody, for everything                          impersonate users, groups, …

All but the last are constrained: they also take the right to do so for what is asked for, a verb like
`impersonate-on:user-info:list`.

Source: k8s.io/apiserver pkg/endpoints/filters/impersonation; KEP-5284.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from time import perf_counter
from urllib.parse import unquote

from berg.apiserver.auth import authorization, extra_keys
from berg.apiserver.auth.authentication import AUTHENTICATED, UNAUTHENTICATED
from berg.apiserver.auth.authorization import MASTERS, Authorizer, AuthzAttributes, Verdict
from berg.apiserver.http.message import Request, User
from berg.machinery import names, status
from berg.machinery.metrics import Histogram, Registry, exponential

_EXTRA = "impersonate-extra-"
_NODE = "system:node:"
_ACCOUNT = "system:serviceaccount:"
_NODES = "system:nodes"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_AUTHN = "authentication.k8s.io"
_SECONDS = exponential(0.001, 2, 15)
_MANY = 4
"""from so many groups or extra values on it is asked first whether all are allowed"""


class Figures:
    """What is counted of it."""

    def __init__(self) -> None:
        labels, prefix = ("decision", "mode"), "apiserver_impersonation"
        self.attempts = Histogram(labels, _SECONDS)
        self.questions = Histogram(labels, _SECONDS)
        self._told = (
            (f"{prefix}_attempts", "Attempts to act as somebody else", self.attempts),
            (f"{prefix}_authorization_attempts", "Questions whether somebody may", self.questions),
        )

    def describe(self, registry: Registry) -> None:
        for name, what, kept in self._told:
            registry.distribution(f"{name}_duration_seconds", f"[ALPHA] {what}: how long.", _SECONDS, kept.labels,
                                  kept.cells)  # fmt: skip
            registry.total(f"{name}_total", f"[ALPHA] {what}.", kept.labels,
                           lambda kept=kept: [(k, c.count) for k, c in kept.cells()])  # type: ignore[misc]  # fmt: skip


async def impersonate(
    request: Request, authorizer: Authorizer, *, constrained: bool = True, figures: Figures | None = None
) -> User:
    """The user to act as. Raises Forbidden, or BadRequest when no user is named."""
    figures = figures or Figures()
    requestor = request.user
    assert requestor is not None
    wanted = _wanted(request)
    if wanted is None:
        return requestor
    asked = authorization.attributes_of(requestor, request.info)
    fault: status.ApiError | None = None
    started = perf_counter()
    for mode in _MODES if constrained else ("legacy",):
        if not _fits(mode, wanted, requestor):
            continue
        try:
            user = await _Attempt(mode, authorizer, requestor, asked, figures).user(wanted)
        except status.ApiError as e:
            fault = fault or e
            continue
        figures.attempts.observe(perf_counter() - started, "allowed", mode)
        request.attributes["impersonator"] = requestor
        if mode != "legacy":
            request.attributes["impersonation_constraint"] = f"impersonate:{mode}"
        return user
    assert fault is not None
    figures.attempts.observe(perf_counter() - started, "denied", "")
    raise fault


_MODES = ("associated-node", "arbitrary-node", "serviceaccount", "user-info", "legacy")


def _wanted(request: Request) -> User | None:
    """Whom the headers name; they are taken away. Raises BadRequest."""
    headers = request.headers
    name = headers.get("impersonate-user", "").partition("\n")[0]
    uid = headers.get("impersonate-uid", "").partition("\n")[0]
    groups = tuple(headers["impersonate-group"].split("\n")) if "impersonate-group" in headers else ()
    extra: dict[str, list[str]] = {}
    for header, values in headers.items():
        if header.startswith(_EXTRA):
            extra.setdefault(unquote(header[len(_EXTRA) :].lower()), []).extend(values.split("\n"))
    if not name:
        if uid or groups or extra:
            raise status.bad_request(f"requested {_shown(uid, groups, extra)} without impersonating a user name")
        return None
    for header in [h for h in headers if h.startswith("impersonate-")]:
        del headers[header]
    return User(name, uid, groups, extra)


def _shown(uid: str, groups: tuple[str, ...], extra: dict[str, list[str]]) -> str:
    """As Go prints such a user."""

    def texts(values: list[str] | tuple[str, ...]) -> str:
        return "[]string{" + ", ".join(json.dumps(v) for v in values) + "}"

    pairs = ", ".join(f"{json.dumps(k)}:{texts(v)}" for k, v in sorted(extra.items()))
    of_groups = texts(groups) if groups else "[]string(nil)"
    of_extra = f"map[string][]string{{{pairs}}}" if extra else "map[string][]string(nil)"
    return f'&user.DefaultInfo{{Name:"", UID:{json.dumps(uid)}, Groups:{of_groups}, Extra:{of_extra}}}'


def _fits(mode: str, wanted: User, requestor: User) -> bool:
    bare = not (wanted.uid or wanted.groups or wanted.extra)
    match mode:
        case "associated-node":
            node = _node(wanted.name)
            return (
                bare
                and node is not None
                and _account(requestor.name) is not None
                and requestor.extra.get(_NODE_NAME) == [node]
            )
        case "arbitrary-node":
            return bare and _node(wanted.name) is not None
        case "serviceaccount":
            return bare and _account(wanted.name) is not None
        case "user-info":
            return _node(wanted.name) is None and _account(wanted.name) is None
    return True


@dataclass(slots=True)
class _Attempt:
    mode: str
    authorizer: Authorizer
    requestor: User
    asked: AuthzAttributes
    """what the request is about"""
    figures: Figures

    async def user(self, wanted: User) -> User:
        """Raises Forbidden."""
        if self.mode != "legacy":
            await self._may(replace(self.asked, verb=f"impersonate-on:{self.mode}:{self.asked.verb}"))
        groups = await self._name(wanted)
        if wanted.uid:
            await self._may(self._attributes("uids", wanted.uid, group=_AUTHN))
        await self._groups(wanted.groups)
        await self._extra(wanted.extra)
        if wanted.name == "system:anonymous":
            groups = groups if UNAUTHENTICATED in groups else (*groups, UNAUTHENTICATED)
        elif UNAUTHENTICATED not in groups and AUTHENTICATED not in groups:
            groups = (*groups, AUTHENTICATED)
        return User(wanted.name, wanted.uid, groups, wanted.extra)

    @property
    def _group(self) -> str:
        return "" if self.mode == "legacy" else _AUTHN

    def _attributes(
        self, resource: str, name: str, *, group: str, namespace: str = "", subresource: str = ""
    ) -> AuthzAttributes:
        verb = "impersonate" if self.mode == "legacy" else f"impersonate:{self.mode}"
        return AuthzAttributes(self.requestor, verb, group, "v1", resource, subresource, namespace, name)

    async def _may(self, question: AuthzAttributes) -> None:
        if self.mode == "associated-node":
            # what is decided must hold for every service account on every node: only which extra keys there are counts
            extra = {"authentication.kubernetes.io/associated-node-keys": sorted(question.user.extra)}
            question = replace(question, user=replace(question.user, extra=extra))
        verdict = await self._ask(question)
        if not verdict.allowed:
            why = ": ".join(t for t in (verdict.error, verdict.reason) if t)
            raise authorization.forbidden(question, why)

    async def _name(self, wanted: User) -> tuple[str, ...]:
        """The groups that the user will have."""
        node, account = _node(wanted.name), _account(wanted.name)
        question = self._attributes("users", wanted.name, group=self._group)
        groups = wanted.groups
        if node is not None and self.mode != "legacy":
            name = "*" if self.mode == "associated-node" else node
            question = self._attributes("nodes", name, group=self._group)
            groups = (_NODES,)
        elif account is not None:
            question = self._attributes("serviceaccounts", account[1], group=self._group, namespace=account[0])
            groups = wanted.groups or ("system:serviceaccounts", f"system:serviceaccounts:{account[0]}")
        await self._may(question)
        return groups

    async def _groups(self, groups: tuple[str, ...]) -> None:
        question = self._attributes("groups", "", group=self._group)
        if self.mode != "legacy":
            if "" in groups:
                raise authorization.forbidden(question, "impersonating the empty string group is not allowed")
            if MASTERS in groups:
                question = replace(question, name=MASTERS)
                raise authorization.forbidden(question, "impersonating the system:masters group is not allowed")
            if len(groups) >= _MANY and await self._allowed(replace(question, name="*")):
                return
        for group in groups:
            await self._may(replace(question, name=group))

    async def _extra(self, extra: dict[str, list[str]]) -> None:
        question = self._attributes("userextras", "", group=_AUTHN)
        if self.mode != "legacy":
            fault = _extra_fault(extra)
            if fault:
                raise authorization.forbidden(question, fault)
            many = len(extra) >= _MANY or sum(map(len, extra.values())) >= _MANY
            if many and await self._allowed(replace(question, subresource="*", name="*")):
                return
        for key, values in extra.items():
            for value in values:
                await self._may(replace(question, subresource=key, name=value))

    async def _allowed(self, question: AuthzAttributes) -> bool:
        return (await self._ask(question)).allowed

    async def _ask(self, question: AuthzAttributes) -> Verdict:
        started = perf_counter()
        verdict = await authorization.settled(self.authorizer.authorize(question))
        decision = "allowed" if verdict.allowed else "denied"
        self.figures.questions.observe(perf_counter() - started, decision, self.mode)
        return verdict


def _extra_fault(extra: dict[str, list[str]]) -> str:
    for key, values in extra.items():
        if not key:
            return "impersonating the empty string key in extra is not allowed"
        faults = list(map(str, extra_keys.faults(key, "extra.key")))
        if faults:
            told = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
            return f"impersonating an invalid key in extra is not allowed: {told}"
        if key != key.lower():
            return f"impersonating a non-lowercase key in extra is not allowed: {json.dumps(key)}"
        if "" in values:
            return "impersonating the empty string value in extra is not allowed"
    return ""


def _node(name: str) -> str | None:
    node = name.removeprefix(_NODE)
    return node if node != name and not names.dns1123_subdomain(node) else None


def _account(name: str) -> tuple[str, str] | None:
    namespace, colon, account = name.removeprefix(_ACCOUNT).partition(":")
    if not name.startswith(_ACCOUNT) or not colon:
        return None
    if names.dns1123_label(namespace) or names.dns1123_subdomain(account):
        return None
    return namespace, account
