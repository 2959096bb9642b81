"""Server-side apply: a manifest as what its manager wants to own.

Source: k8s.io/apiserver pkg/endpoints/handlers/patch.go (applyPatcher), KEP-555.
"""

from __future__ import annotations

from typing import Any

import orjson

from berg.apiserver.http.message import Request
from berg.apiserver.registry import decoding, fieldmanager
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.options import WriteOptions
from berg.apiserver.registry.patching import APPLY_CBOR_PATCH, finish
from berg.apiserver.registry.update import Updated, admit_shown, update
from berg.apiserver.registry.views import WHOLE, View
from berg.machinery import status
from berg.machinery.codec import yaml as yaml_codec
from berg.machinery.patch import apply as machinery
from berg.machinery.status import ApiError, Obj


async def apply(request: Request, call: Call, view: View, options: WriteOptions) -> Updated:
    """Creates what is not there. Raises ApiError: 409 when others own what the manifest would change."""
    registry, resource = call.registry, call.resource
    applied, faults = _parse(request, options.field_validation)
    type_ = registry.type_of(resource)
    if type_ is None:
        raise status.internal_error(f"no schema of {resource.kind} to apply with")
    shown = view.kind(resource)
    if (applied.get("kind"), applied.get("apiVersion")) != (shown.kind, shown.api_version):
        raise status.bad_request(f"invalid object type: {machinery.shown_kind(applied)}")
    if not view.identity:
        applied = _as_object(call, view, applied)
    encoded = orjson.dumps(applied)
    now = call.context.clock.now()

    def unfit(_: Any, reason: str) -> ApiError:
        kind = machinery.shown_kind(applied)
        if reason.startswith("illegal base64"):
            reason = f"error decoding from json: {reason}"
        text = f"to proper version: unable to convert unstructured object to {kind}: {reason}"
        return ApiError(500, "", f"failed to convert new object ({machinery.shown_name(applied)}) {text}")

    async def merged(current: Obj | None) -> Obj:
        live = None if current is None else (await registry.many_to_version([current], resource))[0]
        wanted: Obj = orjson.loads(encoded)
        base = orjson.loads(orjson.dumps(live)) if live is not None else None
        result = machinery.apply(
            base,
            wanted,
            options.field_manager,
            force=bool(options.force),
            subresource=call.subresource,
            now=now,
            type=type_,
            reset=fieldmanager.reset_fields(call),
            convert=fieldmanager.converter(call),
        )
        if live is None:
            result["metadata"].pop("resourceVersion", None)
        own = (wanted.get("metadata") or {}).get("resourceVersion")
        if own:
            result["metadata"]["resourceVersion"] = own
        if live is not None and not view.identity:
            shown = view.show(result)
            await admit_shown(call, view, shown, live)
            result = view.put(result, shown)
        part = WHOLE if not view.identity else view
        copy = orjson.loads(orjson.dumps(result))
        return await finish(call, part, live or {}, copy, options.field_validation, faults, unfit, pristine=result)

    return await update(call, merged, may_create=not call.subresource, tracked=False, view=view)


def _parse(request: Request, mode: str) -> tuple[Obj, list[str]]:
    faults: list[str] = []
    parsed: Any
    try:
        if request.headers.get("content-type", "").startswith(APPLY_CBOR_PATCH):
            from berg.machinery.codec import cbor

            parsed = cbor.loads(request.body)
        elif mode == decoding.IGNORE:
            parsed = yaml_codec.loads(request.body)
        else:
            parsed, faults = yaml_codec.loads_strict(request.body)
    except ValueError as e:
        raise status.bad_request(f"error decoding YAML: error converting YAML to JSON: {e}") from None
    if parsed is None:
        return {}, faults
    if not isinstance(parsed, dict):
        why = f"json: cannot unmarshal {decoding.go_kind(parsed)} into Go value of type map[string]interface {{}}"
        raise status.bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {why}")
    return parsed, faults


def _as_object(call: Call, view: View, scale: Obj) -> Obj:
    """A Scale is applied as the one field of the object that it stands for."""
    bare: Obj = {"metadata": {}}
    given = {"metadata": {}, "spec": scale.get("spec") or {}}
    put = view.put(bare, given)
    put.pop("metadata", None)
    return {
        "apiVersion": call.resource.api_version,
        "kind": call.resource.kind,
        "metadata": {"name": call.name, **({"namespace": call.namespace} if call.namespace else {})},
        **put,
    }
