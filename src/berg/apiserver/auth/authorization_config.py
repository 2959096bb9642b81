"""AuthorizationConfiguration: which authorizers are asked, in which order, and how webhooks are; from a file or from
the `--authorization-*` flags. What upstream's validation says about it.

Source: k8s.io/apiserver pkg/apis/apiserver/{v1,validation}, kubernetes pkg/kubeapiserver/{options,authorizer}.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from berg.apiserver.auth import configuration_file
from berg.apiserver.auth.configuration_file import BadConfiguration
from berg.apiserver.config import Config
from berg.machinery import duration, names
from berg.machinery.status import FieldError, Obj, duplicate, invalid_value, not_supported, required, too_many

MODES = ("ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook")
MAX_CONDITIONS = 64
LONGEST_TIMEOUT_S = 30.0
_SHAPE = {
    "authorizers": [
        {
            "type": None,
            "name": None,
            "webhook": {
                "authorizedTTL": None,
                "cacheAuthorizedRequests": None,
                "unauthorizedTTL": None,
                "cacheUnauthorizedRequests": None,
                "timeout": None,
                "subjectAccessReviewVersion": None,
                "matchConditionSubjectAccessReviewVersion": None,
                "failurePolicy": None,
                "connectionInfo": {"type": None, "kubeConfigFile": None},
                "matchConditions": [{"expression": None}],
            },
        }
    ]
}


def of(config: Config) -> Obj:
    """The configuration that the flags and the file give, validated. Raises BadConfiguration, OSError."""
    if not config.authorization_config:
        return _of_flags(config)
    if config.authorization_mode is not None or config.authorization_webhook_config_file:
        told = "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* "
        raise BadConfiguration(f"{told}flags are defined")
    return load(config.authorization_config)


def load(path: str, needed: Iterable[str] = ()) -> Obj:
    """`needed`: modes that may not go away when the file changes. Raises BadConfiguration, OSError."""
    try:
        obj = configuration_file.read(path, "AuthorizationConfiguration", ("v1", "v1beta1", "v1alpha1"), _SHAPE)
    except BadConfiguration as e:
        raise BadConfiguration(f"failed to load AuthorizationConfiguration from file: {e}") from None
    for authorizer in obj.get("authorizers") or ():
        webhook = authorizer.get("webhook")
        if webhook is not None:  # upstream's defaults
            webhook.setdefault("authorizedTTL", "5m")
            webhook.setdefault("unauthorizedTTL", "30s")
            webhook.setdefault("cacheAuthorizedRequests", True)
            webhook.setdefault("cacheUnauthorizedRequests", True)
    configuration_file.refuse(validate(obj))
    faults = []
    modes = [a for a in obj["authorizers"] if a["type"] != "Webhook"]
    for a in modes:
        if a["name"] != a["type"].lower():
            faults.append(f"expected name {a['type'].lower()} for authorizer {a['type']} instead of {a['name']}")
    missing = sorted(set(needed) - {a["type"] for a in modes})
    if missing:
        faults.append(f"missing required types: [{' '.join(missing)}]")
    if faults:
        raise BadConfiguration(faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")
    return obj


def _of_flags(config: Config) -> Obj:
    modes = ["Node", "RBAC"] if config.authorization_mode is None else config.authorization_mode
    if not modes:
        raise BadConfiguration("at least one authorization-mode must be passed")
    for mode in modes:
        if mode not in MODES:
            raise BadConfiguration(f'authorization-mode "{mode}" is not a valid mode')
    if len(set(modes)) != len(modes):
        shown = " ".join(f'"{m}"' for m in modes)
        raise BadConfiguration(f"authorization-mode [{shown}] has mode specified more than once")
    for mode, file, told in (
        ("ABAC", config.authorization_policy_file, "policy file"),
        ("Webhook", config.authorization_webhook_config_file, "config file"),
    ):
        if mode in modes and not file:
            raise BadConfiguration(f"authorization-mode {mode}'s authorization {told} not passed")
        if file and mode not in modes:
            flag = "authorization-policy-file" if mode == "ABAC" else "authorization-webhook-config-file"
            raise BadConfiguration(f"cannot specify --{flag} without mode {mode}")
    return {"authorizers": [_of_mode(mode, config) for mode in modes]}


def _of_mode(mode: str, config: Config) -> Obj:
    if mode != "Webhook":
        return {"type": mode, "name": mode.lower()}
    allowed_s = config.authorization_webhook_cache_authorized_ttl_s
    refused_s = config.authorization_webhook_cache_unauthorized_ttl_s
    webhook: Obj = {
        "authorizedTTL": f"{allowed_s}s",
        "cacheAuthorizedRequests": allowed_s != 0,
        "unauthorizedTTL": f"{refused_s}s",
        "cacheUnauthorizedRequests": refused_s != 0,
        "timeout": "30s",
        "failurePolicy": "NoOpinion",
        "subjectAccessReviewVersion": config.authorization_webhook_version,
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": config.authorization_webhook_config_file},
    }
    return {"type": "Webhook", "name": "default", "webhook": webhook}


# ---- validation


def validate(obj: Obj) -> list[FieldError]:
    authorizers = obj.get("authorizers") or []
    errors: list[FieldError] = []
    if not authorizers:
        errors.append(required("authorizers", "at least one authorization mode must be defined"))
    types: set[str] = set()
    seen: set[str] = set()
    for i, a in enumerate(authorizers):
        path, type_, name = f"authorizers[{i}]", a.get("type") or "", a.get("name") or ""
        if not type_:
            errors.append(required(f"{path}.type"))
            continue
        if type_ not in MODES:
            errors.append(not_supported(f"{path}.type", type_, MODES))
            continue
        if type_ in types and type_ != "Webhook":
            errors.append(duplicate(f"{path}.type", type_))
            continue
        types.add(type_)
        if not name:
            errors.append(required(f"{path}.name"))
        elif name in seen:
            errors.append(duplicate(f"{path}.name", name))
        elif faults := names.dns1123_subdomain(name):
            why = f"authorizer name is invalid: {', '.join(faults)}"
            errors.append(invalid_value(f"{path}.name", name, why))
        seen.add(name)
        webhook = a.get("webhook")
        if type_ != "Webhook":
            if webhook is not None:
                errors.append(invalid_value(f"{path}.webhook", "non-null", "may only be specified when type=Webhook"))
        elif webhook is None:
            errors.append(required(f"{path}.webhook", "required when type=Webhook"))
        else:
            errors += _webhook(webhook, path)
    return errors


def _webhook(webhook: Obj, path: str) -> Iterable[FieldError]:
    yield from _duration(webhook, path, "timeout", "must be > 0s and <= 30s", LONGEST_TIMEOUT_S)
    for ttl in ("authorizedTTL", "unauthorizedTTL"):
        yield from _duration(webhook, path, ttl, "must be > 0s", None)
    yield from _one_of(webhook, path, "subjectAccessReviewVersion", ("v1", "v1beta1"))
    of_conditions = webhook.get("matchConditionSubjectAccessReviewVersion")
    conditions = webhook.get("matchConditions") or []
    at = f"{path}.matchConditionSubjectAccessReviewVersion"
    if not of_conditions:
        if conditions:
            yield required(at, "required if match conditions are specified")
    elif of_conditions != "v1":
        yield not_supported(at, of_conditions, ("v1",))
    yield from _one_of(webhook, path, "failurePolicy", ("NoOpinion", "Deny"))
    yield from _connection(webhook.get("connectionInfo") or {}, f"{path}.connectionInfo")
    yield from _conditions(conditions, f"{path}.matchConditions")


def _duration(webhook: Obj, path: str, name: str, why: str, most_s: float | None) -> Iterable[FieldError]:
    text = webhook.get(name) or "0s"
    try:
        nanoseconds = duration.parse(str(text))
    except ValueError as e:
        yield invalid_value(f"{path}.{name}", text, str(e))
        return
    if nanoseconds == 0:
        yield required(f"{path}.{name}")
    elif nanoseconds < 0 or (most_s is not None and nanoseconds > most_s * 1e9):
        yield invalid_value(f"{path}.{name}", duration.show(nanoseconds), why)


def _one_of(webhook: Obj, path: str, name: str, known: tuple[str, ...]) -> Iterable[FieldError]:
    value = webhook.get(name)
    if not value:
        yield required(f"{path}.{name}")
    elif value not in known:
        yield not_supported(f"{path}.{name}", value, known)


def _connection(connection: Obj, path: str) -> Iterable[FieldError]:
    type_, file = connection.get("type"), connection.get("kubeConfigFile")
    at = f"{path}.kubeConfigFile"
    if not type_:
        yield required(f"{path}.type")
    elif type_ == "InClusterConfig":
        if file is not None:
            yield invalid_value(at, file, "can only be set when type=KubeConfigFile")
    elif type_ != "KubeConfigFile":
        shown = {"Type": type_, "KubeConfigFile": file}
        yield not_supported(f"{path}.type", shown, ("InClusterConfig", "KubeConfigFile"))
    elif not file:
        yield required(at)
    elif not Path(file).is_absolute():
        yield invalid_value(at, file, "must be an absolute path")
    elif not Path(file).exists():
        yield invalid_value(at, file, f"error loading file: stat {file}: no such file or directory")
    elif not Path(file).is_file():
        yield invalid_value(at, file, "must be a regular file")


def _conditions(conditions: list[Obj], path: str) -> Iterable[FieldError]:
    if len(conditions) > MAX_CONDITIONS:
        yield too_many(path, len(conditions), MAX_CONDITIONS)
        return
    seen: set[str] = set()
    for i, condition in enumerate(conditions):
        at, expression = f"{path}[{i}].expression", condition.get("expression") or ""
        if not expression.strip():
            yield required(at)
        elif expression in seen:
            yield duplicate(at, expression)
        else:
            from berg.apiserver.auth.expressions import compile_fault

            seen.add(expression)
            yield from compile_fault(expression, "request", at, condition=True)
