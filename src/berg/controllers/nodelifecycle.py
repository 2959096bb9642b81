"""Nodes that stop reporting: their conditions become Unknown, they are tainted, their pods are marked not ready.

A node is alive while its Lease is renewed or its status changes; what counts is when this process saw it change,
not the times written there (clocks of machines differ). There is one timer per node, for the moment its grace
period ends.

NoSchedule taints follow the conditions at once. The NoExecute taints that evict pods are put at a limited rate
per zone, and not at all when every zone is down: then it is more likely this side that is cut off.

Source: pkg/controller/nodelifecycle/node_lifecycle_controller.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from berg.controllers import nodezones as zones
from berg.controllers.context import APIController, Context
from berg.controllers.objects import conditions_of, find_condition
from berg.controllers.podgc import BY_NODE, index_by_node
from berg.controllers.pods import condition as pod_condition
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
CONDITION_TAINTS: dict[str, dict[str, str]] = {
    "Ready": {"False": NOT_READY, "Unknown": UNREACHABLE},
    "MemoryPressure": {"True": "node.kubernetes.io/memory-pressure"},
    "DiskPressure": {"True": "node.kubernetes.io/disk-pressure"},
    "NetworkUnavailable": {"True": "node.kubernetes.io/network-unavailable"},
    "PIDPressure": {"True": "node.kubernetes.io/pid-pressure"},
}
MANAGED = {key for by_status in CONDITION_TAINTS.values() for key in by_status.values()} | {UNSCHEDULABLE}
CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
LABELS = {"kubernetes.io/os": "beta.kubernetes.io/os", "kubernetes.io/arch": "beta.kubernetes.io/arch"}
LEASES = "kube-node-lease"


@dataclass(slots=True)
class Health:
    """When this process last saw the node do something."""

    seen_at: float
    renewed: str = ""
    heartbeat: str = ""


class NodeLifecycleController(APIController):
    name = "node-lifecycle-controller"
    component = "node-controller"
    workers = 8

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("nodes")
        self.nodes, self.pods = ctx.informer("nodes"), ctx.informer("pods")
        self.leases = ctx.informer("leases.coordination.k8s.io", namespace=LEASES)
        index_by_node(ctx)
        self.health: dict[str, Health] = {}
        self.zones = zones.Zones(ctx.config, ctx.clock)
        self.evictions = self.add_loop(self.evict, workers=1)
        help = "[STABLE] Nodes whose pods were told to leave, by zone."
        self.evicted = ctx.metrics.counter("node_collector_evictions_total", help, ("zone",))
        self.nodes.add_handler(self._node_added, self._node_changed, self._node_gone)
        self.leases.add_handler(self._lease, lambda old, new: self._lease(new))
        self.pods.add_handler(self._pod, lambda old, new: self._pod(new))

    # -- events

    def _node_added(self, node: Obj) -> None:
        name = meta.name(node)
        self.health.setdefault(name, Health(self.clock.monotonic()))
        self.event(_ref(node), "Normal", "RegisteredNode", f"Node {name} event: Registered Node {name} in Controller")
        self._note_heartbeat(node)
        self.queue.add(name)

    def _node_changed(self, old: Obj, new: Obj) -> None:
        self._note_heartbeat(new)
        if (
            conditions_of(old) != conditions_of(new)
            or old["spec"] != new["spec"]
            or meta.labels(old) != meta.labels(new)
        ):
            self.queue.add(meta.name(new))

    def _node_gone(self, node: Obj) -> None:
        name = meta.name(node)
        self.health.pop(name, None)
        self.zones.forget(name)
        text = f"Node {name} event: Removing Node {name} from Controller"
        self.event(_ref(node), "Normal", "RemovingNode", text)
        for other in self.zones.changed():
            self.evictions.add(other)

    def _note_heartbeat(self, node: Obj) -> None:
        ready = find_condition(conditions_of(node), "Ready") or {}
        health = self.health.setdefault(meta.name(node), Health(self.clock.monotonic()))
        # Our own writing of Unknown leaves the heartbeat as the kubelet wrote it, and so does not count.
        heartbeat = ready.get("lastHeartbeatTime") or ""
        if heartbeat and heartbeat != health.heartbeat:
            health.heartbeat, health.seen_at = heartbeat, self.clock.monotonic()

    def _lease(self, lease: Obj) -> None:
        name = meta.name(lease)
        renewed = (lease.get("spec") or {}).get("renewTime") or ""
        health = self.health.setdefault(name, Health(self.clock.monotonic()))
        if renewed != health.renewed:
            health.renewed, health.seen_at = renewed, self.clock.monotonic()

    def _pod(self, pod: Obj) -> None:
        """A pod that is bound to a node which is not ready must not look ready."""
        name = pod["spec"].get("nodeName")
        ready = pod_condition(pod, "Ready")
        if name and ready is not None and ready["status"] == "True":
            node = self.nodes.lister.get(None, name)
            if node is not None and _ready_status(node) == "Unknown":
                self.queue.add(name)

    # -- the loop

    async def reconcile(self, key: str) -> None:
        node = self.nodes.lister.get_key(key)
        if node is None:
            return
        if (changed := self._labels(node)) is not None:
            await self.client.patch(self.resource, None, key, {"metadata": {"labels": changed}})
        node = await self._check(node)
        node = await self._taint(node)
        self.zones.note(key, zones.zone_of(node), _ready_status(node) == "True")
        for name in {*self.zones.changed(), key}:
            self.evictions.add(name)
        if _ready_status(node) != "True":
            await self._mark_pods(node)

    def _labels(self, node: Obj) -> dict[str, str] | None:
        labels = meta.labels(node)
        missing = {old: labels[new] for new, old in LABELS.items() if new in labels and labels.get(old) != labels[new]}
        return missing or None

    async def _check(self, node: Obj) -> Obj:
        name, now = meta.name(node), self.clock.monotonic()
        health = self.health.setdefault(name, Health(now))
        known = find_condition(conditions_of(node), "Ready")
        config = self.ctx.config
        grace = config.node_monitor_grace_period_s if known else config.node_startup_grace_period_s
        left = health.seen_at + grace - now
        if left > 0:
            self.queue.add_after(name, left)
            return node
        now_text = rfc3339(self.clock.now())
        conditions = [dict(c) for c in conditions_of(node)]
        changed = False
        for type in CONDITIONS:
            c = find_condition(conditions, type)
            if c is None:
                conditions.append(
                    {
                        "type": type,
                        "status": "Unknown",
                        "lastHeartbeatTime": node["metadata"].get("creationTimestamp"),
                        "lastTransitionTime": now_text,
                        "reason": "NodeStatusNeverUpdated",
                        "message": "Kubelet never posted node status.",
                    }
                )
                changed = True
            elif c["status"] != "Unknown":
                c.update(
                    status="Unknown",
                    reason="NodeStatusUnknown",
                    message="Kubelet stopped posting node status.",
                    lastTransitionTime=now_text,
                )
                changed = True
        if not changed:
            return node
        was_ready = _ready_status(node) == "True"
        status = {**(node.get("status") or {}), "conditions": conditions}
        node = await self.client.update_status(self.resource, {**node, "status": status})
        if was_ready:
            text = f"Node {name} status is now: NodeNotReady"
            self.event(_ref(node), "Normal", "NodeNotReady", text)
        return node

    async def _taint(self, node: Obj) -> Obj:
        """The NoSchedule taints that the conditions ask for."""
        wanted: set[str] = set()
        for c in conditions_of(node):
            if (taint := CONDITION_TAINTS.get(c["type"], {}).get(c["status"])) is not None:
                wanted.add(taint)
        if node["spec"].get("unschedulable"):
            wanted.add(UNSCHEDULABLE)
        now = self.clock.now()
        taints = node["spec"].get("taints") or []
        have = {t["key"] for t in taints if t["effect"] == "NoSchedule" and t["key"] in MANAGED}
        if have == wanted:
            return node
        new = [t for t in taints if not (t["effect"] == "NoSchedule" and t["key"] in MANAGED - wanted)]
        new += [{"key": k, "effect": "NoSchedule", "timeAdded": rfc3339(now)} for k in sorted(wanted - have)]
        return await self._put_taints(node, new)

    async def evict(self, key: str) -> None:
        """The NoExecute taint, when the zone's rate allows it."""
        node = self.nodes.lister.get_key(key)
        if node is None:
            return
        status = _ready_status(node)
        wanted = {"False": NOT_READY, "Unknown": UNREACHABLE}.get(status)
        taints = node["spec"].get("taints") or []
        have = {t["key"] for t in taints if t["effect"] == "NoExecute" and t["key"] in (NOT_READY, UNREACHABLE)}
        if self.zones.all_down():
            wanted = None
        elif wanted is not None and not have:
            wait_s = self.zones.eviction_in(key)
            if wait_s is None:
                return  # this zone evicts no one now; a change of its state brings the key back
            if wait_s > 0:
                self.evictions.add_after(key, wait_s)
                return
        if have == ({wanted} if wanted else set()):
            return
        new = [t for t in taints if not (t["effect"] == "NoExecute" and t["key"] in (NOT_READY, UNREACHABLE))]
        if wanted is not None:
            new.append({"key": wanted, "effect": "NoExecute", "timeAdded": rfc3339(self.clock.now())})
        await self._put_taints(node, new)
        if wanted is not None and not have:
            self.evicted.inc(zones.zone_of(node))

    async def _put_taints(self, node: Obj, taints: list[Obj]) -> Obj:
        md = node["metadata"]
        patch = {"metadata": {"resourceVersion": md["resourceVersion"]}, "spec": {"taints": taints or None}}
        return await self.client.patch(self.resource, None, md["name"], patch)

    async def _mark_pods(self, node: Obj) -> None:
        for pod in self.pods.lister.by_index(BY_NODE, meta.name(node)):
            c = pod_condition(pod, "Ready")
            if c is None or c["status"] != "True":
                continue
            now = rfc3339(self.clock.now())
            new = {**c, "status": "False", "lastTransitionTime": now}
            conditions = [new if o["type"] == "Ready" else o for o in conditions_of(pod)]
            try:
                await self.client.update_status(
                    resource("pods"), {**pod, "status": {**pod["status"], "conditions": conditions}}
                )
                self.event(pod, "Warning", "NodeNotReady", "Node is not ready")
            except ApiError as e:
                if e.code != 404:
                    raise


def _ref(node: Obj) -> Obj:
    return {"apiVersion": "v1", "kind": "Node", "name": meta.name(node), "uid": meta.uid(node)}


def _ready_status(node: Obj) -> str:
    """True, False or Unknown; a node that never reported is Unknown only once its grace period is over."""
    c = find_condition(conditions_of(node), "Ready")
    return c["status"] if c is not None else "True"
