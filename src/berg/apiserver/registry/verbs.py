"""The HTTP verbs of a resource: options in, one registry operation, the answer in the shape that was asked for.

Source: k8s.io/apiserver pkg/endpoints/handlers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from berg.apiserver.http.message import Request, Response
from berg.apiserver.kinds import cells
from berg.apiserver.registry import create as creating
from berg.apiserver.registry import decoding, fieldmanager, listing, negotiation, patching, table, unreadable, watching
from berg.apiserver.registry import delete as deleting
from berg.apiserver.registry import update as updating
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.delete_options import delete_options
from berg.apiserver.registry.negotiation import LIST_SHAPES, OBJECT_SHAPES, Accepted
from berg.apiserver.registry.options import WriteOptions, check_version, list_options, write_options
from berg.apiserver.registry.registry import Registry
from berg.apiserver.registry.selection import Selection
from berg.apiserver.registry.strategy import Context
from berg.apiserver.registry.views import WHOLE, View
from berg.apiserver.requestinfo import RequestInfo
from berg.machinery import status
from berg.machinery.fields import FieldRequirement, FieldSelector
from berg.machinery.resources import Resource
from berg.machinery.status import Obj
from berg.storage.cacher import CacheEntry, TooLargeResourceVersion
from berg.storage.transform import TransformError


def make_call(
    request: Request, registry: Registry, resource: Resource, options: WriteOptions, options_obj: Obj
) -> Call:
    info: RequestInfo = request.info
    user = request.user
    assert user is not None
    namespace = info.namespace if registry.storage.namespaced else ""
    warnings: list[str] = request.attributes.setdefault("warnings", [])
    context = Context(
        resource,
        namespace,
        user,
        info.subresource,
        options.dry_run,
        registry.services.clock,
        warnings,
        registry.services,
        info.verb,
    )
    manager = fieldmanager.manager_of(options.field_manager, request.headers.get("user-agent", ""))
    return Call(
        registry,
        resource,
        namespace,
        info.name,
        user,
        context,
        info.subresource,
        options_obj,
        manager,
        audit_annotations=request.attributes.setdefault("audit_annotations", {}),
        attributes=request.attributes,
    )


# ---- reading


async def get(request: Request, registry: Registry, resource: Resource, view: View = WHOLE) -> Response:
    accepted = negotiation.negotiate(request, OBJECT_SHAPES, registry.media_types)
    info: RequestInfo = request.info
    cacher = registry.cacher or await registry.open()
    version = request.arg("resourceVersion") if request.raw_query else ""
    if not version:
        await cacher.consistent()
    elif version != "0":
        await _not_older(registry, version)
    entry = cacher.get(registry.key(info.namespace, info.name))
    if entry is None:
        raise registry.not_found(info.name)
    return await show(request, registry, resource, entry, accepted, view=view)


async def _not_older(registry: Registry, version: str) -> None:
    assert registry.cacher is not None
    check_version(version, watch=True)
    try:
        await registry.cacher.wait_for(int(version))
    except TooLargeResourceVersion as e:
        raise listing.too_large(int(version), e.current) from None


async def list_(request: Request, registry: Registry, resource: Resource) -> Response:
    info: RequestInfo = request.info
    options = list_options(request)
    if len(info.parts) > 1:  # `/watch/…/NAME`: that object and no other
        only = FieldRequirement("metadata.name", True, info.name)
        requirements = (*options.field_selector.requirements, only)
        options = replace(options, field_selector=FieldSelector(requirements))
    namespace = info.namespace if registry.storage.namespaced else ""
    if options.watch or info.verb == "watch":
        return await watching.watch(request, registry, resource, namespace, options)
    accepted = negotiation.negotiate(request, LIST_SHAPES, registry.media_types)
    await registry.open()
    selection = Selection(registry, resource, namespace, options)
    try:
        page = await listing.read(registry, selection, options)
        if not accepted.shape:
            body = await listing.body(registry, resource, page)
            return await negotiation.respond_list(request, body, accepted)
        objs = await _objects(registry, resource, page.listing.entries)
    except TransformError:
        raise await unreadable.listed(registry, namespace) from None
    if accepted.shape == "Table":
        cells.use_clock(registry.services.clock)
        include = table.included(request)
        return negotiation.respond(
            request, table.table(registry.strategy, objs, page.metadata, include, version=accepted.version), accepted
        )
    return negotiation.respond(request, table.partial_list(objs, page.metadata, accepted.version), accepted)


async def _objects(registry: Registry, resource: Resource, entries: Any) -> list[Obj]:
    if registry.convert_custom is None and registry.schema_revision < 0 and registry.is_stored_as(resource):
        return [e.obj for e in entries]
    return await registry.many_to_version([orjson.loads(e.raw) for e in entries], resource)


async def show(
    request: Request,
    registry: Registry,
    resource: Resource,
    entry: CacheEntry,
    accepted: Accepted,
    *,
    code: int = 200,
    view: View = WHOLE,
) -> Response:
    """One entry in the version and shape that was asked for."""
    if not accepted.shape and view.identity:
        return negotiation.respond(request, await registry.raw(entry, resource), accepted, code=code)
    obj = await registry.to_version(entry, resource)
    if not view.identity:
        obj = view.show(obj)
    if accepted.shape == "Table":
        cells.use_clock(registry.services.clock)
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        include = table.included(request)
        obj = table.table(registry.strategy, [obj], metadata, include, version=accepted.version)
    elif accepted.shape == "PartialObjectMetadata":
        obj = table.partial(obj, accepted.version)
    return negotiation.respond(request, obj, accepted, code=code)


# ---- writing


async def create(request: Request, registry: Registry, resource: Resource) -> Response:
    accepted = negotiation.negotiate(request, OBJECT_SHAPES, registry.media_types)
    options = write_options(request, "CreateOptions")
    call = make_call(request, registry, resource, options, options.obj("CreateOptions"))
    obj = decoding.decode(request, registry, resource, options.field_validation, call.warnings)
    meta = obj["metadata"]
    call.name = meta.get("name") or ""
    if not registry.storage.group and registry.storage.plural == "namespaces":
        call.context.namespace = call.name
    decoding.match_namespace(obj, call.namespace)
    entry = await creating.create(call, obj)
    return await show(request, registry, resource, entry, accepted, code=201)


async def update(request: Request, registry: Registry, resource: Resource, view: View = WHOLE) -> Response:
    accepted = negotiation.negotiate(request, OBJECT_SHAPES, registry.media_types)
    options = write_options(request, "UpdateOptions")
    call = make_call(request, registry, resource, options, options.obj("UpdateOptions"))
    shown = view.kind(resource)
    if view.identity:
        given = decoding.decode(request, registry, resource, options.field_validation, call.warnings)
        decoding.check_name(given, call.name, call.namespace)
        decoding.match_namespace(given, call.namespace)
    else:
        given, faults = decoding.parse_body(request, shown.kind)
        decoding.check_kind(given, shown, request.body)
        given = decoding.as_kind(given, shown, mode=options.field_validation, warnings=call.warnings, faults=faults)
        decoding.check_name(given, call.name, call.namespace)
    encoded = orjson.dumps(given)

    async def replaced(current: Obj | None) -> Obj:
        obj: Obj = orjson.loads(encoded)
        if view is WHOLE:
            return obj
        assert current is not None
        if view.identity:
            return view.put(current, obj)
        versioned = (await registry.many_to_version([current], resource))[0]
        await updating.admit_shown(call, view, obj, versioned)
        return decoding.canonical(registry, view.put(versioned, obj), resource)

    done = await updating.update(call, replaced, view=view)
    code = 201 if done.created else 200
    return await show(request, registry, resource, done.entry, accepted, code=code, view=view)


async def patch(request: Request, registry: Registry, resource: Resource, view: View = WHOLE) -> Response:
    kind = patching.patch_type(request, custom=registry.custom)
    accepted = negotiation.negotiate(request, OBJECT_SHAPES, registry.media_types)
    is_apply = kind == patching.APPLY_PATCH
    options = write_options(request, "PatchOptions", apply=is_apply)
    call = make_call(request, registry, resource, options, options.obj("PatchOptions"))
    if is_apply:
        from berg.apiserver.registry import apply as applying

        done = await applying.apply(request, call, view, options)
    else:
        change = patching.transform(request, call, view, kind, options.field_validation)
        done = await updating.update(call, change, view=view)
    code = 201 if done.created else 200
    return await show(request, registry, resource, done.entry, accepted, code=code, view=view)


async def delete(request: Request, registry: Registry, resource: Resource) -> Response:
    accepted = negotiation.negotiate(request, OBJECT_SHAPES, registry.media_types)
    options = delete_options(request, unreadable=registry.services.features.enabled(unreadable.GATE))
    write = WriteOptions(dry_run=bool(options.get("dryRun")))
    call = make_call(request, registry, resource, write, options)
    if options.get(unreadable.OPTION):
        told = {"apiserver.k8s.io/unsafe-delete-ignore-read-error": ""}
        request.attributes.setdefault("audit_annotations", {}).update(told)
        accepted = Accepted(accepted.media_type, pretty=accepted.pretty)
        return negotiation.respond(request, await unreadable.delete(call), accepted)
    deleted = await deleting.delete(call, options)
    if deleted.gone and not registry.returns_deleted:
        accepted = Accepted(accepted.media_type, pretty=accepted.pretty)
        return negotiation.respond(request, deleting.success(call, deleted), accepted)
    code = 200
    if not deleted.gone and options.get("orphanDependents") is False:
        code = 202
    return await show(request, registry, resource, deleted.entry, accepted, code=code)


async def delete_collection(request: Request, registry: Registry, resource: Resource) -> Response:
    accepted = negotiation.negotiate(request, LIST_SHAPES, registry.media_types)
    info: RequestInfo = request.info
    selecting = list_options(request, may_watch=False)
    options = delete_options(request, unreadable=registry.services.features.enabled(unreadable.GATE))
    if options.get(unreadable.OPTION):
        why = "is not allowed with DELETECOLLECTION, try again after removing the option"
        error = status.invalid_value(unreadable.OPTION, True, why)
        raise status.invalid("meta.k8s.io", "DeleteOptions", "", [error])
    await registry.open()
    namespace = info.namespace if registry.storage.namespaced else ""
    page = await listing.read(registry, Selection(registry, resource, namespace, selecting), selecting)
    write = WriteOptions(dry_run=bool(options.get("dryRun")))
    calls = []
    for entry in page.listing.entries:
        call = make_call(request, registry, resource, write, options)
        call.name, call.namespace = entry.name, entry.namespace
        call.context.namespace = entry.namespace
        calls.append((call, dict(options)))
    if calls:
        await deleting.delete_all(calls)
    body = await listing.body(registry, resource, page)
    return negotiation.respond(request, body, Accepted(accepted.media_type, pretty=accepted.pretty))
