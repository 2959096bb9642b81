"""Rules that say which requests a webhook or a policy is about.

Source: kubernetes pkg/apis/admissionregistration/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from berg.machinery.status import FieldError, Obj, invalid_value, not_supported, required

FAILURE_POLICIES = ("Fail", "Ignore")
MATCH_POLICIES = ("Equivalent", "Exact")
REINVOCATION = ("IfNeeded", "Never")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")


def choice(holder: Obj, key: str, supported: Sequence[str], at: str) -> list[FieldError]:
    value = holder.get(key)
    return [] if value is None or value in supported else [not_supported(f"{at}.{key}", value, supported)]


def rule_faults(rule: Obj, at: str, operations: Sequence[str] = _OPERATIONS) -> Iterator[FieldError]:
    given = rule.get("operations") or []
    yield from _wild(rule, "operations", "operations", at)
    for i, operation in enumerate(given):
        if operation not in operations:
            yield not_supported(f"{at}.operations[{i}]", operation, operations)
    yield from _wild(rule, "apiGroups", "API groups", at)
    yield from _wild(rule, "apiVersions", "API versions", at)
    for i, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            yield required(f"{at}.apiVersions[{i}]")
    yield from _resources(rule.get("resources") or [], f"{at}.resources")
    yield from choice(rule, "scope", _SCOPES, at)


def _wild(rule: Obj, key: str, what: str, at: str) -> list[FieldError]:
    given = rule.get(key) or []
    if not given:
        return [required(f"{at}.{key}")]
    if len(given) > 1 and "*" in given:
        return [invalid_value(f"{at}.{key}", given, f"if '*' is present, must not specify other {what}")]
    return []


def _resources(resources: list[str], path: str) -> Iterator[FieldError]:
    if not resources:
        yield required(path)
    all_subresources: set[str] = set()
    of_all: set[str] = set()
    plain = False
    for i, text in enumerate(resources):
        at = f"{path}[{i}]"
        if not text:
            yield required(at)
            continue
        name, slash, subresource = text.partition("/")
        if not slash:
            plain = text != "*"
            continue
        if name in all_subresources:
            yield invalid_value(at, text, f"if '{name}/*' is present, must not specify {text}")
        if subresource in of_all:
            yield invalid_value(at, text, f"if '*/{subresource}' is present, must not specify {text}")
        if subresource == "*":
            all_subresources.add(name)
        if name == "*":
            of_all.add(subresource)
    if len(resources) > 1 and "*/*" in resources:
        yield invalid_value(path, resources, "if '*/*' is present, must not specify other resources")
    if "*" in resources and plain:
        why = "if '*' is present, must not specify other resources without subresources"
        yield invalid_value(path, resources, why)
