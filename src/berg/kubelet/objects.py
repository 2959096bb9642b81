"""ConfigMaps and Secrets that the pods of this node refer to: fetched once, then followed by a watch each.

An object is watched as long as a registered pod refers to it, and one that is marked immutable is not watched at
all. The first `get` is a plain GET, so that a pod does not wait for a watch to be set up; the watch goes on from
the version that it brought. Whoever subscribes is told the UIDs of the pods that a change concerns.

Source: pkg/kubelet/util/manager/watch_based_manager.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from berg.client.rest import Client
from berg.kubelet import pod as p
from berg.machinery.clock import Clock
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj, not_found
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

RESOURCES = {"ConfigMap": "configmaps", "Secret": "secrets"}
RETRY_S = 1.0

Key = tuple[str, str, str]
"""(kind, namespace, name)"""


def references(pod: Obj) -> Iterator[tuple[str, str]]:
    """(kind, name) of everything the pod's spec refers to."""
    spec = pod["spec"]
    for ref in spec.get("imagePullSecrets") or ():
        if ref.get("name"):
            yield "Secret", ref["name"]
    for c in p.all_containers(pod):
        for entry in c.get("envFrom") or ():
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if entry.get(key, {}).get("name"):
                    yield kind, entry[key]["name"]
        for entry in c.get("env") or ():
            source = entry.get("valueFrom") or {}
            for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if source.get(key, {}).get("name"):
                    yield kind, source[key]["name"]
    for volume in spec.get("volumes") or ():
        yield from volume_references(volume)


def volume_references(volume: Obj) -> Iterator[tuple[str, str]]:
    if volume.get("configMap", {}).get("name"):
        yield "ConfigMap", volume["configMap"]["name"]
    if volume.get("secret", {}).get("secretName"):
        yield "Secret", volume["secret"]["secretName"]
    for source in volume.get("projected", {}).get("sources") or ():
        if source.get("configMap", {}).get("name"):
            yield "ConfigMap", source["configMap"]["name"]
        if source.get("secret", {}).get("name"):
            yield "Secret", source["secret"]["name"]


class _Entry:
    __slots__ = ("object", "pods", "ready", "task")

    def __init__(self) -> None:
        self.object: Obj | None = None
        self.ready = False  # whether `object` (None: not there) is what the API says
        self.pods: set[str] = set()
        self.task: asyncio.Task[None] | None = None


class ObjectCache:
    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._entries: dict[Key, _Entry] = {}
        self._pods: dict[str, set[Key]] = {}
        self.on_change: Callable[[set[str]], None] = lambda uids: None
        """Called with the pods that refer to an object that changed."""

    def register(self, pod: Obj) -> None:
        """The pod's references are kept until `unregister`."""
        uid, namespace = p.uid(pod), p.namespace(pod)
        wanted = {(kind, namespace, name) for kind, name in references(pod)}
        for key in wanted - self._pods.get(uid, set()):
            self._entries.setdefault(key, _Entry()).pods.add(uid)
        for key in self._pods.get(uid, set()) - wanted:
            self._drop(key, uid)
        self._pods[uid] = wanted

    def unregister(self, uid: str) -> None:
        for key in self._pods.pop(uid, ()):
            self._drop(key, uid)

    def _drop(self, key: Key, uid: str) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.pods.discard(uid)
        if not entry.pods:
            del self._entries[key]
            if entry.task is not None:
                entry.task.cancel()

    async def get(self, kind: str, namespace: str, name: str) -> Obj:
        """The object, shared: never change it. Raises ApiError."""
        key = (kind, namespace, name)
        entry = self._entries.get(key)
        r = resource(RESOURCES[kind])
        if entry is None:
            try:
                return await self._client.get(r, namespace, name)
            except ApiError as e:
                raise (not_found("", kind.lower(), name) if e.code == 404 else e) from e
        if entry.ready:
            if entry.object is None:
                raise not_found("", kind.lower(), name)
            return entry.object
        try:
            obj = await self._client.get(r, namespace, name)
        except ApiError as e:
            if e.code == 404:
                self._follow(key, entry, r)
                raise not_found("", kind.lower(), name) from e
            raise
        if not entry.ready:
            entry.object = obj
            entry.ready = True
            self._follow(key, entry, r)
        return obj

    def _follow(self, key: Key, entry: _Entry, r: Resource) -> None:
        if entry.task is None and not (entry.object or {}).get("immutable"):
            entry.task = asyncio.ensure_future(self._watch(key, entry, r))

    async def _watch(self, key: Key, entry: _Entry, r: Resource) -> None:
        _, namespace, name = key
        version = (entry.object or {}).get("metadata", {}).get("resourceVersion", "")
        while True:
            try:
                async for event in self._client.watch(
                    r,
                    namespace,
                    field_selector=f"metadata.name={name}",
                    resource_version=version,
                    send_initial_events=not version,
                ):
                    version = event.object["metadata"].get("resourceVersion", version)
                    if event.type == "BOOKMARK":
                        entry.ready = True
                    else:
                        self._changed(entry, None if event.type == "DELETED" else event.object)
                        if (entry.object or {}).get("immutable"):
                            entry.task = None
                            return
            except ApiError as e:
                if e.code == 410:
                    version = ""
                    continue
                log.info("watch of %s %s/%s: %s", *key, e.message)
            await self._clock.sleep(RETRY_S)

    def _changed(self, entry: _Entry, obj: Obj | None) -> None:
        old, entry.object, entry.ready = entry.object, obj, True
        same = old is not None and obj is not None and all(old.get(k) == obj.get(k) for k in ("data", "binaryData"))
        if not same:
            self.on_change(set(entry.pods))

    async def stop(self) -> None:
        tasks = [e.task for e in self._entries.values() if e.task is not None]
        await end(*tasks)
        self._entries.clear()
        self._pods.clear()
