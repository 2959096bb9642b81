"""NoExecute taints: pods that do not tolerate them are deleted, those that do for a while, after that while.

Source: pkg/controller/tainteviction/taint_eviction.go.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.controllers.objects import conditions_of, put_condition
from berg.controllers.podgc import BY_NODE, index_by_node
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj


def no_execute(node: Obj | None) -> list[Obj]:
    return [t for t in (node or {"spec": {}})["spec"].get("taints") or () if t["effect"] == "NoExecute"]


def tolerates(toleration: Obj, taint: Obj) -> bool:
    """Source: k8s.io/component-helpers scheduling/corev1, Toleration.ToleratesTaint."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    match toleration.get("operator") or "Equal":
        case "Exists":
            return True
        case "Equal":
            return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")
        case "Lt" | "Gt" as operator:
            try:
                have, want = int(taint.get("value") or ""), int(toleration.get("value") or "")
            except ValueError:
                return False
            return have < want if operator == "Lt" else have > want
    return False


def patience(pod: Obj, taints: list[Obj]) -> float | None:
    """How long the pod may stay: 0 not at all, infinity for ever; None when it tolerates without limit."""
    shortest: float | None = None
    for taint in taints:
        matching = [t for t in pod["spec"].get("tolerations") or () if tolerates(t, taint)]
        if not matching:
            return 0.0
        for t in matching:
            seconds = t.get("tolerationSeconds")
            if seconds is not None:
                shortest = min(shortest if shortest is not None else float("inf"), max(0.0, float(seconds)))
    return shortest


class TaintEvictionController(APIController):
    name = "taint-eviction-controller"
    workers = 8

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("pods")
        self.pods, self.nodes = ctx.informer("pods"), ctx.informer("nodes")
        index_by_node(ctx)
        self._since: dict[str, float] = {}
        """when the wait of a pod (by UID) began"""
        self.pods.add_handler(self._pod, lambda old, new: self._pod(new), self._pod_gone)
        self.nodes.add_handler(self._node, self._node_changed)

    def _pod(self, pod: Obj) -> None:
        name = pod["spec"].get("nodeName")
        if name and (meta.uid(pod) in self._since or no_execute(self.nodes.lister.get(None, name))):
            self.enqueue(pod)

    def _pod_gone(self, pod: Obj) -> None:
        self._since.pop(meta.uid(pod), None)

    def _node(self, node: Obj) -> None:
        if no_execute(node):
            for pod in self.pods.lister.by_index(BY_NODE, meta.name(node)):
                self.enqueue(pod)

    def _node_changed(self, old: Obj, new: Obj) -> None:
        if no_execute(old) != no_execute(new):
            for pod in self.pods.lister.by_index(BY_NODE, meta.name(new)):
                self.enqueue(pod)

    async def reconcile(self, key: str) -> None:
        pod = self.pods.lister.get_key(key)
        if pod is None or meta.is_deleting(pod):
            return
        uid = meta.uid(pod)
        taints = no_execute(self.nodes.lister.get(None, pod["spec"].get("nodeName") or ""))
        wait_s = patience(pod, taints) if taints else None
        if wait_s is None:
            if self._since.pop(uid, None) is not None:
                self.event(pod, "Normal", "TaintManagerEviction", f"Cancelling deletion of Pod {key}")
            return
        now = self.clock.monotonic()
        left = self._since.setdefault(uid, now) + wait_s - now
        if left > 0:
            self.queue.add_after(key, left)
            return
        await self._evict(key, pod)

    async def _evict(self, key: str, pod: Obj) -> None:
        self.event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": rfc3339(self.clock.now()),
        }
        md = pod["metadata"]
        conditions = conditions_of(pod)
        try:
            if (new := put_condition(conditions, condition)) != conditions:
                status = {**(pod.get("status") or {}), "conditions": new}
                await self.client.update_status(self.resource, {**pod, "status": status})
            await self.client.delete(self.resource, md["namespace"], md["name"], uid=md["uid"])
        except ApiError as e:
            if e.code != 404:
                raise
        self._since.pop(md["uid"], None)
