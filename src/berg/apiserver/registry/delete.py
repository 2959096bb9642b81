"""DELETE: finalizers, grace periods, propagation policies; DELETECOLLECTION is a list and many of these.

An object goes at once when nothing holds it. A finalizer or a grace period turns the deletion into a mark
(`deletionTimestamp`), and whoever set the finalizer, or the kubelet, finishes it.

Source: k8s.io/apiserver pkg/registry/rest/delete.go, pkg/registry/generic/registry/store.go.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import orjson

from berg.apiserver.admission.interface import DELETE, Attributes
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.entries import Unstored
from berg.apiserver.registry.objectmeta import FOREGROUND, ORPHAN
from berg.machinery import status
from berg.machinery.clock import parse_rfc3339, rfc3339
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import CacheEntry, KeyMissing, RevisionConflict

WORKERS = 16


@dataclass(slots=True, frozen=True)
class Deleted:
    """`gone`: it is deleted; else it is only marked and waits."""

    entry: CacheEntry
    gone: bool


async def delete(call: Call, options: Obj) -> Deleted:
    """Raises ApiError."""
    registry = call.registry
    cacher = registry.cacher or await registry.open()
    key = registry.key(call.namespace, call.name)
    while True:
        entry = cacher.get(key)
        if entry is None:
            raise registry.not_found(call.name)
        try:
            return await _delete_once(call, key, entry, options)
        except RevisionConflict as e:
            await cacher.wait_for(e.entry.revision)
        except KeyMissing:
            await cacher.consistent()
            if cacher.get(key) is None:
                raise registry.not_found(call.name) from None


async def _delete_once(call: Call, key: str, entry: CacheEntry, options: Obj) -> Deleted:
    registry = call.registry
    cacher = registry.cacher
    assert cacher is not None
    _check_preconditions(call, entry.obj["metadata"], options)
    if call.admission:
        attributes = _attributes(call, orjson.loads(entry.raw))
        await registry.services.admission.run_mutating(attributes)
        await registry.services.admission.run_validating(attributes)
    obj = orjson.loads(entry.raw)
    outcome = _begin(call, obj, options)
    if outcome == "pending":
        return Deleted(entry, gone=False)
    registry.strategy.begin_delete(obj)
    finalizers = _finalizers(call, obj, options)
    if finalizers:
        obj["metadata"]["finalizers"] = finalizers
    else:
        obj["metadata"].pop("finalizers", None)
    if outcome != "graceful" and _is_namespace_with_content(call, obj):
        _mark(obj, call)
        obj["metadata"].pop("deletionGracePeriodSeconds", None)
        obj.setdefault("status", {})["phase"] = "Terminating"
    elif outcome != "graceful" and finalizers:
        _mark(obj, call)
    elif outcome != "graceful" or obj["metadata"].get("deletionGracePeriodSeconds") == 0:
        if finalizers:
            outcome = "graceful"
        else:
            if call.dry_run:
                return Deleted(Unstored(key, obj, entry.revision), gone=True)
            gone = await cacher.delete(key, expected=entry.revision)
            await registry.strategy.after_delete(call.context, gone.obj)
            if outcome == "graceful":  # told with the mark that it got last
                return Deleted(Unstored(key, obj, gone.revision), gone=True)
            return Deleted(gone, gone=True)
    if call.dry_run:
        return Deleted(Unstored(key, obj, entry.revision), gone=False)
    if obj == entry.obj:
        return Deleted(entry, gone=False)
    obj["metadata"].pop("resourceVersion", None)
    marked = await cacher.update(key, obj, expected=entry.revision, ttl_s=registry.services.ttl_s(registry))
    return Deleted(marked, gone=False)


def _check_preconditions(call: Call, meta: Obj, options: Obj) -> None:
    wanted = options.get("preconditions") or {}
    uid, version = wanted.get("uid"), wanted.get("resourceVersion")
    group, kind = call.registry.storage.group, call.registry.storage.kind
    if uid is not None and uid != meta.get("uid"):
        raise status.conflict(
            group,
            kind,
            meta["name"],
            f"the UID in the precondition ({uid}) does not match the UID in record ({meta.get('uid')}). The object "
            "might have been deleted and then recreated",
        )
    if version is not None and version != meta.get("resourceVersion"):
        raise status.conflict(
            group,
            kind,
            meta["name"],
            f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record "
            f"({meta.get('resourceVersion')}). The object might have been modified",
        )


def _begin(call: Call, obj: Obj, options: Obj) -> str:
    """`now`, `graceful` (obj is marked with its grace period) or `pending` (a deletion under way, no shorter)."""
    strategy, clock = call.registry.strategy, call.context.clock
    meta = obj["metadata"]
    requested = options.get("gracePeriodSeconds")
    if requested is not None and requested < 0:
        requested = 1
    if not strategy.graceful:
        return "now"
    if meta.get("deletionTimestamp"):
        current = meta.get("deletionGracePeriodSeconds")
        if not current:
            return "now"
        if requested is None or requested >= current:
            return "pending"
        when = parse_rfc3339(meta["deletionTimestamp"]) + timedelta(seconds=requested - current)
        if when < clock.now():
            when = clock.now()
            requested = 1 if requested else 0
        meta["deletionTimestamp"] = rfc3339(when)
        meta["deletionGracePeriodSeconds"] = requested
        return "graceful"
    grace = strategy.grace_period_s(call.context, obj, requested)
    if grace < 0:
        grace = 1
    meta["deletionTimestamp"] = rfc3339(clock.now() + timedelta(seconds=grace))
    meta["deletionGracePeriodSeconds"] = grace
    if meta.get("generation"):
        meta["generation"] += 1
    return "graceful"


def _is_namespace_with_content(call: Call, obj: Obj) -> bool:
    """A namespace is held by `spec.finalizers` until its controller has emptied it."""
    storage = call.registry.storage
    return storage.plural == "namespaces" and not storage.group and bool((obj.get("spec") or {}).get("finalizers"))


def _mark(obj: Obj, call: Call) -> None:
    """Held by finalizers alone: deleted as of now."""
    meta = obj["metadata"]
    now = rfc3339(call.context.clock.now())
    if not meta.get("deletionTimestamp") and meta.get("generation"):
        meta["generation"] += 1
    if not meta.get("deletionTimestamp") or meta["deletionTimestamp"] > now:
        meta["deletionTimestamp"] = now
    meta["deletionGracePeriodSeconds"] = 0


def _finalizers(call: Call, obj: Obj, options: Obj) -> list[str]:
    """The object's finalizers with those of the garbage collector as the propagation policy asks."""
    finalizers = list(obj["metadata"].get("finalizers") or ())
    if not call.registry.collected:
        return finalizers
    orphan = options.get("orphanDependents")
    policy = options.get("propagationPolicy")
    if orphan is not None:
        wanted = ORPHAN if orphan else ""
    elif policy is not None:
        wanted = {"Orphan": ORPHAN, "Foreground": FOREGROUND}.get(policy, "")
    else:
        unsaid = ORPHAN if call.registry.strategy.orphans else ""
        wanted = next((f for f in finalizers if f in (ORPHAN, FOREGROUND)), unsaid)
    kept = [f for f in finalizers if f not in (ORPHAN, FOREGROUND)]
    if wanted:
        kept.append(wanted)
    return finalizers if set(kept) == set(finalizers) else kept


def _attributes(call: Call, old: Obj) -> Attributes:
    return Attributes(
        DELETE,
        call.registry.storage,
        call.subresource,
        call.namespace,
        "" if call.context.verb == "deletecollection" else call.name,
        None,
        old,
        call.user,
        call.options,
        call.dry_run,
        call.warnings,
        call.audit_annotations,
        attributes=call.attributes,
        requested=call.requested,
    )


def success(call: Call, deleted: Deleted) -> Obj:
    """The Status that tells of a deletion."""
    registry = call.registry
    details: Obj = {"name": deleted.entry.name}
    if registry.storage.group:
        details["group"] = registry.storage.group
    details["kind"] = registry.storage.plural
    details["uid"] = deleted.entry.obj["metadata"].get("uid", "")
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


async def delete_all(calls: list[tuple[Call, Obj]]) -> None:
    """Deletes each, several at a time; what is gone meanwhile is no fault. Raises the first other failure."""
    waiting = iter(calls)
    failures: list[ApiError] = []

    async def work() -> None:
        for call, options in waiting:
            try:
                await delete(call, options)
            except ApiError as e:
                if e.code != 404:
                    failures.append(e)
                    return

    await asyncio.gather(*(work() for _ in range(min(WORKERS, len(calls)))))
    if failures:
        raise failures[0]
