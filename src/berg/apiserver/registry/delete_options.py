"""DeleteOptions of a request: its body, else its query; typed, checked, and as they are handed on.

Source: k8s.io/apiserver pkg/endpoints/handlers/delete.go, apimachinery pkg/apis/meta/v1 (conversion, validation).
"""

from __future__ import annotations

from berg.apiserver.http.message import Request
from berg.apiserver.registry import decoding
from berg.apiserver.registry.options import integer, invalid_dry_run
from berg.apiserver.requestinfo import is_true
from berg.machinery import schema, status
from berg.machinery.status import FieldError, Obj

_UNREADABLE = "ignoreStoreReadErrorWithClusterBreakingPotential"
_POLICIES = ("Foreground", "Background", "Orphan")
_SCHEME = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27"


def delete_options(request: Request, *, unreadable: bool = False) -> Obj:
    """`unreadable`: what cannot be read may be deleted. Raises ApiError."""
    options = _of_body(request) if request.body else _of_query(request) if request.raw_query else {}
    if not unreadable:
        options.pop(_UNREADABLE, None)
    validate(options)
    return {**options, "kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}


def _of_body(request: Request) -> Obj:
    parsed, _ = decoding.parse_body(request, "DeleteOptions")
    if not isinstance(parsed, dict):
        raise status.bad_request(decoding.no_kind(parsed))
    options: Obj = parsed
    for field in ("apiVersion", "kind"):
        if (why := decoding.no_text(options, field)) is not None:
            raise status.bad_request(why)
    kind, version = options.get("kind") or "DeleteOptions", options.get("apiVersion") or "meta.k8s.io/v1"
    if kind != "DeleteOptions":
        raise status.bad_request(f'no kind "{kind}" is registered for version "{version}" in scheme "{_SCHEME}"')
    type_ = schema.type_of("", "v1", "DeleteOptions")
    assert type_ is not None
    try:
        schema.decode(type_, options)
    except schema.WrongType as e:
        raise status.bad_request(str(e)) from None
    return options


def _of_query(request: Request) -> Obj:
    options: Obj = {}
    query = request.query
    if (seconds := integer(request, "gracePeriodSeconds")) is not None:
        options["gracePeriodSeconds"] = seconds
    if "propagationPolicy" in query:
        options["propagationPolicy"] = request.arg("propagationPolicy")
    if "orphanDependents" in query:
        options["orphanDependents"] = is_true(query["orphanDependents"])
    if "dryRun" in query:
        options["dryRun"] = query["dryRun"]
    if _UNREADABLE in query:
        options[_UNREADABLE] = is_true(query[_UNREADABLE])
    return options


def validate(options: Obj) -> None:
    """Raises Invalid."""
    errors: list[FieldError] = []
    policy = options.get("propagationPolicy")
    if policy is not None and options.get("orphanDependents") is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        errors.append(status.invalid_value("propagationPolicy", policy, why))
    if policy is not None and policy not in _POLICIES:
        errors.append(status.not_supported("propagationPolicy", policy, [*_POLICIES, "nil"]))
    errors += invalid_dry_run(options.get("dryRun") or [])
    if options.get(_UNREADABLE):
        for key in ("dryRun", "propagationPolicy", "orphanDependents", "gracePeriodSeconds", "preconditions"):
            if options.get(key) not in (None, []):
                errors.append(status.invalid_value(_UNREADABLE, True, f"cannot be set together with .{key}"))
    if errors:
        raise status.invalid("meta.k8s.io", "DeleteOptions", "", errors)
