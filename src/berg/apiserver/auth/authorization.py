"""Authorization: may this user do that? Authorizers are asked in turn; the first that allows or denies decides.

Decisions are asked for on every request, so an authorizer answers from memory, without waiting; only a webhook
(which is asked last and whose answers are cached) may wait.

Source: k8s.io/apiserver pkg/authorization.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    @property
    def allowed(self) -> bool:
        return self.decision is Decision.ALLOW


ALLOWED = Verdict(Decision.ALLOW)
NO_OPINION = Verdict(Decision.NO_OPINION)


class Authorizer(Protocol):
    def authorize(self, a: AuthzAttributes) -> Verdict: ...


class AlwaysAllow:
    def authorize(self, a: AuthzAttributes) -> Verdict:
        return ALLOWED


class AlwaysDeny:
    def authorize(self, a: AuthzAttributes) -> Verdict:
        return Verdict(Decision.NO_OPINION, "Everything is forbidden.")


class Union:
    """`system:masters` may do everything; then each authorizer in the order of `--authorization-mode`."""

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self.authorizers = authorizers

    def authorize(self, a: AuthzAttributes) -> Verdict:
        if MASTERS in a.user.groups:
            return ALLOWED
        reasons: list[str] = []
        for authorizer in self.authorizers:
            verdict = authorizer.authorize(a)
            if verdict.decision is not Decision.NO_OPINION:
                return verdict
            if verdict.reason:
                reasons.append(verdict.reason)
        return Verdict(Decision.NO_OPINION, "\n".join(reasons)) if reasons else NO_OPINION


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
