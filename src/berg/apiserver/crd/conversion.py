"""Custom resources between versions: by name only, or by the definition's webhook.

Source: k8s.io/apiextensions-apiserver pkg/apiserver/conversion.
"""

from __future__ import annotations

import uuid
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import orjson

from berg.machinery import schema, status
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.apiserver.registry.registry import ConvertMany, Registry

TIMEOUT_S = 30.0


def converter(registry: Registry, crd: Obj) -> ConvertMany:
    conversion = crd["spec"].get("conversion") or {}
    webhook = conversion.get("webhook") if conversion.get("strategy") == "Webhook" else None

    async def convert(objs: list[Obj], target: Resource) -> list[Obj]:
        wanted = target.api_version
        places = [i for i, o in enumerate(objs) if o.get("apiVersion") != wanted]
        if not places:
            return objs
        others = [objs[i] for i in places]
        if webhook is None:
            for obj in others:
                obj["apiVersion"] = wanted
        else:
            others = await _ask(registry, webhook, others, wanted)
        type_ = registry.custom_types.get(target.version)
        found = list(objs)
        for i, obj in zip(places, others, strict=True):
            if type_ is not None:
                schema.prune(type_, obj)
                schema.default(type_, obj)
            found[i] = obj
        return found

    return convert


async def _ask(registry: Registry, webhook: Obj, objs: list[Obj], wanted: str) -> list[Obj]:
    """Raises InternalError with what the webhook said."""
    from berg.apiserver.http.hooks import HookError

    versions = webhook.get("conversionReviewVersions") or ["v1"]
    version = next((v for v in versions if v in ("v1", "v1beta1")), "v1")
    uid = str(uuid.uuid4())
    review = {
        "kind": "ConversionReview",
        "apiVersion": f"apiextensions.k8s.io/{version}",
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objs},
    }
    kind = registry.storage.kind
    prefix = f"conversion webhook for {objs[0].get('apiVersion')}, Kind={kind} failed"
    try:
        with _span(registry, objs, wanted, uid):
            tracing = registry.services.tracing
            headers = tracing.headers() if tracing is not None else None
            config, body = webhook["clientConfig"], orjson.dumps(review)
            answer = await registry.services.hooks.post(config, body, TIMEOUT_S, headers=headers)
    except HookError as e:
        raise status.internal_error(f"{prefix}: {e}") from None
    if not isinstance(answer, dict):
        raise status.internal_error(f"{prefix}: the answer is no object")
    response = answer.get("response") or {}
    result = response.get("result") or {}
    if response.get("uid") != uid:
        raise status.internal_error(f"{prefix}: expected uid {uid}, got {response.get('uid')}")
    if result.get("status") != "Success":
        raise status.internal_error(f"{prefix}: {result.get('message') or 'failed'}")
    converted: list[Obj] = response.get("convertedObjects") or []
    if len(converted) != len(objs):
        raise status.internal_error(f"{prefix}: webhook returned {len(converted)} objects, expected {len(objs)}")
    for before, after in zip(objs, converted, strict=True):
        if after.get("apiVersion") != wanted:
            raise status.internal_error(f"{prefix}: invalid converted object: apiVersion {after.get('apiVersion')}")
        kept = before["metadata"]
        meta = after.setdefault("metadata", {})
        labels, annotations = meta.get("labels"), meta.get("annotations")
        after["metadata"] = {**kept}
        for field, value in (("labels", labels), ("annotations", annotations)):
            if value is None:
                after["metadata"].pop(field, None)
            else:
                after["metadata"][field] = value
    return converted


def _span(registry: Registry, objs: list[Obj], wanted: str, uid: str) -> AbstractContextManager:
    tracing = registry.services.tracing
    if tracing is None:
        return nullcontext()
    told = {
        "custom-resource-definition": f"{registry.storage.plural}.{registry.storage.group}",
        "desired-api-version": wanted,
        "object-count": len(objs),
        "UID": uid,
    }
    span: AbstractContextManager = tracing.span("Call conversion webhook", told)
    return span
