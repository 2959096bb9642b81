"""AuthenticationConfiguration: JWT issuers and who may be anonymous, from a file or from the `--oidc-*` flags; what
upstream's validation says about it.

Source: k8s.io/apiserver pkg/apis/apiserver/validation/validation.go, kubernetes pkg/kubeapiserver/options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from berg.apiserver.auth import configuration_file, extra_keys
from berg.apiserver.auth.configuration_file import BadConfiguration
from berg.apiserver.auth.expressions import compile_fault
from berg.apiserver.auth.oidc import ALGORITHMS
from berg.apiserver.config import Config
from berg.machinery.status import FieldError, Obj, duplicate, invalid_value, required, too_many

MAX_AUTHENTICATORS = 64
_EITHER = {"claim": None, "prefix": None, "expression": None}
_SHAPE = {
    "jwt": [
        {
            "issuer": {
                "url": None,
                "discoveryURL": None,
                "certificateAuthority": None,
                "audiences": None,
                "audienceMatchPolicy": None,
                "egressSelectorType": None,
            },
            "claimValidationRules": [{"claim": None, "requiredValue": None, "expression": None, "message": None}],
            "claimMappings": {
                "username": _EITHER,
                "groups": _EITHER,
                "uid": {"claim": None, "expression": None},
                "extra": [{"key": None, "valueExpression": None}],
            },
            "userValidationRules": [{"expression": None, "message": None}],
        }
    ],
    "anonymous": {"enabled": None, "conditions": [{"path": None}]},
}
_EMAIL = re.compile(r"\bclaims\s*\.\s*\??\s*email\b")
_EMAIL_VERIFIED = re.compile(r"\bclaims\s*\.\s*\??\s*email_verified\b")
_EXCLUSIVE = "claim and expression can't both be set"
_OMITTED = "may not be specified when expression is set"
_VERIFIED = (
    "claims.email_verified must be used in claimMappings.username.expression or "
    "claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in "
    "claimMappings.username.expression"
)


def of(config: Config) -> Obj:
    """The configuration that the flags and the file give, validated. Raises BadConfiguration, OSError."""
    if not config.authentication_config:
        obj = _of_flags(config)
    elif _oidc_flags(config):
        raise BadConfiguration("authentication-config file and oidc-* flags are mutually exclusive")
    else:
        try:
            obj = load(config.authentication_config)
        except BadConfiguration as e:
            told = f'failed to load authentication configuration from file "{config.authentication_config}"'
            raise BadConfiguration(f"{told}: {e}") from None
        if obj.get("anonymous") is not None and config.anonymous_auth is not None:
            why = "--anonymous-auth flag cannot be set when anonymous field is configured in authentication "
            raise BadConfiguration(f"anonymous: Forbidden: {why}configuration file")
    configuration_file.refuse(validate(obj, config.service_account_issuer))
    return obj


def load(path: str) -> Obj:
    """Not validated. Raises BadConfiguration, OSError."""
    versions = ("v1", "v1beta1", "v1alpha1")
    return configuration_file.read(path, "AuthenticationConfiguration", versions, _SHAPE)


def reload(path: str, issuers: Sequence[str]) -> Obj:
    """Raises BadConfiguration, OSError."""
    obj = load(path)
    configuration_file.refuse(validate(obj, issuers))
    return obj


def algorithms(config: Config) -> Sequence[str]:
    """A file allows every algorithm, the flags those that they name. Raises BadConfiguration."""
    if config.authentication_config:
        return ALGORITHMS
    for algorithm in config.oidc_signing_algs:
        if algorithm not in ALGORITHMS:
            raise BadConfiguration(f'oidc: unsupported signing alg: "{algorithm}"')
    return config.oidc_signing_algs


def _oidc_flags(config: Config) -> bool:
    return bool(
        config.oidc_issuer_url
        or config.oidc_client_id
        or config.oidc_ca_file
        or config.oidc_username_claim != "sub"
        or config.oidc_username_prefix
        or config.oidc_groups_claim
        or config.oidc_groups_prefix
        or config.oidc_required_claim
        or config.oidc_signing_algs != ["RS256"]
    )


def _of_flags(config: Config) -> Obj:
    if not _oidc_flags(config):
        return {}
    if not config.oidc_issuer_url or not config.oidc_client_id:
        both = "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
        raise BadConfiguration(both)
    prefix = config.oidc_username_prefix
    if not prefix and config.oidc_username_claim != "email":
        prefix = f"{config.oidc_issuer_url}#"
    username = {"claim": config.oidc_username_claim, "prefix": "" if prefix == "-" else prefix}
    mappings: Obj = {"username": username}
    if config.oidc_groups_claim:
        mappings["groups"] = {"claim": config.oidc_groups_claim, "prefix": config.oidc_groups_prefix}
    issuer: Obj = {"url": config.oidc_issuer_url, "audiences": [config.oidc_client_id]}
    if config.oidc_ca_file:
        issuer["certificateAuthority"] = Path(config.oidc_ca_file).read_text()
    rules = [{"claim": c, "requiredValue": v} for c, v in config.oidc_required_claim.items()]
    return {"jwt": [{"issuer": issuer, "claimMappings": mappings, "claimValidationRules": rules}]}


# ---- validation


def validate(obj: Obj, disallowed: Iterable[str] = ()) -> list[FieldError]:
    """`disallowed`: issuers of service-account tokens, which cannot be somebody else's too."""
    authenticators = obj.get("jwt") or []
    if len(authenticators) > MAX_AUTHENTICATORS:
        return [too_many("jwt", len(authenticators), MAX_AUTHENTICATORS)]
    errors: list[FieldError] = []
    issuers: set[str] = set()
    discovery: set[str] = set()
    for i, one in enumerate(authenticators):
        path = f"jwt[{i}]"
        issuer = one.get("issuer") or {}
        errors += _issuer(issuer, f"{path}.issuer", sorted(set(disallowed)))
        rules = one.get("claimValidationRules") or []
        errors += _claim_rules(rules, f"{path}.claimValidationRules")
        errors += _mappings(one.get("claimMappings") or {}, f"{path}.claimMappings", rules)
        errors += _user_rules(one.get("userValidationRules") or [], f"{path}.userValidationRules")
        url, elsewhere = issuer.get("url") or "", issuer.get("discoveryURL") or ""
        if url in issuers:
            errors.append(duplicate(f"{path}.issuer.url", url))
        issuers.add(url)
        if elsewhere and elsewhere in discovery:
            errors.append(duplicate(f"{path}.issuer.discoveryURL", elsewhere))
        discovery.add(elsewhere)
    anonymous = obj.get("anonymous")
    if anonymous is not None and not anonymous.get("enabled") and anonymous.get("conditions"):
        why = "enabled should be set to true when conditions are defined"
        shown = [{"Path": c.get("path") or ""} for c in anonymous["conditions"]]
        errors.append(invalid_value("anonymous.conditions", shown, why))
    return errors


def _issuer(issuer: Obj, path: str, disallowed: list[str]) -> Iterable[FieldError]:
    url, elsewhere = issuer.get("url") or "", issuer.get("discoveryURL") or ""
    if not url:
        yield required(f"{path}.url")
    else:
        yield from _url(url, f"{path}.url", disallowed)
    if elsewhere:
        if url and url.rstrip("/") == elsewhere.rstrip("/"):
            yield invalid_value(f"{path}.discoveryURL", elsewhere, "discoveryURL must be different from URL")
        yield from _url(elsewhere, f"{path}.discoveryURL", [])
    yield from _audiences(issuer.get("audiences") or [], issuer.get("audienceMatchPolicy") or "", path)
    ca = issuer.get("certificateAuthority")
    if ca and "-----BEGIN CERTIFICATE-----" not in ca:
        why = "data does not contain any valid RSA or ECDSA certificates"
        yield invalid_value(f"{path}.certificateAuthority", "<omitted>", why)
    selector = issuer.get("egressSelectorType")
    if selector and selector not in ("controlplane", "cluster"):
        why = "egress selector must be either controlplane or cluster"
        yield invalid_value(f"{path}.egressSelectorType", selector, why)


def _url(url: str, path: str, disallowed: list[str]) -> Iterable[FieldError]:
    if url in disallowed:
        listed = f"[{' '.join(disallowed)}]"
        yield invalid_value(path, url, f"URL must not overlap with disallowed issuers: {listed}")
    try:
        parts = urlsplit(url)
    except ValueError as e:
        yield invalid_value(path, url, str(e))
        return
    if parts.scheme != "https":
        yield invalid_value(path, url, "URL scheme must be https")
    if "@" in parts.netloc:
        yield invalid_value(path, url, "URL must not contain a username or password")
    if parts.query:
        yield invalid_value(path, url, "URL must not contain a query")
    if parts.fragment:
        yield invalid_value(path, url, "URL must not contain a fragment")


def _audiences(audiences: list[str], policy: str, path: str) -> Iterable[FieldError]:
    at = f"{path}.audiences"
    if not audiences:
        yield required(at, f"at least one {at} is required")
        return
    for i, audience in enumerate(audiences):
        if not audience:
            yield required(f"{at}[{i}]")
        if audience in audiences[:i]:
            yield duplicate(f"{at}[{i}]", audience)
    if len(audiences) > 1 and policy != "MatchAny":
        why = "audienceMatchPolicy must be MatchAny for multiple audiences"
        yield invalid_value(f"{path}.audienceMatchPolicy", policy, why)
    if len(audiences) == 1 and policy not in ("", "MatchAny"):
        why = "audienceMatchPolicy must be empty or MatchAny for single audience"
        yield invalid_value(f"{path}.audienceMatchPolicy", policy, why)


def _claim_rules(rules: list[Obj], path: str) -> Iterable[FieldError]:
    claims: set[str] = set()
    expressions: set[str] = set()
    for i, rule in enumerate(rules):
        at = f"{path}[{i}]"
        claim, expression = rule.get("claim") or "", rule.get("expression") or ""
        if claim and expression:
            yield invalid_value(at, claim, _EXCLUSIVE)
        elif claim:
            if rule.get("message"):
                yield invalid_value(f"{at}.message", rule["message"], "may not be specified when claim is set")
            if claim in claims:
                yield duplicate(f"{at}.claim", claim)
            claims.add(claim)
        elif expression:
            if rule.get("requiredValue"):
                yield invalid_value(f"{at}.requiredValue", rule["requiredValue"], _OMITTED)
            if expression in expressions:
                yield duplicate(f"{at}.expression", expression)
                continue
            expressions.add(expression)
            yield from compile_fault(expression, "claims", f"{at}.expression", condition=True)
        else:
            yield required(at, "claim or expression is required")


def _mappings(mappings: Obj, path: str, rules: list[Obj]) -> Iterable[FieldError]:
    username = mappings.get("username") or {}
    faults = list(_claim_or_expression(username, f"{path}.username", needed=True))
    yield from faults
    yield from _claim_or_expression(mappings.get("groups") or {}, f"{path}.groups", needed=False)
    uid = mappings.get("uid") or {}
    if uid.get("claim") and uid.get("expression"):
        yield invalid_value(f"{path}.uid", "", _EXCLUSIVE)
    elif uid.get("expression"):
        yield from compile_fault(uid["expression"], "claims", f"{path}.uid.expression", condition=False)
    extra = mappings.get("extra") or []
    yield from _extra(extra, f"{path}.extra")
    expression = username.get("expression") or ""
    others = [r.get("expression") or "" for r in rules] + [e.get("valueExpression") or "" for e in extra]
    if not faults and _EMAIL.search(expression) and not any(map(_EMAIL_VERIFIED.search, [expression, *others])):
        yield invalid_value(f"{path}.username.expression", expression, _VERIFIED)


def _claim_or_expression(mapping: Obj, path: str, *, needed: bool) -> Iterable[FieldError]:
    claim, expression, prefix = mapping.get("claim"), mapping.get("expression"), mapping.get("prefix")
    if claim and expression:
        yield invalid_value(path, "", _EXCLUSIVE)
    elif expression:
        if prefix is not None:
            yield invalid_value(f"{path}.prefix", prefix, _OMITTED)
        yield from compile_fault(expression, "claims", f"{path}.expression", condition=False)
    elif claim:
        if prefix is None:
            why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing"
            yield required(f"{path}.prefix", why)
    elif needed:
        yield required(path, "claim or expression is required")


def _extra(mappings: list[Obj], path: str) -> Iterable[FieldError]:
    keys: set[str] = set()
    for i, mapping in enumerate(mappings):
        at = f"{path}[{i}]"
        key, expression = mapping.get("key") or "", mapping.get("valueExpression") or ""
        yield from _extra_key(key, f"{at}.key")
        if key in keys:
            yield duplicate(f"{at}.key", key)
            continue
        keys.add(key)
        if not expression:
            yield required(f"{at}.valueExpression")
            continue
        yield from compile_fault(expression, "claims", f"{at}.valueExpression", condition=False)


def _extra_key(key: str, path: str) -> Iterable[FieldError]:
    yield from extra_keys.faults(key, path)
    domain, slash, _ = key.partition("/")
    if key != key.lower():
        yield invalid_value(path, key, "must be lowercase")
    if slash and any(domain == d or domain.endswith(f".{d}") for d in ("k8s.io", "kubernetes.io")):
        why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"
        yield invalid_value(path, key, why)


def _user_rules(rules: list[Obj], path: str) -> Iterable[FieldError]:
    seen: set[str] = set()
    for i, rule in enumerate(rules):
        at, expression = f"{path}[{i}].expression", rule.get("expression") or ""
        if not expression:
            yield required(at)
        elif expression in seen:
            yield duplicate(at, expression)
        else:
            seen.add(expression)
            yield from compile_fault(expression, "user", at, condition=True)
