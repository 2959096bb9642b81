"""What a user may do in a namespace, all of it, as far as each authorizer can tell.

Source: k8s.io/apiserver pkg/authorization/union (RuleResolver), each authorizer's RulesFor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from berg.apiserver.auth.authorization import AlwaysAllow, Authorizer, Union
from berg.apiserver.auth.rbac import RBACAuthorizer
from berg.apiserver.http.message import User
from berg.machinery.status import Obj


@dataclass(slots=True)
class Rules:
    """As in the status of a SelfSubjectRulesReview."""

    resources: list[Obj] = field(default_factory=list)
    paths: list[Obj] = field(default_factory=list)
    incomplete: bool = False
    errors: list[str] = field(default_factory=list)

    def cannot(self, who: str) -> None:
        self.incomplete = True
        self.errors.append(f"{who} authorizer does not support user rule resolution")


def of(union: Union, user: User, namespace: str) -> Rules:
    found = Rules()
    for authorizer in union.authorizers:
        _add(found, authorizer, user, namespace)
    return found


def _add(found: Rules, authorizer: Authorizer, user: User, namespace: str) -> None:
    from berg.apiserver.auth.abac import ABACAuthorizer
    from berg.apiserver.auth.access_webhook import AccessWebhook
    from berg.apiserver.auth.node import NodeAuthorizer, node_name

    match authorizer:
        case RBACAuthorizer():
            for rule in authorizer.rules_for(user, namespace):
                kept = {k: v for k, v in rule.obj.items() if v}
                if kept.get("nonResourceURLs"):
                    found.paths.append({"verbs": kept.get("verbs", []), "nonResourceURLs": kept["nonResourceURLs"]})
                if kept.get("resources"):
                    found.resources.append({k: v for k, v in kept.items() if k != "nonResourceURLs"})
        case AlwaysAllow():
            found.resources.append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
            found.paths.append({"verbs": ["*"], "nonResourceURLs": ["*"]})
        case ABACAuthorizer():
            resources, paths = authorizer.rules_for(user, namespace)
            found.resources += resources
            found.paths += paths
        case NodeAuthorizer():
            if node_name(user.groups, user.name) is not None:
                found.cannot("node")
        case AccessWebhook():
            found.cannot("webhook")
