"""ABAC: a file with one policy per line; the first that matches allows.

Source: kubernetes pkg/auth/authorizer/abac, pkg/apis/abac.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from berg.apiserver.auth.authorization import ALLOWED, AuthzAttributes, Decision, Verdict
from berg.apiserver.auth.configuration_file import BadConfiguration
from berg.apiserver.http.message import User
from berg.machinery.status import Obj

_NO_MATCH = Verdict(Decision.NO_OPINION, "No policy matched.")
_READ_ONLY = frozenset(("get", "list", "watch"))


class ABACAuthorizer:
    def __init__(self, policies: list[Obj]) -> None:
        """`policies`: the specs of v1beta1."""
        self._policies = policies

    @classmethod
    def read(cls, path: str) -> ABACAuthorizer:
        """Raises BadConfiguration, OSError."""
        policies = []
        for number, line in enumerate(Path(path).read_text().splitlines(), 1):
            if line.strip() and not line.strip().startswith("#"):
                policies.append(_policy(path, number, line))
        return cls(policies)

    def authorize(self, a: AuthzAttributes) -> Verdict:
        for policy in self._policies:
            if not _subject_matches(policy, a.user):
                continue
            if policy.get("readonly") and a.verb not in _READ_ONLY:
                continue
            if _resource_matches(policy, a) if a.is_resource else _path_matches(policy, a.path):
                return ALLOWED
        return _NO_MATCH

    def rules_for(self, user: User, namespace: str) -> tuple[list[Obj], list[Obj]]:
        """Rules for resources and for paths, as a SelfSubjectRulesReview lists them."""
        resources, paths = [], []
        for policy in self._policies:
            if not _subject_matches(policy, user) or policy.get("namespace") not in ("*", namespace):
                continue
            verbs = ["get", "list", "watch"] if policy.get("readonly") else ["*"]
            if policy.get("resource"):
                group = policy.get("apiGroup") or ""
                resources.append({"verbs": verbs, "apiGroups": [group], "resources": [policy["resource"]]})
            if policy.get("nonResourcePath"):
                paths.append({"verbs": verbs, "nonResourceURLs": [policy["nonResourcePath"]]})
        return resources, paths


def _policy(path: str, number: int, line: str) -> Obj:
    try:
        obj = orjson.loads(line)
        if not isinstance(obj, dict):
            raise ValueError("not an object")
        if not obj.get("kind"):
            return _unversioned(obj)
        if obj["kind"] != "Policy" or obj.get("apiVersion") != "abac.authorization.kubernetes.io/v1beta1":
            told = f'no kind "{obj["kind"]}" is registered for version "{obj.get("apiVersion")}"'
            raise ValueError(told)
        return _subjects(obj.get("spec") or {})
    except ValueError as e:
        raise BadConfiguration(f"error reading policy file {path}, line {number}: {line}: {e}") from None


def _subjects(spec: Obj) -> Obj:
    """`*` as user or group alone means everybody who has authenticated."""
    if spec.get("user") == "*" or spec.get("group") == "*":
        return {**spec, "user": "", "group": "system:authenticated"}
    return spec


def _unversioned(old: Obj) -> Obj:
    """The first format had no version: what it left out meant everything."""
    spec = _subjects({k: old[k] for k in ("user", "group", "readonly") if old.get(k)})
    if not spec.get("user") and not spec.get("group"):
        spec["group"] = "system:authenticated"
    namespace, resource = old.get("namespace") or "", old.get("resource") or ""
    spec |= {"namespace": namespace or "*", "resource": resource or "*", "apiGroup": "*"}
    if not namespace and not resource:
        spec["nonResourcePath"] = "*"
    return spec


def _subject_matches(policy: Obj, user: User) -> bool:
    name, group = policy.get("user"), policy.get("group")
    if name and name not in ("*", user.name):
        return False
    if group and group != "*" and group not in user.groups:
        return False
    return bool(name or group)


def _resource_matches(policy: Obj, a: AuthzAttributes) -> bool:
    return (
        policy.get("namespace", "") in ("*", a.namespace)
        and policy.get("resource", "") in ("*", a.resource)
        and policy.get("apiGroup", "") in ("*", a.group)
    )


def _path_matches(policy: Obj, path: str) -> bool:
    pattern = policy.get("nonResourcePath", "")
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))
