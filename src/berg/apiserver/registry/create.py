"""CREATE: name, system fields, admission, validation, then the store.

Source: k8s.io/apiserver pkg/endpoints/handlers/create.go, pkg/registry/generic/registry/store.go.
"""

from __future__ import annotations

from functools import partial

import orjson

from berg.apiserver.admission.interface import CREATE, Attributes
from berg.apiserver.registry import decoding, fieldmanager, objectmeta
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.entries import Unstored
from berg.machinery import status, turns
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import CacheEntry, KeyExists

NAME_ATTEMPTS = 8


async def create(call: Call, obj: Obj, *, tracked: bool = True) -> CacheEntry:
    """Takes `obj` over, in the storage version and defaulted. `tracked` False: its managed fields are set already
    (apply). Raises ApiError."""
    registry = call.registry
    meta = obj.setdefault("metadata", {})
    objectmeta.wipe_system_fields(meta)
    dedup_owners(call, obj)
    if tracked:
        await fieldmanager.on_create(call, obj)
    attributes = _attributes(call, obj) if call.admission else None
    if attributes is not None:
        await registry.services.admission.run_mutating(attributes)
        if attributes.rounds is not None:
            meta = obj["metadata"]
            decoding.match_namespace(obj, call.namespace)
        dedup_owners(call, obj)
    base = meta.get("generateName") if not meta.get("name") else None
    for attempt in range(NAME_ATTEMPTS):
        this = orjson.loads(orjson.dumps(obj)) if base and attempt < NAME_ATTEMPTS - 1 else obj
        if base:
            this["metadata"]["name"] = objectmeta.generate_name(base, registry.strategy.generate_name_limit)
        try:
            return await _create_named(call, this, attributes)
        except ApiError as e:
            if not base or e.reason != "AlreadyExists":
                raise
            if attempt == NAME_ATTEMPTS - 1:
                raise ApiError(
                    409,
                    "AlreadyExists",
                    f"{e.message}, the server was not able to generate a unique name for the object",
                    e.details,
                    retry_after_s=1,
                ) from None
    raise AssertionError


async def _create_named(call: Call, obj: Obj, attributes: Attributes | None) -> CacheEntry:
    registry, strategy, context = call.registry, call.registry.strategy, call.context
    meta = obj["metadata"]
    objectmeta.fill_system_fields(obj, context.clock.now())
    if strategy.has_status and not strategy.status_on_create:
        obj.pop("status", None)
    if strategy.generation:
        meta["generation"] = 1
    if registry.guard is not None:
        await registry.guard(call, obj, None)
    strategy.prepare_for_create(context, obj)
    finish = await strategy.begin_create(context, obj)
    stored = False
    try:
        errors = objectmeta.validate(registry, obj)
        if registry.custom:
            errors += await turns.taken(partial(strategy.validate, context, obj))
        else:
            errors += strategy.validate(context, obj)
        if errors:
            raise registry.invalid(meta.get("name") or "", errors)
        context.warnings.extend(strategy.warnings(context, obj, None))
        strategy.canonicalize(obj)
        if attributes is not None:
            attributes.obj = obj
            if not attributes.name or meta.get("generateName"):
                attributes.name = meta["name"]
            await registry.services.admission.run_validating(attributes)
        entry = await _store(call, obj)
        stored = not call.dry_run
        return entry
    finally:
        if finish is not None:
            finish(stored)


async def _store(call: Call, obj: Obj) -> CacheEntry:
    registry = call.registry
    name = obj["metadata"]["name"]
    key = registry.key(call.namespace, name)
    cacher = registry.cacher or await registry.open()
    prune_empty_meta(obj)
    if obj["metadata"].pop("resourceVersion", None) not in (None, "", "0") and not call.dry_run:
        raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
    if registry.convert_custom is not None:
        obj = (await registry.convert_custom([obj], registry.storage))[0]
    if call.dry_run:
        if cacher.get(key) is not None:
            raise status.already_exists(registry.storage.group, registry.storage.plural, name)
        return Unstored(key, obj)
    try:
        return await cacher.create(key, obj, ttl_s=registry.services.ttl_s(registry))
    except KeyExists as e:
        error = status.already_exists(registry.storage.group, registry.storage.plural, name)
        if e.entry is not None and e.entry.obj["metadata"].get("deletionTimestamp"):
            error = ApiError(409, "AlreadyExists", f"object is being deleted: {error.message}", error.details)
        raise error from None


def prune_empty_meta(obj: Obj) -> None:
    """Empty maps and lists in metadata are not kept, as Go's `omitempty` does not keep them."""
    meta = obj["metadata"]
    for field in ("labels", "annotations", "finalizers", "ownerReferences", "managedFields", "generateName"):
        if field in meta and not meta[field]:
            del meta[field]


def _attributes(call: Call, obj: Obj) -> Attributes:
    return Attributes(
        CREATE,
        call.registry.storage,
        call.subresource,
        call.namespace,
        obj["metadata"].get("name", "") or call.name,
        obj,
        None,
        call.user,
        call.options_as("CreateOptions"),
        call.dry_run,
        call.warnings,
        call.audit_annotations,
        attributes=call.attributes,
        requested=call.requested,
    )


def dedup_owners(call: Call, obj: Obj) -> None:
    """Repeated owner references are dropped, with a warning."""
    refs = obj["metadata"].get("ownerReferences")
    if not refs or len(refs) < 2:
        return
    kept: dict[bytes, Obj] = {}
    repeated: list[str] = []
    for ref in refs:
        if kept.setdefault(orjson.dumps(ref, option=orjson.OPT_SORT_KEYS), ref) is not ref:
            repeated.append(ref.get("uid", ""))
    if repeated:
        obj["metadata"]["ownerReferences"] = list(kept.values())
        call.warnings.append(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and "
            f"may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
            f"{', '.join(repeated)}"
        )
