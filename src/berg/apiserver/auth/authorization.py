"""Authorization: may this user do that? Authorizers are asked in turn; the first that allows or denies decides.

Decisions are asked for on every request, so an authorizer answers from memory, at once; only a webhook may give an
awaitable of its answer instead. Whoever asks has both to take: `settled()`, or, in the request chain, a look at
what came.

Source: k8s.io/apiserver pkg/authorization.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from berg.apiserver.http.message import User
from berg.apiserver.requestinfo import RequestInfo
from berg.machinery import status
from berg.machinery.status import ApiError

MASTERS = "system:masters"


class Decision(Enum):
    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


@dataclass(slots=True, frozen=True)
class AuthzAttributes:
    """What is asked. For a path that is no resource only `user`, `verb` and `path` count."""

    user: User
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    is_resource: bool = True
    field_selector: str = ""
    label_selector: str = ""


@dataclass(slots=True, frozen=True)
class Verdict:
    decision: Decision
    reason: str = ""
    error: str = ""
    """what went wrong on the way; a request that is not allowed is then answered with 500"""

    @property
    def allowed(self) -> bool:
        return self.decision is Decision.ALLOW


ALLOWED = Verdict(Decision.ALLOW)
NO_OPINION = Verdict(Decision.NO_OPINION)


Answer = Verdict | Awaitable[Verdict]


class Authorizer(Protocol):
    def authorize(self, a: AuthzAttributes) -> Answer: ...


async def settled(answer: Answer) -> Verdict:
    return answer if isinstance(answer, Verdict) else await answer


class AlwaysAllow:
    def authorize(self, a: AuthzAttributes) -> Verdict:
        return ALLOWED


class AlwaysDeny:
    def authorize(self, a: AuthzAttributes) -> Verdict:
        return Verdict(Decision.NO_OPINION, "Everything is forbidden.")


class Union:
    """`system:masters` may do everything; then each authorizer in its order. They are exchanged when the
    configuration is read again."""

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self.authorizers = authorizers
        self.decisions: dict[tuple[Authorizer, bool], int] = {}
        """who decided, whether it was allowed → how often"""

    def authorize(self, a: AuthzAttributes) -> Answer:
        if MASTERS in a.user.groups:
            return ALLOWED
        return self._ask(a, iter(self.authorizers), [], [])

    def _ask(self, a: AuthzAttributes, left: Iterator[Authorizer], reasons: list[str], errors: list[str]) -> Answer:
        for authorizer in left:
            answer = authorizer.authorize(a)
            if not isinstance(answer, Verdict):
                return self._wait(a, authorizer, answer, left, reasons, errors)
            if self._decided(authorizer, answer, reasons, errors):
                return answer
        if not reasons and not errors:
            return NO_OPINION
        return Verdict(Decision.NO_OPINION, "\n".join(reasons), _joined(errors))

    async def _wait(
        self,
        a: AuthzAttributes,
        authorizer: Authorizer,
        answer: Awaitable[Verdict],
        left: Iterator[Authorizer],
        reasons: list[str],
        errors: list[str],
    ) -> Verdict:
        verdict = await answer
        if self._decided(authorizer, verdict, reasons, errors):
            return verdict
        return await settled(self._ask(a, left, reasons, errors))

    def _decided(self, authorizer: Authorizer, verdict: Verdict, reasons: list[str], errors: list[str]) -> bool:
        if verdict.decision is not Decision.NO_OPINION:
            key = (authorizer, verdict.decision is Decision.ALLOW)
            self.decisions[key] = self.decisions.get(key, 0) + 1
            return True
        if verdict.reason:
            reasons.append(verdict.reason)
        if verdict.error:
            errors.append(verdict.error)
        return False


def _joined(errors: list[str]) -> str:
    return errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]" if errors else ""


def attributes_of(user: User, info: RequestInfo, field_selector: str = "", label_selector: str = "") -> AuthzAttributes:
    if not info.is_resource:
        return AuthzAttributes(user, info.verb, path=info.path, is_resource=False)
    return AuthzAttributes(
        user,
        info.verb,
        info.api_group,
        info.api_version,
        info.resource,
        info.subresource,
        info.namespace,
        info.name,
        info.path,
        field_selector=field_selector,
        label_selector=label_selector,
    )


def forbidden(a: AuthzAttributes, reason: str = "") -> ApiError:
    """The 403 with upstream's sentence."""
    if a.is_resource:
        resource = f"{a.resource}/{a.subresource}" if a.subresource else a.resource
        where = f'in the namespace "{a.namespace}"' if a.namespace else "at the cluster scope"
        text = f'User "{a.user.name}" cannot {a.verb} resource "{resource}" in API group "{a.group}" {where}'
    else:
        text = f'User "{a.user.name}" cannot {a.verb} path "{a.path}"'
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if reason:
        text += f": {reason}"
    if not a.is_resource:
        return status.forbidden("", "", "", text)
    return status.forbidden(a.group, a.resource, a.name, text)
