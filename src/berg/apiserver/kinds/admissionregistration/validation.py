"""What webhook configurations may say.

Source: kubernetes pkg/apis/admissionregistration/validation, k8s.io/apiserver pkg/util/webhook/validation.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.admissionregistration.expressions import match_conditions
from berg.apiserver.kinds.admissionregistration.rules import (
    FAILURE_POLICIES,
    MATCH_POLICIES,
    REINVOCATION,
    choice,
    rule_faults,
)
from berg.apiserver.kinds.label_selectors import validate_selector
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, invalid_value, required

_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_REVIEWS = ("v1", "v1beta1")
_FORM = "; desired format: https://host[/path]"


def validate_webhooks(obj: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, hook in enumerate(obj.get("webhooks") or ()):
        at = f"webhooks[{i}]"
        errors += _webhook(hook, at)
        errors += _review_versions(hook.get("admissionReviewVersions") or [], f"{at}.admissionReviewVersions")
        name = hook.get("name") or ""
        if name and name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
    return errors


def _webhook(hook: Obj, at: str) -> Iterator[FieldError]:
    yield from _qualified(f"{at}.name", hook.get("name") or "")
    for i, rule in enumerate(hook.get("rules") or ()):
        yield from rule_faults(rule, f"{at}.rules[{i}]")
    yield from choice(hook, "failurePolicy", FAILURE_POLICIES, at)
    yield from choice(hook, "matchPolicy", MATCH_POLICIES, at)
    if hook.get("sideEffects") is None:
        yield required(f"{at}.sideEffects", f"must specify one of {', '.join(_SIDE_EFFECTS)}")
    yield from choice(hook, "sideEffects", _SIDE_EFFECTS, at)
    seconds = hook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= 30:
        why = "the timeout value must be between 1 and 30 seconds"
        yield invalid_value(f"{at}.timeoutSeconds", seconds, why)
    for key in ("namespaceSelector", "objectSelector"):
        yield from validate_selector(hook.get(key), f"{at}.{key}")
    yield from choice(hook, "reinvocationPolicy", REINVOCATION, at)
    yield from client_config(hook.get("clientConfig") or {}, f"{at}.clientConfig")
    yield from match_conditions(hook.get("matchConditions") or [], f"{at}.matchConditions")


def _qualified(path: str, name: str) -> list[FieldError]:
    if not name:
        return [required(path)]
    if bad := names.dns1123_subdomain(name):
        return [invalid_value(path, name, ",".join(bad))]
    if name.count(".") < 2:
        return [invalid_value(path, name, "should be a domain with at least three segments separated by dots")]
    return []


def _review_versions(versions: list[str], path: str) -> list[FieldError]:
    known = ", ".join(_REVIEWS)
    if not versions:
        return [required(path, f"must specify one of {known}")]
    errors: list[FieldError] = []
    for i, version in enumerate(versions):
        if version in versions[:i]:
            errors.append(invalid_value(f"{path}[{i}]", version, "duplicate version"))
        else:
            errors += checks.named(f"{path}[{i}]", version, names.dns1035_label)
    if not set(versions) & set(_REVIEWS):
        errors.append(invalid_value(path, versions, f"must include at least one of {known}"))
    return errors


def client_config(config: Obj, at: str) -> list[FieldError]:
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        return [required(at, "exactly one of url or service is required")]
    if url is not None:
        return list(_url(f"{at}.url", url))
    assert service is not None
    return list(_service(service, f"{at}.service"))


def _url(path: str, text: str) -> Iterator[FieldError]:
    try:
        url = urlsplit(text)
    except ValueError as e:
        yield required(path, f"url must be a valid URL: {e}{_FORM}")
        return
    if url.scheme != "https":
        yield invalid_value(path, url.scheme, f"'https' is the only allowed URL scheme{_FORM}")
    user, at, host = url.netloc.rpartition("@")
    if not host:
        yield invalid_value(path, host, f"host must be specified{_FORM}")
    if at:
        yield invalid_value(path, user, "user information is not permitted in the URL")
    if url.fragment:
        yield invalid_value(path, url.fragment, "fragments are not permitted in the URL")
    if url.query:
        yield invalid_value(path, url.query, "query parameters are not permitted in the URL")


def _service(service: Obj, at: str) -> Iterator[FieldError]:
    if not service.get("namespace"):  # Source: upstream names the two fields the wrong way round
        yield required(f"{at}.name")
    if not service.get("name"):
        yield required(f"{at}.namespace")
    port = service.get("port", 443)
    if bad := names.port_number(port or 0):
        yield invalid_value(f"{at}.port", port, f"port is not valid: {', '.join(bad)}")
    text = service.get("path")
    if text in (None, "", "/"):
        return
    path = f"{at}.path"
    if text == "//":
        yield invalid_value(path, text, "segment[0] may not be empty")
        return
    if not text.startswith("/"):
        yield invalid_value(path, text, "must start with a '/'")
    for i, step in enumerate(text[1:].removesuffix("/").split("/")):
        if not step:
            yield invalid_value(path, text, f"segment[{i}] may not be empty")
            continue
        for why in names.dns1123_subdomain(step):
            yield invalid_value(path, text, f"segment[{i}]: {why}")
