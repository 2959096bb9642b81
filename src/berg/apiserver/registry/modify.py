"""A change that the server itself makes to an object, again and again until nobody wrote in between."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from berg.apiserver.registry.entries import Unstored
from berg.apiserver.registry.registry import Registry
from berg.machinery.status import Obj
from berg.storage.cacher import CacheEntry, KeyMissing, RevisionConflict

Change = Callable[[Obj], None]
"""in place; raises ApiError to refuse"""


async def modify(registry: Registry, namespace: str, name: str, change: Change, *, dry_run: bool = False) -> CacheEntry:
    """Past strategy and admission. Raises NotFound, and what `change` raises."""
    key = registry.key(namespace, name)
    cacher = registry.cacher or await registry.open()
    while True:
        entry = await registry.entry(namespace, name)
        obj = orjson.loads(entry.raw)
        change(obj)
        if obj == entry.obj:
            return entry
        if dry_run:
            return Unstored(key, obj, entry.revision)
        obj["metadata"].pop("resourceVersion", None)
        try:
            return await cacher.update(key, obj, expected=entry.revision, ttl_s=registry.services.ttl_s(registry))
        except RevisionConflict as e:
            await cacher.wait_for(e.entry.revision)
        except KeyMissing:
            await cacher.consistent()
            if cacher.get(key) is None:
                raise registry.not_found(name) from None
