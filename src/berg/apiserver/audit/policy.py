"""The audit policy: the first rule that matches a request says how much of it is recorded.

Source: k8s.io/apiserver pkg/audit/policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from berg.apiserver.http.message import User
from berg.apiserver.requestinfo import RequestInfo
from berg.machinery.codec import yaml as yaml_codec
from berg.machinery.status import Obj

NONE, METADATA, REQUEST, REQUEST_RESPONSE = "None", "Metadata", "Request", "RequestResponse"
LEVELS = (NONE, METADATA, REQUEST, REQUEST_RESPONSE)


class BadPolicy(ValueError):
    pass


@dataclass(slots=True, frozen=True)
class Verdict:
    level: str
    omitted: frozenset[str]
    omit_managed_fields: bool = False


class Policy:
    def __init__(self, obj: Obj) -> None:
        """Raises BadPolicy."""
        self._rules: list[Obj] = obj.get("rules") or []
        self._omitted = frozenset(obj.get("omitStages") or ())
        self._omit_managed = bool(obj.get("omitManagedFields"))
        for rule in self._rules:
            if rule.get("level") not in LEVELS:
                raise BadPolicy(f"audit policy: unknown level {rule.get('level')!r}")

    @classmethod
    def read(cls, path: str) -> Policy:
        obj = yaml_codec.loads(Path(path).read_bytes())
        if not isinstance(obj, dict) or obj.get("kind") != "Policy":
            raise BadPolicy(f"{path}: not an audit policy")
        return cls(obj)

    def verdict(self, user: User, info: RequestInfo) -> Verdict:
        for rule in self._rules:
            if _matches(rule, user, info):
                omit = rule.get("omitManagedFields")
                return Verdict(
                    rule["level"],
                    self._omitted | frozenset(rule.get("omitStages") or ()),
                    self._omit_managed if omit is None else bool(omit),
                )
        return Verdict(NONE, self._omitted)


def _matches(rule: Obj, user: User, info: RequestInfo) -> bool:
    if rule.get("users") and user.name not in rule["users"]:
        return False
    if rule.get("userGroups") and not set(rule["userGroups"]) & set(user.groups):
        return False
    if rule.get("verbs") and info.verb not in rule["verbs"]:
        return False
    if rule.get("namespaces") or rule.get("resources"):
        return info.is_resource and _matches_resource(rule, info)
    if rule.get("nonResourceURLs"):
        return not info.is_resource and any(
            u in ("*", info.path) or (u.endswith("*") and info.path.startswith(u[:-1])) for u in rule["nonResourceURLs"]
        )
    return True


def _matches_resource(rule: Obj, info: RequestInfo) -> bool:
    if rule.get("namespaces") and info.namespace not in rule["namespaces"]:
        return False
    if not rule.get("resources"):
        return True
    combined = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    for wanted in rule["resources"]:
        if wanted.get("group", "") != info.api_group:
            continue
        if not wanted.get("resources"):
            return True
        if wanted.get("resourceNames") and info.name not in wanted["resourceNames"]:
            continue
        for pattern in wanted["resources"]:
            if pattern in (combined, "*") or (pattern == f"{info.resource}/*" and info.subresource):
                return True
            if pattern.startswith("*/") and info.subresource == pattern[2:]:
                return True
    return False
