"""The garbage collector: what is owned goes when its owners are gone.

A graph of all objects of all resources that can be listed, watched and deleted, custom ones too, is kept from
metadata informers: nodes by UID, edges by owner references. An owner that is referred to but was never seen is a
*virtual* node, until the API server has been asked about it. The graph only says where to look: before anything
is deleted or patched the object itself is read again.

Three ways to delete: background (owner first, dependents follow), foreground (the owner stays, with finalizer
`foregroundDeletion`, until the dependents that block it are gone), orphan (finalizer `orphan`: the references to
the owner are removed first).

Which resources there are is followed through CRDs and APIServices, not polled.

Source: pkg/controller/garbagecollector.
"""

from __future__ import annotations

import asyncio
import logging

from berg.client.controller import Loop
from berg.client.discovery import Discovered
from berg.client.informer import Informer
from berg.client.workqueue import WorkQueue
from berg.controllers.context import APIController, Context
from berg.controllers.ownergraph import FOREGROUND, ORPHAN, Graph, Node
from berg.machinery import meta
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)

IGNORED = {("", "events"), ("events.k8s.io", "events")}
SYNC_TIMEOUT_S = 30.0
DISCOVERY_DELAY_S = 0.1


class GarbageCollector(APIController):
    name = "garbage-collector-controller"
    workers = 20

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.orphans: WorkQueue[str] = self.add_loop(self.orphan_dependents, workers=5)
        self.resyncs: WorkQueue[str] = WorkQueue(ctx.clock)
        self._resync_loop = Loop(self.name, self.resyncs, self.resync, workers=1)
        self.graph = Graph(self.queue.add, self.orphans.add)
        self._informers: dict[Resource, Informer] = {}
        self._found = Discovered()
        for name in ("customresourcedefinitions.apiextensions.k8s.io", "apiservices.apiregistration.k8s.io"):
            informer = ctx.informer(name)
            informer.add_handler(self._changed, lambda old, new: self._changed(new), self._changed)
        self._running = False

    def _changed(self, obj: Obj) -> None:
        self.resyncs.add_after("resources", DISCOVERY_DELAY_S)

    async def start(self) -> None:
        self.resyncs.add("resources")
        self._resync_loop.start()

    async def stop(self) -> None:
        await self._resync_loop.stop()
        await super().stop()

    # -- which resources there are

    async def resync(self, key: str) -> None:
        self._found = await self.ctx.discover()
        wanted = {
            r: r
            for r in self._found.preferred()
            if {"list", "watch", "delete"} <= set(r.verbs) and (r.group, r.plural) not in IGNORED
        }
        for r in [r for r in self._informers if r not in wanted and r.api_version not in self._found.failed]:
            informer = self._informers.pop(r)
            self.graph.drop_resource(r)
            await self.ctx.informers.forget(informer)
        fresh = [self._watch(r) for r in wanted if r not in self._informers]
        if self._found.failed:
            self.resyncs.add_after("resources", SYNC_TIMEOUT_S)
        if fresh and not self._running:
            # An owner is only absent when the resource it would be in has been seen whole.
            waiting = asyncio.gather(*(i.synced.wait() for i in fresh))
            try:
                await asyncio.wait_for(waiting, SYNC_TIMEOUT_S)
            except TimeoutError:
                log.warning("some resources cannot be watched; garbage collection goes on without them")
        if not self._running:
            self._running = True
            await super().start()
        for node in [n for n in self.graph.nodes.values() if n.virtual]:
            self.queue.add(node.uid)

    def _watch(self, r: Resource) -> Informer:
        informer = self.ctx.informers.existing(r)
        if informer is None:
            informer = self.ctx.informers.informer(r, metadata_only=True, transform=slim)
        self._informers[r] = informer
        informer.add_handler(
            lambda o: self.graph.observe(r, o), lambda old, new: self.graph.observe(r, new), self.graph.remove
        )
        informer.start()
        return informer

    def _resource(self, api_version: str, kind: str) -> Resource | None:
        return self._found.by_kind(api_version, kind) or self._found.by_group_kind(api_version.rpartition("/")[0], kind)

    # -- deletion

    async def reconcile(self, key: str) -> None:
        node = self.graph.nodes.get(key)
        if node is None:
            return
        r = self._resource(node.api_version, node.kind)
        if r is None:
            if not self._found.failed:  # no such kind: what is owned by it is owned by nothing
                self.graph.forget_virtual(node)
            return
        if node.virtual and r.namespaced and not node.namespace:
            # Owned from outside of any namespace: cannot be looked up, so is never taken for absent.
            self._warn_namespace(node)
            return
        live = await self._live(r, node.namespace if r.namespaced else None, node.name, node.uid)
        if live is None:
            self.graph.forget(node)
            return
        if node.virtual:
            if r not in self._informers:
                return
            self.queue.add_rate_limited(key)  # it exists; the informer will tell soon
            return
        if meta.is_deleting(live) and not node.deleting_dependents:
            return
        if node.deleting_dependents:
            await self._finish_foreground(r, node, live)
            return
        solid, dangling, waiting = await self._classify(node, live)
        if solid:
            if dangling or waiting:
                await self._drop_references(r, live, {o["uid"] for o in [*dangling, *waiting]})
            return
        if not dangling and not waiting:
            return  # it has no owners
        if waiting and node.dependents:
            if any(d.deleting_dependents for d in node.dependents.values()):
                # Blocking each other: a cycle, or this would wait for one that waits for it.
                await self._unblock(r, live)
            policy = "Foreground"
        else:
            finalizers = live["metadata"].get("finalizers") or ()
            policy = "Orphan" if ORPHAN in finalizers else "Foreground" if FOREGROUND in finalizers else "Background"
        await self._delete(r, live, policy)

    async def _live(self, r: Resource, namespace: str | None, name: str, uid: str) -> Obj | None:
        try:
            found = await self.client.get(r, namespace, name, metadata_only=True)
        except ApiError as e:
            if e.code == 404:
                return None
            raise
        return found if meta.uid(found) == uid else None

    async def _classify(self, node: Node, live: Obj) -> tuple[list[Obj], list[Obj], list[Obj]]:
        """Owner references whose owner lives, is gone, or waits for its dependents to be deleted."""
        solid: list[Obj] = []
        dangling: list[Obj] = []
        waiting: list[Obj] = []
        for ref in live["metadata"].get("ownerReferences") or ():
            owner = self.graph.nodes.get(ref["uid"])
            if owner is not None and not owner.virtual and self._matches(owner, ref, node):
                (waiting if owner.deleting_dependents else solid).append(ref)
                continue
            if ref["uid"] in self.graph.absent:
                dangling.append(ref)
                continue
            r = self._resource(ref["apiVersion"], ref["kind"])
            if r is None:
                if self._found.failed:
                    raise ApiError(
                        500, "InternalError", f"unable to get REST mapping for {ref['apiVersion']}/{ref['kind']}"
                    )
                dangling.append(ref)
                continue
            if r.namespaced and not node.namespace:
                self._warn_namespace(node)
                solid.append(ref)
                continue
            found = await self._live(r, node.namespace if r.namespaced else None, ref["name"], ref["uid"])
            if found is None:
                dangling.append(ref)
            elif meta.is_deleting(found) and FOREGROUND in (found["metadata"].get("finalizers") or ()):
                waiting.append(ref)
            else:
                solid.append(ref)
        return solid, dangling, waiting

    def _matches(self, owner: Node, ref: Obj, node: Node) -> bool:
        """A reference is to an object in the same namespace, or to one outside of all: the UID alone is not enough."""
        same = owner.kind == ref["kind"] and owner.name == ref["name"]
        same = same and owner.api_version.rpartition("/")[0] == ref["apiVersion"].rpartition("/")[0]
        return same and owner.namespace in ("", node.namespace)

    def _warn_namespace(self, node: Node) -> None:
        if node.virtual:
            return
        ref = {
            "apiVersion": node.api_version,
            "kind": node.kind,
            "namespace": node.namespace,
            "name": node.name,
            "uid": node.uid,
        }
        text = "ownerRef does not exist in namespace: a cluster-scoped object cannot have a namespaced owner"
        self.event(ref, "Warning", "OwnerRefInvalidNamespace", text)

    async def _finish_foreground(self, r: Resource, node: Node, live: Obj) -> None:
        blocking = [d for d in node.dependents.values() if d.blocks(node.uid)]
        if not blocking:
            await self._drop_finalizer(r, live, FOREGROUND)
            return
        for d in blocking:
            if not d.deleting_dependents:
                self.queue.add(d.uid)

    async def _delete(self, r: Resource, live: Obj, policy: str) -> None:
        md = live["metadata"]
        try:
            await self.client.delete(
                r,
                md.get("namespace"),
                md["name"],
                propagation_policy=policy,
                uid=md["uid"],
                resource_version=md["resourceVersion"],
            )
        except ApiError as e:
            if e.code != 404:
                raise

    # -- patches: whole lists with a resourceVersion, which every resource understands

    async def _patch(self, r: Resource, live: Obj, change: Obj) -> None:
        md = live["metadata"]
        patch = {"metadata": {"resourceVersion": md["resourceVersion"], "uid": md["uid"], **change}}
        try:
            await self.client.patch(r, md.get("namespace"), md["name"], patch)
        except ApiError as e:
            if e.code != 404:
                raise

    async def _drop_references(self, r: Resource, live: Obj, uids: set[str]) -> None:
        refs = [o for o in live["metadata"].get("ownerReferences") or () if o["uid"] not in uids]
        await self._patch(r, live, {"ownerReferences": refs})

    async def _unblock(self, r: Resource, live: Obj) -> None:
        refs = [{**o, "blockOwnerDeletion": False} for o in live["metadata"].get("ownerReferences") or ()]
        await self._patch(r, live, {"ownerReferences": refs})
        fresh = await self._live(r, live["metadata"].get("namespace"), meta.name(live), meta.uid(live))
        if fresh is not None:
            live["metadata"] = fresh["metadata"]

    async def _drop_finalizer(self, r: Resource, live: Obj, finalizer: str) -> None:
        finalizers = live["metadata"].get("finalizers") or []
        if finalizer in finalizers:
            await self._patch(r, live, {"finalizers": [f for f in finalizers if f != finalizer]})

    # -- orphaning

    async def orphan_dependents(self, key: str) -> None:
        owner = self.graph.nodes.get(key)
        if owner is None:
            return
        results = await asyncio.gather(
            *(self._release(d, key) for d in list(owner.dependents.values())), return_exceptions=True
        )
        for error in results:
            if isinstance(error, BaseException):
                raise error
        r = self._resource(owner.api_version, owner.kind)
        if r is None:
            return
        live = await self._live(r, owner.namespace or None, owner.name, owner.uid)
        if live is not None:
            await self._drop_finalizer(r, live, ORPHAN)

    async def _release(self, dependent: Node, owner_uid: str) -> None:
        r = self._resource(dependent.api_version, dependent.kind)
        if r is None:
            return
        live = await self._live(r, dependent.namespace or None, dependent.name, dependent.uid)
        if live is not None:
            await self._drop_references(r, live, {owner_uid})


def slim(obj: Obj) -> Obj:
    """Of an object that no one else reads only this is kept."""
    md = obj["metadata"]
    keep = ("name", "namespace", "uid", "resourceVersion", "ownerReferences", "finalizers", "deletionTimestamp")
    return {"metadata": {k: md[k] for k in keep if k in md}}
