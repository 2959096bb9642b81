"""UPDATE: one loop for PUT, every kind of PATCH and every subresource that writes to its object.

    the object now → what it shall become → managed fields → admission → strategy, validation → store

If somebody else wrote in between, a change that names no resourceVersion is tried again on what is there now.

Source: k8s.io/apiserver pkg/endpoints/handlers/update.go, pkg/registry/generic/registry/store.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import orjson

from berg.apiserver.admission.interface import UPDATE, Attributes
from berg.apiserver.auth import authorization
from berg.apiserver.auth.authorization import AuthzAttributes
from berg.apiserver.registry import create as creating
from berg.apiserver.registry import decoding, fieldmanager, objectmeta
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.entries import Unstored
from berg.apiserver.registry.registry import Registry
from berg.apiserver.registry.views import WHOLE, View
from berg.machinery import status, turns
from berg.machinery.quoting import quote
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import CacheEntry, KeyMissing, RevisionConflict

MAX_ATTEMPTS = 30

Transform = Callable[[Obj | None], Awaitable[Obj]]
"""from the object as it is (fresh, the transform's own; None when there is none) to what it shall become, both in
the storage version; metadata.resourceVersion in the result is a precondition"""


@dataclass(slots=True, frozen=True)
class Updated:
    entry: CacheEntry
    created: bool = False


async def update(
    call: Call,
    transform: Transform,
    *,
    may_create: bool = False,
    tracked: bool = True,
    view: View = WHOLE,
) -> Updated:
    """Raises ApiError. `tracked` False: the transform has set managed fields itself (apply). Where the view shows
    another kind, the transform calls `admit_shown` itself, before it puts what was written into the object."""
    registry = call.registry
    cacher = registry.cacher or await registry.open()
    key = registry.key(call.namespace, call.name)
    may_create = may_create or registry.strategy.allow_create_on_update
    for _ in range(MAX_ATTEMPTS):
        entry = cacher.get(key)
        if entry is None:
            if not may_create or call.subresource:
                raise registry.not_found(call.name)
            await _may_create(call)
            obj = await transform(None)
            if obj["metadata"].get("uid"):
                raise registry.conflict(call.name, _uid_mismatch(registry, key, obj["metadata"]["uid"], ""))
            obj["metadata"].pop("resourceVersion", None)
            return Updated(await creating.create(call, obj, tracked=tracked), created=True)
        try:
            return Updated(await _update_once(call, key, entry, transform, tracked, view))
        except RevisionConflict as e:
            # The cache may not have seen yet what the store knows: never decide on the old one again.
            await cacher.wait_for(e.entry.revision)
        except KeyMissing:
            await cacher.consistent()
            if cacher.get(key) is not None:
                continue
            raise registry.not_found(call.name) from None
    raise registry.conflict(call.name)


async def admit_shown(call: Call, view: View, given: Obj, current: Obj) -> None:
    """Mutating admission of a subresource that is written as another kind. Raises ApiError."""
    if call.admission:
        decoding.match_namespace(given, call.namespace)
        given.setdefault("status", {"replicas": 0})
        attributes = _attributes(call, given, view.before(current), view)
        await call.registry.services.admission.run_mutating(attributes)


async def _may_create(call: Call) -> None:
    """An update that creates needs the right to create, too. Raises Forbidden."""
    services, r = call.registry.services, call.resource
    if not call.admission or services.authorizer is None:
        return
    asked = AuthzAttributes(call.user, "create", r.group, r.version, r.plural, "", call.namespace, call.name)
    verdict = await authorization.settled(services.authorizer.authorize(asked))
    if not verdict.allowed:
        raise authorization.forbidden(asked, verdict.reason)


async def _update_once(
    call: Call,
    key: str,
    entry: CacheEntry,
    transform: Transform,
    tracked: bool,
    view: View,
) -> CacheEntry:
    registry, strategy, context = call.registry, call.registry.strategy, call.context
    old = entry.obj
    if registry.convert_custom is not None or registry.schema_revision >= 0:
        # Custom resources are worked on in the version that was asked for, under the schema of now.
        old = (await registry.many_to_version([orjson.loads(entry.raw)], call.resource))[0]
        obj = await transform(orjson.loads(orjson.dumps(old)))
    else:
        obj = await transform(orjson.loads(entry.raw))
    meta, old_meta = obj.setdefault("metadata", {}), old["metadata"]
    if (uid := meta.get("uid")) and uid != old_meta.get("uid"):
        raise registry.conflict(call.name, _uid_mismatch(registry, key, uid, old_meta.get("uid", "")))
    creating.dedup_owners(call, obj)
    if tracked:
        await fieldmanager.on_update(call, obj, old)
    if call.admission and view.identity:
        attributes = _attributes(call, obj, old, view)
        await registry.services.admission.run_mutating(attributes)
        if attributes.rounds is not None:
            meta = obj["metadata"]
            decoding.match_namespace(obj, call.namespace)
        creating.dedup_owners(call, obj)
    _check_version(call, meta, old_meta)
    if registry.guard is not None:
        await registry.guard(call, obj, old)
    _keep_what_only_the_server_writes(call, obj, old)
    finish = await strategy.begin_update(context, obj, old) if not call.subresource else None
    stored = False
    try:
        errors = objectmeta.validate_update(registry, obj, old, call.subresource)
        check = strategy.validate_update
        if call.subresource == "status":
            if strategy.authorize_status is not None:
                errors += await strategy.authorize_status(context, obj, old)
            check = strategy.validate_status_update
        if registry.custom:
            errors += await turns.taken(partial(check, context, obj, old))
        else:
            errors += check(context, obj, old)
        if errors:
            raise registry.invalid(meta.get("name") or "", errors)
        context.warnings.extend(strategy.warnings(context, obj, old))
        strategy.canonicalize(obj)
        if call.admission:
            shown = (obj, old) if view.identity else (view.before(obj), view.before(old))
            await registry.services.admission.run_validating(_attributes(call, *shown, view))
        entry = await _store(call, key, entry, obj)
        stored = not call.dry_run
        return entry
    finally:
        if finish is not None:
            finish(stored)


def _check_version(call: Call, meta: Obj, old_meta: Obj) -> None:
    """After mutating admission, which may change it and sees none where none was sent."""
    registry = call.registry
    version = meta.get("resourceVersion") or ""
    if version in ("", "0"):
        if not registry.strategy.allow_unconditional_update:
            error = status.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise status.invalid(registry.storage.group, registry.storage.plural, call.name, [error])
        meta["resourceVersion"] = old_meta["resourceVersion"]
    elif version != old_meta["resourceVersion"]:
        if not version.isdigit():
            raise ApiError(500, "", f"strconv.ParseUint: parsing {quote(version)}: invalid syntax")
        raise registry.conflict(call.name)


def _uid_mismatch(registry: Registry, key: str, wanted: str, found: str) -> str:
    path = registry.prefix.removeprefix(registry.services.config.etcd_prefix) + key
    return (
        f"StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: Precondition "
        f"failed: UID in precondition: {wanted}, UID in object meta: {found}"
    )


def _keep_what_only_the_server_writes(call: Call, obj: Obj, old: Obj) -> None:
    """System metadata, the half of the object that this endpoint does not write, and the generation."""
    strategy, context = call.registry.strategy, call.context
    meta, old_meta = obj["metadata"], old["metadata"]
    meta["uid"] = meta.get("uid") or old_meta.get("uid", "")
    for field in ("creationTimestamp", "deletionTimestamp", "generation"):
        if field in old_meta:
            meta[field] = old_meta[field]
    if "generation" not in old_meta:
        meta.pop("generation", None)
    if meta.get("deletionGracePeriodSeconds") is None and "deletionGracePeriodSeconds" in old_meta:
        meta["deletionGracePeriodSeconds"] = old_meta["deletionGracePeriodSeconds"]
    if call.subresource == "status":
        _keep_all_but_status(obj, old, strategy.status_metadata)
        strategy.prepare_status_update(context, obj, old)
        return
    if strategy.has_status and not call.subresource:
        if "status" in old:
            obj["status"] = old["status"]
        else:
            obj.pop("status", None)
    strategy.prepare_for_update(context, obj, old)
    if strategy.generation and _spec_differs(obj, old, strategy.has_status):
        meta["generation"] = old_meta.get("generation", 0) + 1


def _keep_all_but_status(obj: Obj, old: Obj, metadata: Sequence[str]) -> None:
    new_status = obj.get("status")
    new_meta = obj["metadata"]
    obj.clear()
    obj.update(orjson.loads(orjson.dumps(old)))
    obj.pop("status", None)
    if new_status is not None:
        obj["status"] = new_status
    meta = obj["metadata"]
    meta["resourceVersion"] = new_meta.get("resourceVersion", "")
    for field in ("managedFields", *metadata):
        if field in new_meta:
            meta[field] = new_meta[field]
        else:
            meta.pop(field, None)


def _spec_differs(obj: Obj, old: Obj, has_status: bool) -> bool:
    skipped = ("metadata", "apiVersion", "kind", "status" if has_status else "")
    return any(obj.get(k) != old.get(k) for k in obj.keys() | old.keys() if k not in skipped)


async def _store(call: Call, key: str, entry: CacheEntry, obj: Obj) -> CacheEntry:
    registry = call.registry
    cacher = registry.cacher
    assert cacher is not None
    creating.prune_empty_meta(obj)
    if registry.convert_custom is not None:
        obj = (await registry.convert_custom([obj], registry.storage))[0]
    old = entry.obj
    if should_delete(obj, old):
        if not call.dry_run:
            await cacher.delete(key, expected=entry.revision)
            await registry.strategy.after_delete(call.context, obj)
        return Unstored(key, obj, entry.revision)
    if _same(obj, old) and not entry.stale and entry.revision > registry.rotated_at:
        return entry
    if call.dry_run:
        return Unstored(key, obj, entry.revision)
    obj["metadata"].pop("resourceVersion", None)
    return await cacher.update(key, obj, expected=entry.revision, ttl_s=registry.services.ttl_s(registry))


def _same(obj: Obj, old: Obj) -> bool:
    """Nothing but times in managed fields differs: upstream writes nothing, and so do we."""
    if obj == old:
        return True
    new_fields, old_fields = obj["metadata"].get("managedFields"), old["metadata"].get("managedFields")
    if new_fields == old_fields or len(new_fields or ()) != len(old_fields or ()):
        return False
    bare = [[{k: v for k, v in f.items() if k != "time"} for f in fields or ()] for fields in (new_fields, old_fields)]
    if bare[0] != bare[1]:
        return False
    kept = {**obj, "metadata": {**obj["metadata"], "managedFields": old_fields}}
    return kept == old


def should_delete(obj: Obj, old: Obj) -> bool:
    """The last finalizer is gone from an object that was only waiting for that."""
    return (
        not obj["metadata"].get("finalizers")
        and bool(old["metadata"].get("deletionTimestamp"))
        and not old["metadata"].get("deletionGracePeriodSeconds")
        and not (obj.get("kind") == "Namespace" and (obj.get("spec") or {}).get("finalizers"))
    )


def _attributes(call: Call, obj: Obj, old: Obj, view: View) -> Attributes:
    return Attributes(
        UPDATE,
        call.registry.storage,
        call.subresource,
        call.namespace,
        call.name,
        obj,
        old,
        call.user,
        call.options_as("UpdateOptions"),
        call.dry_run,
        call.warnings,
        call.audit_annotations,
        attributes=call.attributes,
        subresource_kind=view.admission_kind,
        requested=call.requested,
    )


__all__ = ["Transform", "Updated", "should_delete", "update"]
