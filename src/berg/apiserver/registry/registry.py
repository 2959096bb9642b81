"""One resource's storage: its cacher, its keys, its strategy, the versions it is served in.

Every read and write of objects goes through a `Registry`. It knows nothing of HTTP. Cachers open at first use,
so that a server is ready before it has looked at what nobody asks for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from berg.apiserver.registry import conversion
from berg.apiserver.registry.crowd import Crowd
from berg.apiserver.registry.negotiation import CUSTOM_MEDIA_TYPES, MEDIA_TYPES
from berg.apiserver.registry.sent import Sent
from berg.apiserver.registry.strategy import Strategy
from berg.machinery import names, schema, status
from berg.machinery.codec import json as json_codec
from berg.machinery.metrics import Cell
from berg.machinery.resources import Resource
from berg.machinery.status import Obj
from berg.machinery.typedef import TypeDef
from berg.storage.cacher import CacheEntry, CacheEvent, Cacher

if TYPE_CHECKING:
    from berg.apiserver.registry.call import Call
    from berg.apiserver.registry.services import Services

_PREFIXES = {
    ("", "nodes"): "minions",
    ("", "services"): "services/specs",
    ("", "endpoints"): "services/endpoints",
    ("", "replicationcontrollers"): "controllers",
    ("networking.k8s.io", "ingresses"): "ingress",
    ("apiregistration.k8s.io", "apiservices"): "apiregistration.k8s.io/apiservices",
    ("apiextensions.k8s.io", "customresourcedefinitions"): "apiextensions.k8s.io/customresourcedefinitions",
}
"""where upstream keeps a resource, when not under its plural"""

_NOT_COLLECTED = frozenset((("", "events"), ("events.k8s.io", "events"), ("", "namespaces")))
_RETURNS_DELETED = frozenset(
    (
        "resource.k8s.io",
        "storage.k8s.io",
        "namespaces",
        "persistentvolumeclaims",
        "persistentvolumes",
        "pods",
        "podtemplates",
        "resourcequotas",
        "serviceaccounts",
        "services",
    )
)
"""what answers a DELETE with the object, not with a Status"""

ConvertMany = Callable[[list[Obj], Resource], Awaitable[list[Obj]]]


def returns_deleted(resource: Resource) -> bool:
    """Whether DELETE answers with the object, not with a Status."""
    if resource.plural == "csistoragecapacities":
        return False
    return resource.plural in _RETURNS_DELETED or resource.group in _RETURNS_DELETED


class Registry:
    """`storage` is the resource in the version it is stored in, `versions` all served ones by apiVersion."""

    def __init__(
        self, services: Services, storage: Resource, strategy: Strategy, *, custom: bool = False, prefix: str = ""
    ) -> None:
        self.services = services
        self.storage = storage
        self.strategy = strategy
        self.custom = custom
        self.media_types = CUSTOM_MEDIA_TYPES if custom else MEDIA_TYPES
        self.watch_lists: dict[tuple[str, str], Cell] = {}
        """(version, scope) → how long watchers waited for what was there"""
        self.versions: dict[str, Resource] = {storage.api_version: storage}
        self.convert_custom: ConvertMany | None = None
        if not prefix:
            prefix = _PREFIXES.get((storage.group, storage.plural), storage.plural)
            if custom:
                prefix = f"{storage.group}/{storage.plural}"
        self.prefix = f"{services.config.etcd_prefix}/{prefix}/"
        self.cacher: Cacher | None = None
        self._opening: asyncio.Future[Cacher] | None = None
        self.schema_revision = -1
        """what is not newer than this was written under another schema: pruned and defaulted when it is read"""
        self.rotated_at = -1
        """what is not newer than this may have been encrypted with another key"""
        self.custom_types: dict[str, TypeDef] = {}
        """version → schema, for a custom resource"""
        self.scale_view: dict[str, Any] = {}
        """version → its scale subresource, for a custom resource"""
        self.crowd = Crowd()
        """all who watch now"""
        self.sent = Sent()
        """to watchers"""
        self.consistent_reads: Counter[tuple[str, str]] = Counter()
        """("true" or "false": the store had to answer itself, "true" or "false": the cache was new enough in time)"""
        self.frames: dict[tuple[int, str, str], bytes] = {}
        """framed watch events, shared among watchers"""
        self._followers: list[asyncio.Task[None]] = []
        self.guard: Callable[[Call, Obj, Obj | None], Awaitable[None]] | None = None
        """asked before a write, after mutating admission; raises ApiError"""
        self.collected = (storage.group, storage.plural) not in _NOT_COLLECTED
        """the garbage collector looks after its dependents"""
        self.returns_deleted = returns_deleted(storage)

    # ---- the cacher

    async def open(self) -> Cacher:
        if self.cacher is not None:
            return self.cacher
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_future()
            try:
                cacher = await self.services.open_cacher(self)
            except BaseException as e:
                opening, self._opening = self._opening, None
                opening.set_exception(e)
                opening.exception()
                raise
            for field in self.strategy.field_labels:
                if field in INDEXED_FIELDS:
                    cacher.index(field, _by_field(self.strategy, field))
            self.cacher = cacher
            self._opening.set_result(cacher)
        return await asyncio.shield(self._opening)

    def subscribe(self, changed: Callable[[Sequence[CacheEvent]], None]) -> None:
        """Calls `changed` with every batch of events from now on. The cacher must be open."""
        assert self.cacher is not None
        watcher = self.cacher.watch(after=self.cacher.revision, buffer=1 << 30)

        async def follow() -> None:
            async for events in watcher:
                changed(events)

        self._followers.append(asyncio.get_running_loop().create_task(follow()))

    async def close(self) -> None:
        for task in self._followers:
            task.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)
        self._followers.clear()
        if self.cacher is not None:
            cacher, self.cacher = self.cacher, None
            self._opening = None
            await cacher.close()

    def key(self, namespace: str, name: str) -> str:
        return f"{namespace}/{name}" if self.storage.namespaced else name

    async def entry(self, namespace: str, name: str) -> CacheEntry:
        """Raises NotFound."""
        cacher = self.cacher or await self.open()
        found = cacher.get(self.key(namespace, name))
        if found is None:
            raise self.not_found(name)
        return found

    # ---- versions

    def is_stored_as(self, resource: Resource) -> bool:
        return resource.api_version == self.storage.api_version

    def type_of(self, resource: Resource) -> TypeDef | None:
        """The schema of the resource in one of its versions."""
        if self.custom:
            return self.custom_types.get(resource.version)
        return schema.type_of(resource.group, resource.version, resource.kind)

    def to_storage(self, obj: Obj, source: Resource) -> Obj:
        return conversion.convert(obj, source, self.storage)

    async def to_version(self, entry: CacheEntry, target: Resource) -> Obj:
        """A fresh object in `target`'s version: the caller's own."""
        return (await self.many_to_version([orjson.loads(entry.raw)], target))[0]

    async def many_to_version(self, objs: list[Obj], target: Resource) -> list[Obj]:
        if self.convert_custom is not None:
            objs = await self.convert_custom(objs, target)
        if self.custom:
            if self.schema_revision >= 0:
                for obj in objs:
                    if int(obj["metadata"].get("resourceVersion") or 0) <= self.schema_revision:
                        schema.prune(self.custom_types[target.version], obj)
                        schema.default(self.custom_types[target.version], obj)
            return objs
        if not self.is_stored_as(target):
            for obj in objs:
                conversion.convert(obj, self.storage, target)
        return objs

    async def raw(self, entry: CacheEntry, target: Resource) -> bytes:
        """The entry's JSON in `target`'s version; the stored bytes themselves where that is the same."""
        if self.is_shown_as_stored(entry, target):
            return entry.raw
        return json_codec.dumps(await self.to_version(entry, target))

    def is_shown_as_stored(self, entry: CacheEntry, target: Resource) -> bool:
        if entry.revision <= self.schema_revision:
            return False
        if target.api_version == self.storage.api_version and self.convert_custom is None:
            return True
        return self.custom and entry.raw.startswith(b'{"kind":"%b","apiVersion":"%b",' % _names(target))

    async def many_raw(self, entries: Sequence[CacheEntry], target: Resource) -> list[bytes]:
        """As `raw` of each, but all that must be converted is converted together."""
        stored = [self.is_shown_as_stored(e, target) for e in entries]
        others = [orjson.loads(e.raw) for e, same in zip(entries, stored, strict=True) if not same]
        shown = iter(await self.many_to_version(others, target) if others else ())
        return [e.raw if same else json_codec.dumps(next(shown)) for e, same in zip(entries, stored, strict=True)]

    async def many_selectable(self, entries: Sequence[CacheEntry], target: Resource) -> list[dict[str, str]]:
        """Each entry's selectable fields, as it is in `target`'s version."""
        stored = [self.is_shown_as_stored(e, target) for e in entries]
        others = [orjson.loads(e.raw) for e, same in zip(entries, stored, strict=True) if not same]
        shown = iter(await self.many_to_version(others, target) if others else ())
        find = self.strategy.selectable_fields
        return [find(e.obj if same else next(shown)) for e, same in zip(entries, stored, strict=True)]

    # ---- errors that name the resource

    def not_found(self, name: str) -> status.ApiError:
        return status.not_found(self.storage.group, self.storage.plural, name)

    def conflict(self, name: str, why: str = status.OPTIMISTIC_LOCK) -> status.ApiError:
        return status.conflict(self.storage.group, self.storage.plural, name, why)

    def invalid(self, name: str, errors: list[status.FieldError]) -> status.ApiError:
        type_ = None if self.custom else self.type_of(self.storage)
        if type_ is not None:
            from berg.apiserver.registry.shown import errors_as_go

            errors = errors_as_go(type_, errors)
        return status.invalid(self.storage.group, self.storage.kind, name, errors)

    def validate_name(self, name: str, *, prefix: bool = False) -> list[str]:
        faults = list(self.strategy.validate_name(name, prefix=prefix))
        return faults or list(names.path_segment(name))


def _names(resource: Resource) -> tuple[bytes, bytes]:
    return resource.kind.encode(), resource.api_version.encode()


INDEXED_FIELDS = frozenset(("spec.nodeName", "involvedObject.uid", "spec.unschedulable"))


def _by_field(strategy: Strategy, field: str) -> Callable[[CacheEntry], tuple[str, ...]]:
    def values(entry: CacheEntry) -> tuple[str, ...]:
        value = strategy.selectable_fields(entry.obj).get(field, "")
        return (value,) if value else ()

    return values


def run_now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("it waits")
