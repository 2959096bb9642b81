"""What ingresses and their classes may say.

Source: kubernetes pkg/apis/networking/validation.
"""

from __future__ import annotations

import re

from berg.apiserver.kinds import addresses, checks
from berg.machinery import names
from berg.machinery.status import (
    FieldError,
    Obj,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)

_CLASS = "kubernetes.io/ingress.class"
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_SUFFIXES = ("/..", "/.")
_SCOPES = ("Cluster", "Namespace")
_LONGEST_CONTROLLER = 250
_HTTP_PATH = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+"
_http_path = re.compile(_HTTP_PATH)
_NOT_AN_IP = "must be a DNS name, not an IP address"


def validate_ingress_create(obj: Obj) -> list[FieldError]:
    errors = _spec(obj, None)
    said = ((obj.get("metadata") or {}).get("annotations") or {}).get(_CLASS)
    wanted = (obj.get("spec") or {}).get("ingressClassName")
    if said is not None and wanted is not None and said != wanted:
        why = "must match `ingressClassName` when both are specified"
        errors.append(invalid_value(f"annotations.{_CLASS}", said, why))
    return errors


def validate_ingress_update(obj: Obj, old: Obj) -> list[FieldError]:
    return _spec(obj, old)


def validate_ingress_status(obj: Obj, old: Obj | None) -> list[FieldError]:
    def points(of: Obj | None) -> list[Obj]:
        return (((of or {}).get("status") or {}).get("loadBalancer") or {}).get("ingress") or []

    known = [p["ip"] for p in points(old) if p.get("ip")]
    errors: list[FieldError] = []
    for i, point in enumerate(points(obj)):
        at = f"status.loadBalancer.ingress[{i}]"
        if point.get("ip"):
            errors += addresses.legacy_ip(f"{at}.ip", point["ip"], known)
        if host := point.get("hostname"):
            errors += checks.named(f"{at}.hostname", host)
            if addresses.parse_ip(host) is not None:
                errors.append(invalid_value(f"{at}.hostname", host, _NOT_AN_IP))
    return errors


def _spec(obj: Obj, old: Obj | None) -> list[FieldError]:
    spec, before = obj.get("spec") or {}, (old or {}).get("spec") or {}
    errors: list[FieldError] = []
    rules = spec.get("rules") or []
    if not rules and spec.get("defaultBackend") is None:
        why = "either `defaultBackend` or `rules` must be specified"
        errors.append(invalid_value("spec", spec.get("rules"), why))
    if spec.get("defaultBackend") is not None:
        errors += _backend(spec["defaultBackend"], "spec.defaultBackend")
    lenient = any("*" in (r.get("host") or "") and _rule_value(r, "") for r in before.get("rules") or ())
    for i, rule in enumerate(rules):
        at = f"spec.rules[{i}]"
        host = rule.get("host") or ""
        errors += _host(host, f"{at}.host")
        if "*" not in host or not lenient:
            errors += _rule_value(rule, at)
    errors += _tls(spec.get("tls") or [], before.get("tls") or [])
    if spec.get("ingressClassName") is not None:
        errors += checks.named("spec.ingressClassName", spec["ingressClassName"])
    return errors


def _host(host: str, path: str) -> list[FieldError]:
    if not host:
        return []
    errors = [invalid_value(path, host, _NOT_AN_IP)] if addresses.parse_ip(host) is not None else []
    check = names.wildcard_dns1123_subdomain if "*" in host else names.dns1123_subdomain
    return errors + checks.named(path, host, check)


def _tls(tls: list[Obj], before: list[Obj]) -> list[FieldError]:
    def bad_secret(entry: Obj) -> list[str]:
        name = entry.get("secretName") or ""
        return names.dns1123_subdomain(name) if name else []

    lenient = any(bad_secret(entry) for entry in before)
    errors: list[FieldError] = []
    for i, entry in enumerate(tls):
        for j, host in enumerate(entry.get("hosts") or ()):
            check = names.wildcard_dns1123_subdomain if "*" in host else names.dns1123_subdomain
            errors += checks.named(f"spec.tls[{i}].hosts[{j}]", host, check)
        if not lenient:
            path = f"spec.tls[{i}].secretName"
            errors += [invalid_value(path, entry["secretName"], text) for text in bad_secret(entry)]
    return errors


def _rule_value(rule: Obj, at: str) -> list[FieldError]:
    http = rule.get("http")
    if http is None:
        return []
    paths = http.get("paths") or []
    errors = [] if paths else [required(f"{at}.http.paths")]
    for i, path in enumerate(paths):
        errors += _path(path, f"{at}.http.paths[{i}]")
    return errors


def _path(path: Obj, at: str) -> list[FieldError]:
    kind, text = path.get("pathType"), path.get("path") or ""
    if kind is None:
        return [required(f"{at}.pathType", "pathType must be specified")]
    errors: list[FieldError] = []
    where = f"{at}.path"
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            errors.append(invalid_value(where, text, "must be an absolute path"))
        errors += [invalid_value(where, text, f"must not contain '{bad}'") for bad in _SEQUENCES if bad in text]
        errors += [invalid_value(where, text, f"cannot end with '{bad}'") for bad in _SUFFIXES if text.endswith(bad)]
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            errors.append(invalid_value(where, text, "must be an absolute path"))
    else:
        errors.append(not_supported(f"{at}.pathType", kind, _PATH_TYPES))
    return errors + _backend(path.get("backend") or {}, f"{at}.backend")


def _backend(backend: Obj, at: str) -> list[FieldError]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        return [invalid_value(at, "", "cannot set both resource and service backends")]
    if resource is not None:
        return _reference(resource, f"{at}.resource")
    if service is None:
        return [invalid_value(at, "", "resource or service backend is required")]
    errors = checks.required_name(f"{at}.service.name", service.get("name"), names.dns1123_label)
    port = service.get("port") or {}
    name, number = port.get("name") or "", port.get("number") or 0
    if name and number:
        errors.append(invalid_value(at, "", "cannot set both port name & port number"))
    elif name:
        errors += checks.named(f"{at}.service.port.name", name, names.port_name)
    elif number:
        errors += checks.port_number(f"{at}.service.port.number", number)
    else:
        errors.append(required(at, "port name or number is required"))
    return errors


def _reference(ref: Obj, at: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if ref.get("apiGroup") is not None:
        errors += checks.named(f"{at}.apiGroup", ref["apiGroup"])
    for key in ("kind", "name"):
        errors += checks.required_name(f"{at}.{key}", ref.get(key), names.path_segment)
    return errors


def validate_ingress_class(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    path = "spec.controller"
    controller = spec.get("controller") or ""
    errors: list[FieldError] = []
    if len(controller.encode()) > _LONGEST_CONTROLLER:
        errors.append(too_long(path, "", _LONGEST_CONTROLLER))
    errors += domain_prefixed_path(path, controller)
    params = spec.get("parameters")
    return errors + (_parameters(params, "spec.parameters") if params is not None else [])


def domain_prefixed_path(path: str, text: str) -> list[FieldError]:
    if not text:
        return [required(path)]
    host, _, rest = text.partition("/")
    if not host or not rest:
        return [invalid_value(path, text, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    errors = checks.named(path, host)
    if not _http_path.fullmatch(rest):
        errors.append(invalid_value(path, rest, f"Invalid path (regex used for validation is '{_HTTP_PATH}')"))
    return errors


def _parameters(params: Obj, at: str) -> list[FieldError]:
    errors = _reference(params, at)
    scope, namespace = params.get("scope"), params.get("namespace")
    if scope is None:
        errors.append(required(f"{at}.scope"))
    elif scope not in _SCOPES:
        errors.append(not_supported(f"{at}.scope", scope, _SCOPES))
    elif scope == "Namespace":
        if namespace is None:
            errors.append(required(f"{at}.namespace", "`parameters.scope` is set to 'Namespace'"))
        else:
            errors += checks.named(f"{at}.namespace", namespace, names.dns1123_label)
    elif namespace is not None:
        errors.append(forbidden_field(f"{at}.namespace", "`parameters.scope` is set to 'Cluster'"))
    return errors
