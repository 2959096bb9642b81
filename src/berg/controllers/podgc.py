"""Pods that no kubelet will ever take away: of nodes that are gone, never scheduled and yet terminating, on nodes
out of service, or simply too many finished ones.

Source: pkg/controller/podgc/gc_controller.go.
"""

from __future__ import annotations

from datetime import timedelta

from berg.controllers.context import APIController, Context
from berg.controllers.objects import by_age, conditions_of, put_condition, time_of
from berg.controllers.pods import is_finished
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

QUARANTINE_S = 40.0
BY_NODE = "node"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
TERMINATED = "/terminated"


def index_by_node(ctx: Context) -> None:
    ctx.informer("pods").add_index(BY_NODE, lambda p: (p["spec"].get("nodeName") or "",))


class PodGarbageCollector(APIController):
    name = "pod-garbage-collector-controller"
    workers = 4

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("pods")
        self.pods, self.nodes = ctx.informer("pods"), ctx.informer("nodes")
        index_by_node(ctx)
        self._finished = 0
        self.pods.add_handler(self._pod_added, self._pod_changed, self._pod_gone)
        self.nodes.add_handler(None, lambda old, new: self._node_changed(new), self._node_gone)

    async def start(self) -> None:
        # Asked once all are known: while the informers fill, every node looks absent.
        for pod in self.pods.lister:
            self._look(pod)
        await super().start()

    def _pod_added(self, pod: Obj) -> None:
        self._finished += is_finished(pod)
        self._look(pod)
        self._count()

    def _pod_changed(self, old: Obj, new: Obj) -> None:
        self._finished += is_finished(new) - is_finished(old)
        self._look(new)
        self._count()

    def _pod_gone(self, pod: Obj) -> None:
        self._finished -= is_finished(pod)

    def _count(self) -> None:
        threshold = self.ctx.config.terminated_pod_gc_threshold
        if 0 < threshold < self._finished:
            self.queue.add(TERMINATED)

    def _look(self, pod: Obj) -> None:
        if not self.nodes.synced.is_set():
            return
        name = pod["spec"].get("nodeName")
        if not name:
            if meta.is_deleting(pod):
                self.enqueue(pod)
            return
        node = self.nodes.lister.get(None, name)
        if node is None:
            self.queue.add_after(meta.key(pod), QUARANTINE_S)
        elif meta.is_deleting(pod) and _out_of_service(node):
            self.enqueue(pod)

    def _node_changed(self, node: Obj) -> None:
        if _out_of_service(node):
            for pod in self.pods.lister.by_index(BY_NODE, meta.name(node)):
                self._look(pod)

    def _node_gone(self, node: Obj) -> None:
        for pod in self.pods.lister.by_index(BY_NODE, meta.name(node)):
            self.queue.add_after(meta.key(pod), QUARANTINE_S)

    async def reconcile(self, key: str) -> None:
        if key == TERMINATED:
            await self._trim_finished()
            return
        pod = self.pods.lister.get_key(key)
        if pod is None:
            return
        name = pod["spec"].get("nodeName")
        if not name:
            if meta.is_deleting(pod):
                await self._delete(pod)
            return
        node = self.nodes.lister.get(None, name)
        if node is None:
            try:
                await self.client.get(resource("nodes"), None, name)
            except ApiError as e:
                if e.code != 404:
                    raise
                reason = "PodGC: node no longer exists"
                await self._delete(pod, disruption=reason)
        elif meta.is_deleting(pod) and _out_of_service(node):
            deleted = time_of(pod["metadata"]["deletionTimestamp"])
            assert deleted is not None
            end = deleted + timedelta(seconds=pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            wait_s = (end - self.clock.now()).total_seconds()
            if wait_s > 0:
                self.queue.add_after(key, wait_s)
            elif _not_ready(node):
                await self._delete(pod)

    async def _trim_finished(self) -> None:
        finished = sorted((p for p in self.pods.lister if is_finished(p) and not meta.is_deleting(p)), key=by_age)
        excess = len(finished) - self.ctx.config.terminated_pod_gc_threshold
        for pod in finished[: max(0, excess)]:
            await self._delete(pod)

    async def _delete(self, pod: Obj, *, disruption: str = "") -> None:
        """At once: there is no one to end it gracefully. A pod that has not finished is marked as failed first,
        so that those who count its outcome see one."""
        md = pod["metadata"]
        try:
            if not is_finished(pod):
                new: Obj = {"phase": "Failed"}
                if disruption:
                    condition = {
                        "type": "DisruptionTarget",
                        "status": "True",
                        "reason": "DeletionByPodGC",
                        "message": disruption,
                        "lastTransitionTime": rfc3339(self.clock.now()),
                    }
                    new["conditions"] = put_condition(conditions_of(pod), condition)
                patch = {"metadata": {"uid": md["uid"]}, "status": new}
                await self.client.patch(self.resource, md["namespace"], md["name"], patch, subresource="status")
            await self.client.delete(self.resource, md["namespace"], md["name"], grace_period_s=0, uid=md["uid"])
        except ApiError as e:
            if e.code != 404:
                raise


def _out_of_service(node: Obj) -> bool:
    return any(t["key"] == OUT_OF_SERVICE for t in node["spec"].get("taints") or ())


def _not_ready(node: Obj) -> bool:
    return not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions_of(node))
