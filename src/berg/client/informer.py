"""Shared informers: a local, indexed, always current copy of the objects of one resource.

An informer is fed by a `Reflector` (see reflector.py). Objects are parsed once and shared by all who read them:
no one may change them. Handlers are plain functions that run on the event loop, in the order of the events;
they put keys into work queues and nothing else.

`InformerFactory.informer` gives the same informer for the same arguments, so that any number of controllers
share one watch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from berg.client.reflector import Reflector
from berg.client.rest import Client
from berg.machinery import meta
from berg.machinery.clock import Clock, RealClock
from berg.machinery.labels import Selector
from berg.machinery.resources import Resource
from berg.machinery.status import Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

OnAdd = Callable[[Obj], Any]
OnUpdate = Callable[[Obj, Obj], Any]
OnDelete = Callable[[Obj], Any]
IndexKeys = Callable[[Obj], Iterable[str]]
Transform = Callable[[Obj], Obj]
Objs = list[Obj]
Strs = list[str]


class Lister:
    """The informer's objects. They are shared: never change them."""

    def __init__(self) -> None:
        self._objects: dict[str, Obj] = {}
        self._keys: dict[str, IndexKeys] = {}
        self._indexes: dict[str, dict[str, dict[str, Obj]]] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Obj]:
        return iter(list(self._objects.values()))

    def get(self, namespace: str | None, name: str) -> Obj | None:
        return self._objects.get(f"{namespace}/{name}" if namespace else name)

    def get_key(self, key: str) -> Obj | None:
        return self._objects.get(key)

    def list(self, namespace: str | None = None, selector: Selector | None = None) -> Objs:
        found = self._objects.values() if not namespace else self._indexes["namespace"].get(namespace, {}).values()
        if selector is None:
            return [*found]
        return [o for o in found if selector.matches(o["metadata"].get("labels") or {})]

    def by_index(self, name: str, value: str) -> Objs:
        return [*self._indexes[name].get(value, {}).values()]

    def index_values(self, name: str) -> Strs:
        return [*self._indexes[name]]

    # -- the informer's side

    def _add_index(self, name: str, keys: IndexKeys) -> None:
        if name in self._keys:
            return
        self._keys[name] = keys
        self._indexes[name] = {}
        for key, obj in self._objects.items():
            for value in keys(obj):
                self._indexes[name].setdefault(value, {})[key] = obj

    def _put(self, key: str, obj: Obj) -> Obj | None:
        old = self._objects.get(key)
        if old is not None:
            self._unindex(key, old)
        self._objects[key] = obj
        for name, keys in self._keys.items():
            index = self._indexes[name]
            for value in keys(obj):
                index.setdefault(value, {})[key] = obj
        return old

    def _pop(self, key: str) -> Obj | None:
        old = self._objects.pop(key, None)
        if old is not None:
            self._unindex(key, old)
        return old

    def _unindex(self, key: str, obj: Obj) -> None:
        for name, keys in self._keys.items():
            index = self._indexes[name]
            for value in keys(obj):
                if (found := index.get(value)) is not None:
                    found.pop(key, None)
                    if not found:
                        del index[value]


class Informer:
    def __init__(self, resource: Resource, reflector: Reflector, transform: Transform | None = None) -> None:
        self.resource = resource
        self.lister = Lister()
        self.lister._add_index("namespace", lambda o: (o["metadata"].get("namespace") or "",))
        self._reflector = reflector
        self._reflector.sink = self
        self._transform = transform
        self._handlers: list[tuple[OnAdd | None, OnUpdate | None, OnDelete | None]] = []
        self._task: asyncio.Task[None] | None = None
        self.synced = asyncio.Event()

    @property
    def started(self) -> bool:
        return self._task is not None

    def add_index(self, name: str, keys: IndexKeys) -> None:
        """Keeps `lister.by_index(name, value)`. The same name again is the same index."""
        self.lister._add_index(name, keys)

    def add_handler(
        self, on_add: OnAdd | None = None, on_update: OnUpdate | None = None, on_delete: OnDelete | None = None
    ) -> None:
        """One that comes late is told of everything that is there as added."""
        self._handlers.append((on_add, on_update, on_delete))
        if on_add is not None:
            for obj in self.lister:
                _call(on_add, obj)

    def remove_handler(self, on_add: OnAdd | None = None) -> None:
        self._handlers = [h for h in self._handlers if h[0] != on_add]

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._reflector.run(), name=f"informer {self.resource.group_resource}"
            )

    async def stop(self) -> None:
        await end(self._task)

    # -- what the reflector calls

    def replace(self, objects: Iterable[Obj]) -> None:
        """These are all objects now."""
        kept: set[str] = set()
        for obj in objects:
            kept.add(meta.key(obj))
            self.upsert(obj)
        for key in [k for k in self.lister._objects if k not in kept]:
            self._gone(key, None)
        self.synced.set()

    def upsert(self, obj: Obj) -> None:
        if self._transform is not None:
            obj = self._transform(obj)
        old = self.lister._put(meta.key(obj), obj)
        if old is None:
            for on_add, _, _ in self._handlers:
                if on_add is not None:
                    _call(on_add, obj)
        elif old["metadata"].get("resourceVersion") == obj["metadata"].get("resourceVersion"):
            return
        elif old["metadata"].get("uid") != obj["metadata"].get("uid"):
            # The old one was deleted and a new one made while no one watched.
            for on_add, _, on_delete in self._handlers:
                if on_delete is not None:
                    _call(on_delete, old)
                if on_add is not None:
                    _call(on_add, obj)
        else:
            for _, on_update, _ in self._handlers:
                if on_update is not None:
                    _call(on_update, old, obj)

    def remove(self, obj: Obj) -> None:
        if self._transform is not None:
            obj = self._transform(obj)
        self._gone(meta.key(obj), obj)

    def _gone(self, key: str, last: Obj | None) -> None:
        old = self.lister._pop(key)
        final = last if last is not None else old
        if final is None:
            return
        for _, _, on_delete in self._handlers:
            if on_delete is not None:
                _call(on_delete, final)


def _call(handler: Callable[..., Any], *args: Obj) -> None:
    try:
        handler(*args)
    except Exception:  # one bad handler must not blind the others
        log.exception("informer handler failed")


class InformerFactory:
    """Informers shared by their arguments. `transform` is applied to each object before it is kept."""

    def __init__(self, client: Client, clock: Clock | None = None, *, transform: Transform | None = None) -> None:
        self.client = client
        self.clock: Clock = clock or RealClock()
        self.transform = transform
        self._informers: dict[tuple[Any, ...], Informer] = {}

    def informer(
        self,
        r: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        transform: Transform | None = None,
    ) -> Informer:
        args = (r.group, r.version, r.plural, namespace or "", label_selector, field_selector, metadata_only)
        found = self._informers.get(args)
        if found is None:
            reflector = Reflector(
                self.client,
                r,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                metadata_only=metadata_only,
                clock=self.clock,
            )
            found = self._informers[args] = Informer(r, reflector, transform or self.transform)
        return found

    def existing(self, r: Resource) -> Informer | None:
        """The informer of everything of this resource, if someone already has it."""
        return self._informers.get((r.group, r.version, r.plural, "", "", "", False))

    async def forget(self, informer: Informer) -> None:
        """Stops an informer and drops it: its resource is no longer served."""
        self._informers = {a: i for a, i in self._informers.items() if i is not informer}
        await informer.stop()

    def start_new(self) -> None:
        """Starts what is new and does not wait."""
        for informer in list(self._informers.values()):
            informer.start()

    async def start(self) -> None:
        """Starts what is new; returns when all have synced."""
        self.start_new()
        await asyncio.gather(*(i.synced.wait() for i in list(self._informers.values())))

    async def stop(self) -> None:
        await asyncio.gather(*(i.stop() for i in list(self._informers.values())))
        self._informers.clear()


def without_managed_fields(obj: Obj) -> Obj:
    """The transform of those who never look at managedFields, often half of an object's size."""
    obj["metadata"].pop("managedFields", None)
    return obj
