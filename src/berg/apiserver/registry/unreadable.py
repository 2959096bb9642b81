"""Objects whose stored bytes cannot be read, damaged or encrypted with a key that is gone: a list names them, and who
may do so deletes them past admission, preconditions and finalizers.

Source: KEP-3926; k8s.io/apiserver pkg/registry/generic/registry/corrupt_obj_deleter.go, pkg/storage/etcd3.
"""

from __future__ import annotations

from berg.apiserver.auth.authorization import AuthzAttributes, settled
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.registry import Registry
from berg.machinery import status
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import CacheEntry, KeyMissing, RevisionConflict
from berg.storage.transform import TransformError

GATE = "AllowUnsafeMalformedObjectDeletion"
OPTION = "ignoreStoreReadErrorWithClusterBreakingPotential"
VERB = "unsafe-delete-ignore-read-errors"
_MOST = 100


async def delete(call: Call) -> Obj:
    """The Status that tells of it. Raises ApiError."""
    registry = call.registry
    resource, services = call.resource, registry.services
    asked = AuthzAttributes(
        call.user, VERB, resource.group, resource.version, resource.plural, "", call.namespace, call.name
    )
    verdict = await settled(services.decide(asked))
    if not verdict.allowed:
        why = f'not permitted to do "{VERB}", reason: {verdict.reason}'
        raise status.forbidden(resource.group, resource.plural, call.name, why)
    cacher = registry.cacher or await registry.open()
    key = registry.key(call.namespace, call.name)
    entry = cacher.get(key)
    if entry is None:
        raise registry.not_found(call.name)
    if _fault(entry) is None:
        why = "is exclusively used to delete corrupt object(s), try again by removing this option"
        error = status.invalid_value(OPTION, True, why)
        raise status.invalid(resource.group, resource.plural, call.name, [error])
    try:
        await cacher.delete(key, expected=entry.revision)
    except KeyMissing:
        raise registry.not_found(call.name) from None
    except RevisionConflict:
        raise status.conflict(resource.group, resource.plural, call.name, status.OPTIMISTIC_LOCK) from None
    details = {"name": call.name, "kind": resource.kind}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
        "code": 200,
    }


def _fault(entry: CacheEntry) -> TransformError | None:
    try:
        _ = entry.obj
    except TransformError as e:
        return e
    return None


async def listed(registry: Registry, namespace: str) -> ApiError:
    """What a list says that came upon such objects: which they are."""
    storage = registry.storage
    assert registry.cacher is not None
    found: list[Obj] = []
    entries = (await registry.cacher.list(namespace=namespace or None)).entries
    for entry in entries:
        if (fault := _fault(entry)) is None:
            continue
        if len(found) == _MOST:
            found.append({"reason": "FieldValueTooMany", "message": "too many errors, the list is truncated"})
            break
        key = f"{registry.prefix}{entry.key}"
        message = (
            f"StorageError: corrupt object, Code: 7, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: object not "
            f"decodable revision={entry.revision}: {fault}"
        )
        found.append({"reason": "UnexpectedServerResponse", "message": message, "field": key})
    details: Obj = {"name": "list", "kind": storage.plural, "causes": found}
    if storage.group:
        details["group"] = storage.group
    named = f"{storage.plural}.{storage.group}" if storage.group else storage.plural
    text = f"failed to read one or more {named} from the storage"
    return ApiError(500, "StorageReadError", text, details)
