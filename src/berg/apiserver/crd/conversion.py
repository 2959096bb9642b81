"""Custom resources between versions: by name only, or by the definition's webhook.

Source: k8s.io/apiextensions-apiserver pkg/apiserver/conversion.
"""

from __future__ import annotations

import uuid
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from berg.apiserver.crd.figures import CALL, INVALID, MALFORMED, PARTIAL, ConversionFigures, Failed
from berg.machinery import schema
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
    """Raises ApiError 500 with what the webhook said, or what is wrong with that. Either is counted."""
    figures, started = ConversionFigures(registry.services.metrics), perf_counter()
    about = (
        f"{registry.storage.plural}.{registry.storage.group}",
        str(objs[0].get("apiVersion")).rpartition("/")[2],
        wanted.rpartition("/")[2],
        started,
    )
    try:
        found = await _converted(registry, webhook, objs, wanted)
    except Failed as e:
        figures.asked(*about, e.kind)
        raise
    figures.asked(*about)
    return found


async def _converted(registry: Registry, webhook: Obj, objs: list[Obj], wanted: str) -> list[Obj]:
    """Raises Failed."""
    from berg.apiserver.http.hooks import HookError

    versions = webhook.get("conversionReviewVersions") or ["v1"]
    version = next((v for v in versions if v in ("v1", "v1beta1")), "v1")
    uid = str(uuid.uuid4())
    review = {
        "kind": "ConversionReview",
        "apiVersion": f"apiextensions.k8s.io/{version}",
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objs},
    }
    several = "List" if len(objs) > 1 else ""
    about = f"conversion webhook for {objs[0].get('apiVersion')}, Kind={registry.storage.kind}{several}"
    try:
        with _span(registry, objs, wanted, uid):
            tracing = registry.services.tracing
            headers = tracing.headers() if tracing is not None else None
            config, body = webhook["clientConfig"], orjson.dumps(review)
            answer = await registry.services.hooks.post(
                config, body, TIMEOUT_S, headers=headers, query=f"timeout={TIMEOUT_S:.0f}s"
            )
        converted = _answered(answer, version, uid)
    except (HookError, _Unfit) as e:
        raise Failed(CALL if isinstance(e, HookError) else MALFORMED, f"{about} failed: {e}") from None
    if len(converted) != len(objs):
        raise Failed(PARTIAL, f"{about} returned {len(converted)} objects, expected {len(objs)}")
    return [
        _checked(about, i, old, new, wanted, several) for i, (old, new) in enumerate(zip(objs, converted, strict=True))
    ]


class _Unfit(ValueError):
    """What the webhook answered cannot be used."""


def _failed(text: str) -> Failed:
    return Failed(INVALID, text)


def _answered(answer: Any, version: str, uid: str) -> list[Any]:
    """The converted objects. Raises _Unfit."""
    if not isinstance(answer, dict):
        raise _Unfit(f"couldn't get version/kind; json parse error: {not_an_object(answer)}")
    wanted = f"apiextensions.k8s.io/{version}, Kind=ConversionReview"
    given, kind = answer.get("apiVersion") or "", answer.get("kind") or ""
    if version == "v1" and not (given and kind):
        raise _Unfit(f"expected webhook response of {wanted}, got {given or '/'}, Kind={kind}")
    if (given, kind) != (f"apiextensions.k8s.io/{version}", "ConversionReview") and given and kind:
        raise _Unfit(_another(given, kind, version))
    response = answer.get("response")
    if response is None:
        raise _Unfit("no response provided")
    if version == "v1" and (got := response.get("uid") or "") != uid:
        raise _Unfit(f'expected response.uid="{uid}", got "{got}"')
    result = response.get("result") or {}
    if (state := result.get("status") or "") != "Success":
        raise _Unfit(result.get("message") or f"response.result.status was '{state}', not 'Success'")
    return response.get("convertedObjects") or []


def _another(given: str, kind: str, version: str) -> str:
    if kind == "ConversionReview" and given in ("apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1"):
        v = given.rpartition("/")[2]
        return f"converting ({v}.{kind}) to ({version}.{kind}): unknown conversion"
    return f'no kind "{kind}" is registered for version "{given}" in scheme "{_SCHEME}"'


_SCHEME = "k8s.io/apiserver/pkg/util/webhook/client.go:71"


def not_an_object(value: Any) -> str:
    from berg.apiserver.registry.decoding import go_kind

    return f"json: cannot unmarshal {go_kind(value)} into Go value of type map[string]interface {{}}"


def _checked(about: str, index: int, old: Obj, new: Any, wanted: str, several: str) -> Obj:
    """The converted object with the metadata of the one that was sent, but for labels and annotations."""
    what = f"invalid {'converted ' if several else ''}object at index {index}"
    if not isinstance(new, dict):
        raise _failed(f"{about} returned {what}: {not_an_object(new)}" if several else not_an_object(new))
    faults = (
        ("groupVersion", wanted, new.get("apiVersion") or ""),
        ("kind", old["kind"], new.get("kind") or ""),
    )
    for field, expected, got in faults:
        if expected != got:
            raise _failed(f"{about} returned {what}: invalid {field} (expected {expected}, received {got})")
    meta = new.get("metadata")
    before, after = old["metadata"], meta if isinstance(meta, dict) else {}
    for field, word in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        e, a = before.get(field) or "", after.get(field) or ""
        if e != a:
            head = what if several else "invalid object"
            raise _failed(f"{about} returned {head}: must have the same {word}: {e} != {a}")
    try:
        new["metadata"] = _restored(before, new)
    except _Unfit as e:
        where = f"invalid metadata in object at index {index}" if several else "invalid metadata"
        raise _failed(f"{about} returned {where}: {e}") from None
    return new


def _restored(before: Obj, new: Obj) -> Obj:
    """Raises _Unfit."""
    from berg.apiserver.kinds import label_selectors

    if "metadata" not in new:
        raise _Unfit("missing metadata in converted object")
    after = new["metadata"]
    if not isinstance(after, dict):
        raise _Unfit(f"invalid metadata of type {_go_type(after)} in converted object")
    kept = dict(before)
    checks = (("labels", label_selectors.validate_labels), ("annotations", label_selectors.validate_annotations))
    for field, check in checks:
        given = after.get(field)
        if given is None:
            kept.pop(field, None)
            continue
        if not isinstance(given, dict):
            raise _Unfit(f"invalid metadata.{field} of type {_go_type(given)} in converted object")
        for key, value in given.items():
            if not isinstance(value, str):
                why = f"must be a string, but is {_go_type(value)} in converted object"
                raise _Unfit(f"metadata.{field}[{key}] {why}")
        if given != before.get(field):
            path = "metadata.labels" if field == "labels" else "metadata.annotation"
            if faults := check(given, path):
                texts = [str(f) for f in faults]
                raise _Unfit(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
        kept[field] = given
    return kept


def _go_type(value: Any) -> str:
    from berg.apiserver.crd.scale import GO_TYPES

    return GO_TYPES[type(value)]


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
