"""Expressions in the configuration of authentication and authorization: over a token's claims, over the user made of
them, over a request for access.

Source: k8s.io/apiserver pkg/authentication/cel, pkg/authorization/cel.
"""

from __future__ import annotations

from functools import cache, lru_cache

from berg.machinery.cel.environment import Environment, Expression
from berg.machinery.cel.types import STRING, Type, list_of, map_of, read, struct


@cache
def _variables() -> dict[str, Type]:
    texts = list_of(STRING)
    user = {"uid": STRING, "groups": texts, "extra": map_of(STRING, texts)}
    requirement = struct("kubernetes.SelectorRequirement", {"key": STRING, "operator": STRING, "values": texts})
    selector = struct("kubernetes.SelectorAttributes", {"rawSelector": STRING, "requirements": list_of(requirement)})
    names = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
    resource = {**dict.fromkeys(names, STRING), "fieldSelector": selector, "labelSelector": selector}
    path = {"path": STRING, "verb": STRING}
    request = {
        **user,
        "user": STRING,
        "resourceAttributes": struct("kubernetes.ResourceAttributes", resource),
        "nonResourceAttributes": struct("kubernetes.NonResourceAttributes", path),
    }
    return {
        "claims": read("map(string,dyn)"),
        "user": struct("kubernetes.UserInfo", {"username": STRING, **user}),
        "request": struct("kubernetes.SubjectAccessReviewSpec", request),
    }


@lru_cache(maxsize=1024)
def compile_over(variable: str, text: str) -> Expression:
    """`variable`: claims, user or request. Raises CompileError."""
    return Environment({variable: _variables()[variable]}).compile(text)
