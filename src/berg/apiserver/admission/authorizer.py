"""Asking the authorizer from within expressions: for the one who asks, or for a service account.

Source: k8s.io/apiserver pkg/cel/library/authz.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from berg.apiserver.admission import sight
from berg.apiserver.admission.interface import Api, Attributes, StillAsked
from berg.apiserver.auth.authorization import AuthzAttributes, Verdict, settled
from berg.apiserver.http.message import User
from berg.machinery import turns

if TYPE_CHECKING:
    from berg.machinery.cel.library.authorizer import Ask


def variables(a: Attributes) -> dict[str, Any]:
    from berg.machinery.cel.library import authorizer

    own = sight.requested(a)
    about = {"group": own.group, "resource": own.plural, "subresource": a.subresource, "name": a.name}
    return dict(authorizer.values(**about, namespace=a.namespace))


def asking(api: Api, a: Attributes) -> Ask:
    def ask(about: Mapping[str, Any], verb: str) -> tuple[bool, str]:
        key = (verb, *sorted(about.items()))
        verdict = (a.decisions or {}).get(key)
        if verdict is None:
            question = _question(a.user, about, verb)
            verdict = turns.on_loop(lambda: settled(api.decide(question)))
        if verdict is None:
            answer = api.decide(question)
            if not isinstance(answer, Verdict):
                raise StillAsked(key, answer)
            verdict = answer
        if verdict.error and not verdict.allowed:
            raise RuntimeError(verdict.error)
        return verdict.allowed, verdict.reason

    return ask


def _question(user: User, about: Mapping[str, Any], verb: str) -> AuthzAttributes:
    if account := about.get("serviceAccount"):
        namespace, _, _ = account.partition("/")
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        user = User(f"system:serviceaccount:{account.replace('/', ':')}", groups=groups)
    if "path" in about:
        return AuthzAttributes(user, verb, path=about["path"], is_resource=False)
    return AuthzAttributes(
        user,
        verb,
        about.get("group", ""),
        "*",
        about.get("resource", ""),
        about.get("subresource", ""),
        about.get("namespace", ""),
        about.get("name", ""),
        field_selector=about.get("fieldSelector", ""),
        label_selector=about.get("labelSelector", ""),
    )
