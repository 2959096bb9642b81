"""Mirror pods: what the API shows of static pods. Made when missing, made again when the manifest changed.

A static pod runs whether or not there is an API; its mirror follows as soon as the node is registered.

Source: pkg/kubelet/pod/mirror_client.go, kubelet.go tryReconcileMirrorPods.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from berg.client.rest import Client
from berg.kubelet import pod as p
from berg.kubelet.node_status import NodeStatus
from berg.kubelet.sources import PodSet
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)


def is_of(mirror: Obj, pod: Obj) -> bool:
    return p.annotations(mirror).get(p.CONFIG_MIRROR) == p.annotations(pod).get(p.CONFIG_HASH)


class Mirrors:
    def __init__(
        self,
        client: Client,
        pods: PodSet,
        node: NodeStatus,
        new_mirror: Callable[[str], None],
        wake: Callable[[str], None],
    ) -> None:
        """`new_mirror`: told the UID of a static pod whose status has to be written to a new mirror."""
        self._client = client
        self._pods = pods
        self._node = node
        self._new_mirror = new_mirror
        self._wake = wake
        self._tasks: set[asyncio.Task[None]] = set()
        self.complete = False
        """Whether all sources have been read: only then is a mirror without a pod one too many."""

    def target(self, pod: Obj) -> Obj | None:
        """The object of the API that shows `pod`: itself, or a static pod's mirror when there is one."""
        if not p.is_static(pod):
            return pod
        shown = self._pods.mirror_of(pod)
        return shown if shown is not None and is_of(shown, pod) else None

    async def reconcile(self, pod: Obj) -> None:
        """Sees to it, in the background, that the pod has its mirror."""
        self._spawn(self._reconcile(pod))

    def changed(self, shown: Obj) -> None:
        """The API has a new version of a mirror pod."""
        name = p.full_name(shown)
        old = self._pods.mirrors.get(name)
        self._pods.mirrors[name] = shown
        pod = self._static(name)
        if pod is None:
            if self.complete:
                self._spawn(self._delete(shown))
        elif p.deletion_requested(shown) or not is_of(shown, pod):
            self._wake(p.uid(pod))
        elif old is None or p.uid(old) != p.uid(shown):
            self._new_mirror(p.uid(pod))

    def gone(self, shown: Obj) -> None:
        name = p.full_name(shown)
        known = self._pods.mirrors.get(name)
        if known is not None and p.uid(known) == p.uid(shown):
            del self._pods.mirrors[name]
        if (pod := self._static(name)) is not None:
            self._wake(p.uid(pod))

    def delete(self, pod: Obj) -> None:
        """The static pod is no more."""
        if (shown := self._pods.mirror_of(pod)) is not None:
            self._spawn(self._delete(shown))

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _static(self, full_name: str) -> Obj | None:
        return next((x for x in self._pods.pods.values() if p.is_static(x) and p.full_name(x) == full_name), None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="mirror pod")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reconcile(self, pod: Obj) -> None:
        await self._node.registered.wait()
        shown = self._pods.mirror_of(pod)
        if shown is not None:
            if is_of(shown, pod) and not p.deletion_requested(shown):
                return
            await self._delete(shown)
        await self._create(pod)

    async def _create(self, pod: Obj) -> None:
        mirror = copy.deepcopy(pod)
        meta = mirror["metadata"]
        for key in ("uid", "resourceVersion", "creationTimestamp"):
            meta.pop(key, None)
        meta["annotations"][p.CONFIG_MIRROR] = meta["annotations"][p.CONFIG_HASH]
        mirror.pop("status", None)
        if (node := self._node.node) is not None:
            owner = {
                "apiVersion": "v1",
                "kind": "Node",
                "name": node["metadata"]["name"],
                "uid": node["metadata"]["uid"],
            }
            meta["ownerReferences"] = [{**owner, "controller": True}]
        try:
            await self._client.create(resource("pods"), mirror)
        except ApiError as e:
            if e.reason != "AlreadyExists":
                log.warning("mirror pod of %s: %s", p.show(pod), e.message)

    async def _delete(self, shown: Obj) -> None:
        try:
            await self._client.delete(
                resource("pods"), p.namespace(shown), p.name(shown), grace_period_s=0, uid=p.uid(shown)
            )
        except ApiError as e:
            if e.code not in (404, 409):
                log.warning("mirror pod %s: %s", p.show(shown), e.message)
