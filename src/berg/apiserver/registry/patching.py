"""PATCH: from a content type and a body to the function that turns an object into the patched one.

Source: k8s.io/apiserver pkg/endpoints/handlers/patch.go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import orjson

from berg.apiserver.http.message import Request
from berg.apiserver.registry import decoding, negotiation
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.update import Transform, admit_shown
from berg.apiserver.registry.views import View
from berg.machinery import schema, status
from berg.machinery.codec import json as json_codec
from berg.machinery.quoting import quote
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
    """For every type but apply. What is no patch at all is refused when there is an object to patch."""
    registry, resource = call.registry, call.resource
    shown = view.kind(resource)
    parsed: list[tuple[Any, list[str]]] = []

    async def patched(current: Obj | None) -> Obj:
        if current is None:
            raise registry.not_found(call.name)
        if not parsed:
            parsed.append(_parse(request, kind, mode))
        patch, faults = parsed[0]
        versioned = (await registry.many_to_version([current], resource))[0]
        base = view.show(versioned)
        made, left = _apply(kind, base, patch, shown)
        given = orjson.loads(orjson.dumps(made))  # shares nothing with the patch
        if kind != STRATEGIC_PATCH:
            return await finish(call, view, versioned, given, mode, faults, _no_object)
        given["kind"], given["apiVersion"] = shown.kind, shown.api_version  # nobody asks what the patch says

        def unfit(_: Any, reason: str) -> ApiError:
            from berg.machinery.patch import strategic

            return _no_object(strategic.go_value(left), reason)

        return await finish(call, view, versioned, given, mode, faults, unfit, pristine=made)

    return patched


def _no_object(given: Any, reason: str) -> ApiError:
    value = given if isinstance(given, str) else _show(given)
    return status.invalid("", "", "", [status.invalid_value("patch", value, reason)])


async def finish(
    call: Call,
    view: View,
    versioned: Obj,
    given: Any,
    mode: str,
    faults: list[str],
    refused: Callable[[Any, str], ApiError],
    *,
    pristine: Any = None,
) -> Obj:
    """Checks and decodes what a patch made, puts it into the object, and brings that to the storage version.
    `refused` says that it cannot be decoded. `pristine`: what `given` is a copy of, when it is read as upstream reads
    what has not been JSON again (`machinery.unstructured`)."""
    registry, resource = call.registry, call.resource
    shown = view.kind(resource)

    def decoded(given: Any) -> Obj:
        if view.identity and registry.custom:
            from berg.apiserver.crd import type_meta

            type_meta.check_patched(given, shown)
        decoding.check_kind(given, shown)
        if view.identity:
            return decoding.canonical(registry, given, resource, mode=mode, warnings=call.warnings, faults=faults)
        return decoding.as_kind(given, shown, mode=mode, warnings=call.warnings, faults=faults)

    try:
        try:
            given = decoded(given)
        except ApiError as e:
            if pristine is None or e.code != 400 or (view.identity and registry.custom):
                raise
            given = decoded(_fitted(pristine, shown))
    except ApiError as e:
        if e.code != 400:
            raise
        if registry.custom and view.identity:
            with contextlib.suppress(TypeError):
                given = orjson.dumps(given, option=orjson.OPT_SORT_KEYS).decode()  # upstream's is a map
        raise refused(given, _reason(e)) from None
    if not view.identity:
        decoding.match_namespace(given, call.namespace)
        decoding.check_name(given, call.name, call.namespace)
        await admit_shown(call, view, given, versioned)
        return decoding.canonical(registry, view.put(versioned, given), resource)
    decoding.match_namespace(given, call.namespace)
    decoding.check_name(given, call.name, call.namespace)
    uid = (versioned.get("metadata") or {}).get("uid")
    if uid and (asked := given["metadata"].get("uid") or uid) != uid:
        raise registry.invalid(call.name, [status.invalid_value("metadata.uid", asked, "field is immutable")] * 2)
    if call.subresource and call.subresource != "status":
        current = registry.to_storage(versioned, resource) if not registry.custom else versioned
        given = view.put(current, given)
    return given


def _fitted(pristine: Any, shown: Resource) -> Any:
    """Raises BadRequest."""
    from berg.machinery import unstructured

    given = orjson.loads(orjson.dumps(pristine))
    type_ = schema.type_of(shown.group, shown.version, shown.kind)
    if type_ is not None and isinstance(given, dict):
        given["kind"], given["apiVersion"] = shown.kind, shown.api_version
        try:
            unstructured.fit(type_, given)
        except schema.WrongType as e:
            raise status.bad_request(str(e)) from None
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
    """Raises BadRequest."""
    prefix = "" if kind == STRATEGIC_PATCH else "error decoding patch: "
    strict = mode != decoding.IGNORE
    try:
        patch, faults = json_codec.loads_strict(request.body) if strict else (json_codec.loads(request.body), [])
        if kind == JSON_PATCH:
            patch = [] if patch is None else patch
            return patch, [f"json patch {f}" for f in _operations(patch, faults)] if strict else []
        if kind == STRATEGIC_PATCH and patch is None:
            patch = {}
        if not isinstance(patch, dict) and (kind == STRATEGIC_PATCH or (strict and patch is not None)):
            what = decoding.go_kind(patch)
            raise ValueError(f"json: cannot unmarshal {what} into Go value of type map[string]interface {{}}")
    except ValueError as e:
        raise status.bad_request(f"{prefix}{e}") from None
    return patch, faults


def _operations(patch: Any, faults: list[str]) -> list[str]:
    """What strict decoding finds in the operations of a JSON patch. Raises ValueError for what is none."""
    if not isinstance(patch, list):
        raise ValueError(f"json: cannot unmarshal {decoding.go_kind(patch)} into Go value of type []{_OPERATION}")
    found = list(faults)
    for i, operation in enumerate(patch):
        if operation is None:
            continue
        if not isinstance(operation, dict):
            raise ValueError(f"json: cannot unmarshal {decoding.go_kind(operation)} into Go value of type {_OPERATION}")
        for name, value in operation.items():
            if name in ("op", "path", "from"):
                if not isinstance(value, str | None):
                    what = f"{decoding.go_kind(value)} into Go struct field jsonPatchOp.{name} of type string"
                    raise ValueError(f"json: cannot unmarshal {what}")
            elif name != "value":
                found.append(f"unknown field {quote(f'[{i}].{name}')}")
    return found


_OPERATION = "handlers.jsonPatchOp"


def _apply(kind: str, base: Obj, patch: Any, shown: Resource) -> tuple[Any, Any]:
    """The patched object, and what is left of a strategic patch when its directives have been followed."""
    if kind == JSON_PATCH:
        from berg.machinery.patch import json as json_patch

        return json_patch.apply(base, patch), None
    if kind == MERGE_PATCH:
        from berg.machinery.patch import merge

        return merge.apply(base, patch), None
    from berg.machinery.patch import strategic

    type_ = schema.type_of(shown.group, shown.version, shown.kind)
    assert type_ is not None
    return strategic.followed(base, patch, type_)
