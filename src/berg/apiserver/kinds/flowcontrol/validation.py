"""What flow schemas and priority levels may say.

Source: kubernetes pkg/apis/flowcontrol/validation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from berg.apiserver.flowcontrol import bootstrap
from berg.apiserver.kinds import checks
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, forbidden_field, invalid_value, not_supported, required

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_METHODS = ("ByNamespace", "ByUser")
_SUBJECTS = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}
_MAX_PRECEDENCE = 10000
_MAX_QUEUES = 10_000_000
_HASH_BITS = 60


def validate_flow_schema(obj: Obj) -> list[FieldError]:
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name") or ""
    precedence = spec.get("matchingPrecedence") or 0
    path = "spec.matchingPrecedence"
    errors: list[FieldError] = []
    if precedence <= 0:
        errors.append(invalid_value(path, precedence, "must be a positive value"))
    if precedence > _MAX_PRECEDENCE:
        errors.append(invalid_value(path, precedence, f"must not be greater than {_MAX_PRECEDENCE}"))
    if precedence == 1 and name != "exempt":
        errors.append(invalid_value(path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in _METHODS:
        shown = {"Type": method.get("type") or ""}
        errors.append(not_supported("spec.distinguisherMethod.type", shown, _METHODS))
    level = (spec.get("priorityLevelConfiguration") or {}).get("name")
    if level:
        errors += checks.named("spec.priorityLevelConfiguration.name", level)
    else:
        errors.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    for i, rule in enumerate(spec.get("rules") or ()):
        errors += _rule(rule, f"spec.rules[{i}]")
    if name in bootstrap.MANDATORY and spec != bootstrap.fixed_schema(name):
        errors.append(invalid_value("spec", spec, f"spec of '{name}' must equal the fixed value"))
    return errors + _conditions(obj)


def _rule(rule: Obj, at: str) -> Iterator[FieldError]:
    subjects = rule.get("subjects") or ()
    if not subjects:
        yield required(f"{at}.subjects", "subjects must contain at least one value")
    for i, subject in enumerate(subjects):
        yield from _subject(subject, f"{at}.subjects[{i}]")
    resource, other = rule.get("resourceRules") or (), rule.get("nonResourceRules") or ()
    if not resource and not other:
        yield required(at, "at least one of resourceRules and nonResourceRules has to be non-empty")
    for i, r in enumerate(resource):
        yield from _resource_rule(r, f"{at}.resourceRules[{i}]")
    for i, r in enumerate(other):
        yield from _non_resource_rule(r, f"{at}.nonResourceRules[{i}]")


def _subject(subject: Obj, at: str) -> Iterator[FieldError]:
    kind = subject.get("kind") or ""
    own = _SUBJECTS.get(kind)
    if own is None:
        yield not_supported(f"{at}.kind", kind, sorted(_SUBJECTS))
        return
    body = subject.get(own)
    if body is None:
        yield required(f"{at}.{own}", f"{own} is required when subject kind is '{kind}'")
    else:
        name = body.get("name") or ""
        if not name:
            yield required(f"{at}.{own}.name")
        elif kind == "ServiceAccount" and name != "*":
            yield from checks.named(f"{at}.{own}.name", name)
        if kind == "ServiceAccount":
            namespace = body.get("namespace")
            if namespace:
                yield from checks.named(f"{at}.{own}.namespace", namespace, names.dns1123_label)
            else:
                yield required(f"{at}.{own}.namespace", "must specify namespace for service account")
    for other, key in _SUBJECTS.items():
        if other != kind and subject.get(key) is not None:
            yield forbidden_field(f"{at}.{key}", f"{key} is forbidden when subject kind is not '{other}'")


def _verbs(rule: Obj, at: str) -> Iterator[FieldError]:
    verbs = rule.get("verbs") or []
    if not verbs:
        yield required(f"{at}.verbs", "verbs must contain at least one value")
    elif "*" in verbs:
        if len(verbs) > 1:
            yield invalid_value(f"{at}.verbs", verbs, "if '*' is present, must not specify other verbs")
    elif not set(verbs) <= set(_VERBS):
        yield not_supported(f"{at}.verbs", verbs, _VERBS)


def _resource_rule(rule: Obj, at: str) -> Iterator[FieldError]:
    yield from _verbs(rule, at)
    for key, what in (("apiGroups", "api group"), ("resources", "resource")):
        given = rule.get(key) or []
        if not given:
            yield required(f"{at}.{key}", f"resource rules must supply at least one {what}")
        elif len(given) > 1 and "*" in given:
            yield invalid_value(f"{at}.{key}", given, f"if '*' is present, must not specify other {what}s")
    namespaces = rule.get("namespaces") or []
    if not namespaces and not rule.get("clusterScope"):
        why = "resource rules that are not cluster scoped must supply at least one namespace"
        yield required(f"{at}.namespaces", why)
    elif "*" in namespaces:
        if len(namespaces) > 1:
            yield invalid_value(f"{at}.namespaces", namespaces, "if '*' is present, must not specify other namespaces")
    else:
        intro = "each member of this list must be '*' or a DNS-1123 label; "
        for i, namespace in enumerate(namespaces):
            for text in names.dns1123_label(namespace):
                yield invalid_value(f"{at}.namespaces[{i}]", namespace, intro + text)


def _non_resource_rule(rule: Obj, at: str) -> Iterator[FieldError]:
    yield from _verbs(rule, at)
    urls = rule.get("nonResourceURLs") or []
    path = f"{at}.nonResourceURLs"
    if not urls:
        yield required(path, "nonResourceURLs must contain at least one value")
    elif "*" in urls:
        if len(urls) > 1:
            yield invalid_value(path, urls, "if '*' is present, must not specify other non-resource URLs")
    else:
        for i, url in enumerate(urls):
            if why := _bad_url(url):
                yield invalid_value(f"{path}[{i}]", url, why)


def _bad_url(url: str) -> str:
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    for bad, why in (
        (not url.startswith("/"), "must start with slash"),
        (" " in url, "must not contain white-space"),
        ("//" in url, "must not contain double slash"),
        (url.count("*") > 1 or ("*" in url and not url.endswith("/*")), "wildcard can only do suffix matching"),
    ):
        if bad:
            return why
    return ""


def validate_priority_level(obj: Obj) -> list[FieldError]:
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name") or ""
    kind, limited, exempt = spec.get("type") or "", spec.get("limited"), spec.get("exempt")
    errors: list[FieldError] = []
    if (name == "exempt") != (kind == "Exempt"):
        errors.append(invalid_value("spec.type", kind, "must be 'Exempt' if and only if `name` is 'exempt'"))
    if kind == "Exempt":
        if limited is not None:
            errors.append(forbidden_field("spec.limited", "must be nil if the type is not Limited"))
        errors += _shares(exempt or {}, "spec.exempt")
    elif kind == "Limited":
        if exempt is not None:
            errors.append(forbidden_field("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            errors.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            errors += _limited(limited, "spec.limited")
    else:
        errors.append(not_supported("spec.type", kind, ("Exempt", "Limited")))
    return [*errors, *_fixed(spec, name), *_conditions(obj)]


def _fixed(spec: Obj, name: str) -> Iterator[FieldError]:
    if name in bootstrap.MANDATORY and not bootstrap.is_fixed(spec, name):
        except_ = " except the 'spec.exempt' field" if name == "exempt" else ""
        yield invalid_value("spec", spec, f"spec of '{name}'{except_} must equal the fixed value")


def _shares(level: Obj, at: str) -> Iterator[FieldError]:
    shares, lendable = level.get("nominalConcurrencyShares"), level.get("lendablePercent")
    if shares is not None and shares < 0:
        yield invalid_value(f"{at}.nominalConcurrencyShares", shares, "must be a non-negative integer")
    if lendable is not None and not 0 <= lendable <= 100:
        yield invalid_value(f"{at}.lendablePercent", lendable, "must be between 0 and 100, inclusive")


def _limited(limited: Obj, at: str) -> Iterator[FieldError]:
    response = limited.get("limitResponse") or {}
    kind, queuing = response.get("type") or "", response.get("queuing")
    path = f"{at}.limitResponse"
    yield from _shares({"nominalConcurrencyShares": limited.get("nominalConcurrencyShares")}, at)
    if kind == "Reject":
        if queuing is not None:
            yield forbidden_field(f"{path}.queuing", "must be nil if limited.limitResponse.type is not Limited")
    elif kind == "Queue":
        if queuing is None:
            yield required(f"{path}.queuing", "must not be empty if limited.limitResponse.type is Limited")
        else:
            yield from _queuing(queuing, f"{path}.queuing")
    else:
        yield not_supported(f"{path}.type", kind, ("Queue", "Reject"))
    yield from _shares({"lendablePercent": limited.get("lendablePercent")}, at)
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        yield invalid_value(f"{at}.borrowingLimitPercent", borrowing, "if specified, must be a non-negative integer")


def _queuing(queuing: Obj, at: str) -> Iterator[FieldError]:
    length, queues, hand = (queuing.get(k) or 0 for k in ("queueLengthLimit", "queues", "handSize"))
    if length <= 0:
        yield invalid_value(f"{at}.queueLengthLimit", length, "must be positive")
    if queues <= 0:
        yield invalid_value(f"{at}.queues", queues, "must be positive")
    elif queues > _MAX_QUEUES:
        yield invalid_value(f"{at}.queues", queues, f"must not be greater than {_MAX_QUEUES}")
    if hand <= 0:
        yield invalid_value(f"{at}.handSize", hand, "must be positive")
    elif hand > queues:
        yield invalid_value(f"{at}.handSize", hand, f"should not be greater than queues ({queues})")
    elif math.ceil(math.log2(queues) * hand) > _HASH_BITS:
        why = f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {_HASH_BITS}"
        yield invalid_value(f"{at}.handSize", hand, why)


def _conditions(obj: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        kind = condition.get("type") or ""
        at = f"status.conditions[{i}].type"
        if kind in seen:
            errors.append(duplicate(at, kind))
        seen.add(kind)
        if not kind:
            errors.append(required(at))
    return errors
