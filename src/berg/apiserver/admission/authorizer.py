"""Asking the authorizer from within expressions: for the one who asks, or for a service account.

Source: k8s.io/apiserver pkg/cel/library/authz.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from berg.apiserver.admission import sight
from berg.apiserver.admission.interface import Api, Attributes
from berg.apiserver.http.message import User
from berg.machinery.resources import Resource

if TYPE_CHECKING:
    from berg.machinery.cel.library.authorizer import Ask


def variables(a: Attributes) -> dict[str, Any]:
    from berg.machinery.cel.library import authorizer

    own = sight.requested(a)
    about = {"group": own.group, "resource": own.plural, "subresource": a.subresource, "name": a.name}
    return dict(authorizer.values(**about, namespace=a.namespace))


def asking(api: Api, a: Attributes) -> Ask:
    def ask(about: Mapping[str, Any], verb: str) -> bool:
        user = a.user
        if account := about.get("serviceAccount"):
            namespace, _, _ = account.partition("/")
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
            user = User(f"system:serviceaccount:{account.replace('/', ':')}", groups=groups)
        r = Resource(about.get("group", ""), "*", about.get("resource", ""), "", bool(about.get("namespace")))
        question = api.authorize(
            user, verb, r, about.get("namespace", ""), about.get("name", ""), about.get("subresource", "")
        )
        try:
            question.send(None)
        except StopIteration as answer:
            return bool(answer.value)
        question.close()
        raise RuntimeError("the authorizer does not answer at once")

    return ask
