"""PATCH: from a content type and a body to the function that turns an object into the patched one.

Source: k8s.io/apiserver pkg/endpoints/handlers/patch.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from berg.apiserver.http.message import Request
from berg.apiserver.registry import decoding, negotiation
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.update import Transform
from berg.apiserver.registry.views import View
from berg.machinery import schema, status
from berg.machinery.codec import json as json_codec
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
APPLY_CBOR_PATCH = "application/apply-patch+cbor"
_BUILTIN = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)
_CUSTOM = (JSON_PATCH, MERGE_PATCH, APPLY_PATCH)


def patch_type(request: Request, *, custom: bool) -> str:
    """Raises UnsupportedMediaType."""
    given = request.headers.get("content-type", "").partition(";")[0].strip()
    allowed = _CUSTOM if custom else _BUILTIN
    if given in allowed:
        return given
    cbor = negotiation.CBOR_OFFERED in request.attributes
    if cbor and given == APPLY_CBOR_PATCH:
        return APPLY_PATCH
    if custom:
        raise status.unsupported_media_type((*allowed, APPLY_CBOR_PATCH) if cbor else allowed)
    raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})  # the router's words


def transform(request: Request, call: Call, view: View, kind: str, mode: str) -> Transform:
    """For every type but apply. Raises BadRequest when the body is no patch at all."""
    patch, faults = _parse(request, kind, mode)
    registry, resource = call.registry, call.resource
    shown = view.kind(resource)

    async def patched(current: Obj | None) -> Obj:
        if current is None:
            raise registry.not_found(call.name)
        versioned = (await registry.many_to_version([current], resource))[0]
        base = view.show(versioned)
        given = orjson.loads(orjson.dumps(_apply(kind, base, patch, shown)))  # shares nothing with the patch
        return await finish(call, view, versioned, given, mode, faults, _no_object)

    return patched


def _no_object(given: Any, reason: str) -> ApiError:
    return status.invalid("", "", "", [status.invalid_value("patch", _show(given), reason)])


async def finish(
    call: Call,
    view: View,
    versioned: Obj,
    given: Any,
    mode: str,
    faults: list[str],
    refused: Callable[[Any, str], ApiError],
) -> Obj:
    """Checks and decodes what a patch made, puts it into the object, and brings that to the storage version.
    `refused` says that it cannot be decoded."""
    registry, resource = call.registry, call.resource
    shown = view.kind(resource)
    try:
        decoding.check_kind(given, shown)
        if view.identity:
            given = decoding.canonical(registry, given, resource, mode=mode, warnings=call.warnings, faults=faults)
    except ApiError as e:
        if e.code != 400:
            raise
        raise refused(given, _reason(e)) from None
    if not view.identity:
        result = view.put(versioned, given)
        return decoding.canonical(registry, result, resource)
    decoding.match_namespace(given, call.namespace)
    decoding.check_name(given, call.name, call.namespace)
    uid = (versioned.get("metadata") or {}).get("uid")
    if uid and (asked := given["metadata"].get("uid") or uid) != uid:
        raise registry.invalid(call.name, [status.invalid_value("metadata.uid", asked, "field is immutable")])
    if call.subresource and call.subresource != "status":
        current = registry.to_storage(versioned, resource) if not registry.custom else versioned
        given = view.put(current, given)
    return given


def _reason(error: ApiError) -> str:
    head, found, tail = error.message.partition(" cannot be handled as a ")
    return tail.partition(": ")[2] if found and head else error.message


def _show(given: Any) -> str:
    try:
        return json_codec.dumps(given).decode()
    except (TypeError, ValueError, AttributeError):
        return str(given)


def _parse(request: Request, kind: str, mode: str) -> tuple[Any, list[str]]:
    try:
        if mode == decoding.IGNORE:
            return json_codec.loads(request.body), []
        patch, faults = json_codec.loads_strict(request.body)
    except ValueError as e:
        prefix = "" if kind == STRATEGIC_PATCH else "error decoding patch: "
        raise status.bad_request(f"{prefix}{e}") from None
    if kind == JSON_PATCH:
        faults = [f"json patch {f}" for f in faults]
    return patch, faults


def _apply(kind: str, base: Obj, patch: Any, shown: Resource) -> Any:
    if kind == JSON_PATCH:
        from berg.machinery.patch import json as json_patch

        return json_patch.apply(base, patch)
    if kind == MERGE_PATCH:
        from berg.machinery.patch import merge

        return merge.apply(base, patch)
    from berg.machinery.patch import strategic

    type_ = schema.type_of(shown.group, shown.version, shown.kind)
    assert type_ is not None
    return strategic.apply(base, patch, type_)
