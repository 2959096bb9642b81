"""From informers into the snapshot and the queue.

Pods with a node go into the snapshot, those without (and of one of our profiles) into the queue. Nodes become rows.
Everything else that plugins decide by goes into the `ObjectStore`. What happened is told to the queue as cluster
events, once the state shows it.

Source: pkg/scheduler/eventhandlers.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from berg.client.informer import InformerFactory, without_managed_fields
from berg.machinery.resources import resource
from berg.scheduler.framework.events import Action, ClusterEvent
from berg.scheduler.slim import Slimmer
from berg.scheduler.state.requests import pod_requests

if TYPE_CHECKING:
    from berg.scheduler.scheduler import Scheduler

Obj = dict[str, Any]

LIVE_PODS = "status.phase!=Succeeded,status.phase!=Failed"

KINDS = {
    "Service": "services",
    "ReplicationController": "replicationcontrollers",
    "ReplicaSet": "replicasets.apps",
    "StatefulSet": "statefulsets.apps",
    "PersistentVolume": "persistentvolumes",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "StorageClass": "storageclasses.storage.k8s.io",
    "CSINode": "csinodes.storage.k8s.io",
    "CSIDriver": "csidrivers.storage.k8s.io",
    "CSIStorageCapacity": "csistoragecapacities.storage.k8s.io",
    "PodDisruptionBudget": "poddisruptionbudgets.policy",
    "ResourceClaim": "resourceclaims.resource.k8s.io",
}
TELLING = frozenset(KINDS) - {"Service", "ReplicationController", "ReplicaSet", "StatefulSet", "PodDisruptionBudget"}
"""kinds whose changes may make a pod schedulable"""


class Handlers:
    def __init__(self, scheduler: Scheduler, factory: InformerFactory) -> None:
        self._s = scheduler
        nodes = factory.informer(resource("nodes"), transform=_slim_node)
        nodes.add_handler(self.node_added, self.node_updated, self.node_deleted)
        pods = factory.informer(resource("pods"), field_selector=LIVE_PODS, transform=Slimmer().pod)
        self.pods = pods
        pods.add_handler(self.pod_added, self.pod_updated, self.pod_deleted)
        namespaces = factory.informer(resource("namespaces"), transform=without_managed_fields)
        namespaces.add_handler(self.namespace_set, lambda _, new: self.namespace_set(new), self.namespace_deleted)
        for kind, name in KINDS.items():
            informer = factory.informer(resource(name), transform=without_managed_fields)
            informer.add_handler(*self._object_handlers(kind))

    # Nodes

    def node_added(self, node: Obj) -> None:
        self._s.snapshot.set_node(node)
        self._s.renominate(node["metadata"]["name"])
        self._s.queue.happened(ClusterEvent("Node", Action.ADD), None, node)

    def node_updated(self, old: Obj, new: Obj) -> None:
        action = node_changes(old, new)
        if not action:  # a heartbeat
            return
        self._s.snapshot.set_node(new)
        self._s.queue.happened(ClusterEvent("Node", action), old, new)

    def node_deleted(self, node: Obj) -> None:
        self._s.snapshot.delete_node(node["metadata"]["name"])
        self._s.queue.happened(ClusterEvent("Node", Action.DELETE), node, None)

    # Pods

    def pod_added(self, pod: Obj) -> None:
        s = self._s
        if pod["spec"].get("nodeName"):
            info = s.parser.parse(pod)
            s.confirm(info)
            s.queue.happened(ClusterEvent("AssignedPod", Action.ADD), None, pod)
        elif not pod["metadata"].get("deletionTimestamp") and s.is_ours(pod):
            info = s.parser.parse(pod)
            if info.nominated_node:
                s.nominate(info, info.nominated_node)
            s.queue.add(info)

    def pod_updated(self, old: Obj, new: Obj) -> None:
        was, now = bool(old["spec"].get("nodeName")), bool(new["spec"].get("nodeName"))
        if not was and now:
            self._unqueue(old)
            self.pod_added(new)
        elif now:
            self._assigned_updated(old, new)
        else:
            self._unassigned_updated(old, new)

    def _assigned_updated(self, old: Obj, new: Obj) -> None:
        s = self._s
        if not _matters(old, new):
            s.replace_object(new)
            return
        s.confirm(s.parser.parse(new))
        if action := pod_changes(old, new):
            s.queue.happened(ClusterEvent("AssignedPod", action), old, new)

    def _unassigned_updated(self, old: Obj, new: Obj) -> None:
        s = self._s
        uid = new["metadata"].get("uid") or ""
        if s.is_assumed(uid):  # our own binding is under way; what it brings will show
            if new["metadata"].get("deletionTimestamp"):
                s.queue.delete(uid)
            return
        if new["metadata"].get("deletionTimestamp") or not s.is_ours(new):
            self._unqueue(new)
            return
        info = s.parser.parse(new)
        if info.nominated_node:
            s.nominate(info, info.nominated_node)
        s.queue.update(info)
        if action := pod_changes(old, new):
            s.queue.happened(ClusterEvent("UnscheduledPod", action), old, new)

    def pod_deleted(self, pod: Obj) -> None:
        s = self._s
        uid = pod["metadata"].get("uid") or ""
        if pod["spec"].get("nodeName"):
            s.snapshot.remove_pod(uid)
            s.assumed.discard(uid)
            s.queue.happened(ClusterEvent("AssignedPod", Action.DELETE), pod, None)
        else:
            self._unqueue(pod)
            if (pod.get("status") or {}).get("nominatedNodeName"):
                s.queue.happened(ClusterEvent("AssignedPod", Action.DELETE), pod, None)

    def _unqueue(self, pod: Obj) -> None:
        uid = pod["metadata"].get("uid") or ""
        self._s.queue.delete(uid)
        self._s.denominate(uid)
        self._s.forget_preemption(uid)
        self._s.reject_waiting(uid, "removed")

    # The rest

    def namespace_set(self, namespace: Obj) -> None:
        meta = namespace["metadata"]
        self._s.snapshot.counters.set_namespace(meta["name"], meta.get("labels") or {})

    def namespace_deleted(self, namespace: Obj) -> None:
        self._s.snapshot.counters.set_namespace(namespace["metadata"]["name"], None)

    def _object_handlers(
        self, kind: str
    ) -> tuple[Callable[[Obj], None], Callable[[Obj, Obj], None], Callable[[Obj], None]]:
        objects, queue = self._s.objects, self._s.queue
        tell = kind in TELLING

        def added(obj: Obj) -> None:
            objects.set(kind, obj)
            if tell:
                queue.happened(ClusterEvent(kind, Action.ADD), None, obj)

        def updated(old: Obj, new: Obj) -> None:
            objects.set(kind, new)
            if tell:
                queue.happened(ClusterEvent(kind, Action.UPDATE), old, new)

        def deleted(obj: Obj) -> None:
            objects.delete(kind, obj)
            if tell:
                queue.happened(ClusterEvent(kind, Action.DELETE), obj, None)

        return added, updated, deleted


def _slim_node(node: Obj) -> Obj:
    return without_managed_fields(node)


def node_changes(old: Obj, new: Obj) -> Action:
    """What of a node changed that the scheduler looks at; nothing for a heartbeat."""
    a, b = old.get("spec") or {}, new.get("spec") or {}
    x, y = old.get("status") or {}, new.get("status") or {}
    found = Action(0)
    if x.get("allocatable") != y.get("allocatable"):
        found |= Action.UPDATE_NODE_ALLOCATABLE
    if old["metadata"].get("labels") != new["metadata"].get("labels"):
        found |= Action.UPDATE_NODE_LABEL
    if a.get("taints") != b.get("taints") or bool(a.get("unschedulable")) != bool(b.get("unschedulable")):
        found |= Action.UPDATE_NODE_TAINT
    if _statuses(x) != _statuses(y):
        found |= Action.UPDATE_NODE_CONDITION
    if old["metadata"].get("annotations") != new["metadata"].get("annotations"):
        found |= Action.UPDATE_NODE_ANNOTATION
    if x.get("declaredFeatures") != y.get("declaredFeatures"):
        found |= Action.UPDATE_NODE_DECLARED_FEATURE
    if x.get("images") != y.get("images"):
        found |= Action.UPDATE_OTHER
    return found


def _statuses(status: Obj) -> dict[str, str]:
    return {c["type"]: c["status"] for c in status.get("conditions") or ()}


def pod_changes(old: Obj, new: Obj) -> Action:
    found = Action(0)
    if old["metadata"].get("labels") != new["metadata"].get("labels"):
        found |= Action.UPDATE_POD_LABEL
    if old["spec"].get("tolerations") != new["spec"].get("tolerations"):
        found |= Action.UPDATE_POD_TOLERATION
    if old["spec"].get("schedulingGates") and not new["spec"].get("schedulingGates"):
        found |= Action.UPDATE_POD_GATES
    if old["spec"] is not new["spec"] and _resources(old) != _resources(new):
        before, after = pod_requests(old), pod_requests(new)
        if any(after.get(k, 0) < n for k, n in before.items()):
            found |= Action.UPDATE_POD_SCALE_DOWN
    if (old.get("status") or {}).get("resourceClaimStatuses") != (new.get("status") or {}).get("resourceClaimStatuses"):
        found |= Action.UPDATE_OTHER
    return found


def _resources(pod: Obj) -> list[Any]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return [c.get("resources") for c in pod["spec"].get("containers") or ()] + [
        (s.get("resources"), s.get("allocatedResources")) for s in statuses
    ]


def _matters(old: Obj, new: Obj) -> bool:
    """Whether an update of a bound pod can change what it takes up. Most are the kubelet's reports."""
    a, b = old["metadata"], new["metadata"]
    return bool(
        a.get("labels") != b.get("labels")
        or bool(a.get("deletionTimestamp")) != bool(b.get("deletionTimestamp"))
        or old["spec"] != new["spec"]
        or _resources(old) != _resources(new)
    )
