"""Does a webhook or a policy want this request: rules, exclusions, and selectors of namespaces and objects.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/predicates, pkg/admission/plugin/policy/matching.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from berg.apiserver.admission import sight
from berg.apiserver.admission.interface import CREATE, UPDATE, Api, Attributes
from berg.machinery import status
from berg.machinery.labels import Selector
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj

_NAMESPACES = resource("namespaces")


def wanted(
    api: Api,
    a: Attributes,
    rules: Sequence[Obj],
    *,
    selectors: Mapping[str, Any],
    equivalent: bool,
    excluded: Sequence[Obj] = (),
    everything: bool = False,
) -> Resource | None:
    """The resource in the version in which the request is wanted; None where it is not.

    `everything`: no rules are as good as one that matches. Raises ApiError when the namespace cannot be found.
    """
    fault: ApiError | None = None
    try:
        if not _namespace_matches(api, a, selectors.get("namespaceSelector")):
            return None
    except ApiError as e:
        fault = e
    if not _object_matches(a, selectors.get("objectSelector")):
        return None
    if excluded and by_rules(api, a, excluded, equivalent=equivalent) is not None:
        return None
    found = sight.requested(a) if everything and not rules else by_rules(api, a, rules, equivalent=equivalent)
    if found is not None and fault is not None:
        raise fault
    return found


def by_rules(api: Api, a: Attributes, rules: Sequence[Obj], *, equivalent: bool) -> Resource | None:
    own = sight.requested(a)
    for rule in rules:
        if _rule_matches(a, rule, own):
            return own
    if not equivalent:
        return None
    others = [r for r in sight.versions(api, a.resource) if r != own]
    for rule in rules:
        for other in others:
            if _rule_matches(a, rule, other):
                return other
    return None


def _rule_matches(a: Attributes, rule: Obj, r: Resource) -> bool:
    operations = rule.get("operations") or ()
    if a.operation not in operations and "*" not in operations:
        return False
    groups, versions = rule.get("apiGroups") or (), rule.get("apiVersions") or ()
    if (r.group not in groups and "*" not in groups) or (r.version not in versions and "*" not in versions):
        return False
    inside = bool(a.namespace) and a.resource.group_resource != "namespaces"
    if rule.get("scope", "*") != ("Namespaced" if inside else "Cluster") and rule.get("scope", "*") != "*":
        return False
    names = rule.get("resourceNames")
    return (not names or a.name in names) and any(_resource_matches(text, a, r) for text in rule.get("resources") or ())


def _resource_matches(text: str, a: Attributes, r: Resource) -> bool:
    plural, _, subresource = text.partition("/")
    return plural in ("*", r.plural) and subresource in ("*", a.subresource)


def _namespace_matches(api: Api, a: Attributes, selector: Obj | None) -> bool:
    of_namespace = a.resource.group_resource == "namespaces"
    if not selector or (not a.namespace and not of_namespace):
        return True
    parsed = _selector(orjson.dumps(selector))
    if of_namespace and not a.subresource and a.operation in (CREATE, UPDATE):
        return parsed.matches(_labels(a.obj))
    name = sight.namespace_of(a)
    found = api.get(_NAMESPACES, "", name)
    if found is None:
        raise status.not_found("", "namespaces", name)
    return parsed.matches(_labels(found))


def _object_matches(a: Attributes, selector: Obj | None) -> bool:
    if not selector:
        return True
    parsed = _selector(orjson.dumps(selector))
    return any(obj is not None and "metadata" in obj and parsed.matches(_labels(obj)) for obj in (a.obj, a.old))


@lru_cache(maxsize=1024)
def _selector(encoded: bytes) -> Selector:
    return Selector.of(orjson.loads(encoded))


def _labels(obj: Obj | None) -> Mapping[str, str]:
    return ((obj or {}).get("metadata") or {}).get("labels") or {}
