"""The audit policy: the first rule that matches a request says how much of it is recorded.

Source: k8s.io/apiserver pkg/audit/policy, pkg/apis/audit/validation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from berg.apiserver.http.message import User
from berg.apiserver.requestinfo import RequestInfo
from berg.machinery import names
from berg.machinery.codec import yaml as yaml_codec
from berg.machinery.status import FieldError, Obj, invalid_value, not_supported, required

log = logging.getLogger(__name__)

NONE, METADATA, REQUEST, REQUEST_RESPONSE = "None", "Metadata", "Request", "RequestResponse"
LEVELS = (NONE, METADATA, REQUEST, REQUEST_RESPONSE)
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")


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
        errors = list(dict.fromkeys(map(str, validate(obj))))
        if errors:
            raise BadPolicy(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")
        self._rules: list[Obj] = obj.get("rules") or []
        if not self._rules:
            raise BadPolicy("loaded illegal policy with 0 rules")
        self._omitted = frozenset(obj.get("omitStages") or ())
        self._omit_managed = bool(obj.get("omitManagedFields"))

    @classmethod
    def read(cls, path: str) -> Policy:
        """Raises BadPolicy, OSError."""
        try:
            obj = yaml_codec.loads(Path(path).read_bytes())
        except ValueError as e:
            raise BadPolicy(f"loading audit policy file: failed decoding: {e}: from file {path}") from None
        if not isinstance(obj, dict) or obj.get("kind") != "Policy" or obj.get("apiVersion") != "audit.k8s.io/v1":
            kind, version = (obj.get("kind"), obj.get("apiVersion")) if isinstance(obj, dict) else ("", "")
            told = f'failed decoding: no kind "{kind}" is registered for version "{version}"'
            raise BadPolicy(f"loading audit policy file: {told}: from file {path}")
        try:
            return cls(obj)
        except BadPolicy as e:
            raise BadPolicy(f"loading audit policy file: {e}: from file {path}") from None

    def verdict(self, user: User | None, info: RequestInfo) -> Verdict:
        """`user`: None, when nobody could be made out."""
        for rule in self._rules:
            if _matches(rule, user, info):
                omit = rule.get("omitManagedFields")
                return Verdict(
                    rule["level"],
                    self._omitted | frozenset(rule.get("omitStages") or ()),
                    self._omit_managed if omit is None else bool(omit),
                )
        return Verdict(NONE, self._omitted)


def _matches(rule: Obj, user: User | None, info: RequestInfo) -> bool:
    if rule.get("users") and (user is None or user.name not in rule["users"]):
        return False
    if rule.get("userGroups") and (user is None or not set(rule["userGroups"]) & set(user.groups)):
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
        if wanted.get("group", "") not in (info.api_group, "*"):
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


# ---- validation


def validate(policy: Obj) -> Iterable[FieldError]:
    yield from _stages(policy.get("omitStages") or [], "omitStages")
    for i, rule in enumerate(policy.get("rules") or ()):
        path, level = f"rules[{i}]", rule.get("level") or ""
        if not level:
            yield required(f"{path}.level")
        elif level not in LEVELS:
            yield not_supported(f"{path}.level", level, LEVELS)
        urls: list[str] = rule.get("nonResourceURLs") or []
        yield from _urls(urls, f"{path}.nonResourceURLs")
        yield from _resources(rule.get("resources") or [], f"{path}.resources")
        yield from _stages(rule.get("omitStages") or [], f"{path}.omitStages")
        if urls and (rule.get("resources") or rule.get("namespaces")):
            why = "rules cannot apply to both regular resources and non-resource URLs"
            yield invalid_value(f"{path}.nonResourceURLs", urls, why)


def _stages(stages: list[str], path: str) -> Iterable[FieldError]:
    for i, stage in enumerate(stages):
        if stage not in STAGES:
            yield invalid_value(f"{path}[{i}]", stage, f"allowed stages are {','.join(STAGES)}")


def _urls(urls: list[str], path: str) -> Iterable[FieldError]:
    for i, url in enumerate(urls):
        if url == "*":
            continue
        if not url.startswith("/"):
            yield invalid_value(f"{path}[{i}]", url, "non-resource URL rules must begin with a '/' character")
        if "*" in url[:-1]:
            why = "non-resource URL wildcards '*' must be the final character of the rule"
            yield invalid_value(f"{path}[{i}]", url, why)


def _resources(resources: list[Obj], path: str) -> Iterable[FieldError]:
    for one in resources:
        group = one.get("group") or ""
        if group and group != "*" and (faults := names.dns1123_subdomain(group)):
            yield invalid_value(f"{path}.group", group, ",".join(faults))
        if one.get("resourceNames") and not one.get("resources"):
            why = "using resourceNames requires at least one resource"
            yield invalid_value(f"{path}.resourceNames", one["resourceNames"], why)
