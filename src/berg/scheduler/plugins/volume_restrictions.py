"""VolumeRestrictions: disks that only one pod may mount, and claims that only one pod may use.

Source: plugins/volumerestrictions/volume_restrictions.go.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, PreFilter, Rows, Scope
from berg.scheduler.framework.status import Status, unresolvable, unschedulable
from berg.scheduler.plugins import claims as pvc
from berg.scheduler.state.podinfo import PodClass, PodInfo

Obj = dict[str, Any]
REASON_DISK = "node(s) had no available disk"
REASON_ONCE = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)
_DISK, _ONCE = 1, 2
_DISKS = ("gcePersistentDisk", "awsElasticBlockStore", "iscsi", "rbd")


class VolumeRestrictions(PreFilter, Filter):
    name = "VolumeRestrictions"
    scope = Scope.CLUSTER

    def applies(self, cls: PodClass) -> bool:
        return any(k in v for v in cls.volumes for k in (*_DISKS, "persistentVolumeClaim"))

    def pre_filter(self, cycle: Cycle) -> Status | None:
        if not cycle.cls.volumes or not self.applies(cycle.cls):
            return None
        once: set[str] = set()
        for v in cycle.cls.volumes:
            if name := (v.get("persistentVolumeClaim") or {}).get("claimName"):
                claim = self.handle.objects.get("PersistentVolumeClaim", cycle.pod.namespace, name)
                if claim is None:
                    return unresolvable(f'persistentvolumeclaim "{name}" not found')
                if "ReadWriteOncePod" in (claim["spec"].get("accessModes") or ()):
                    once.add(name)
        cycle.data[self.name] = once
        return None

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        snapshot = cycle.snapshot
        codes = np.zeros(snapshot.capacity, dtype=np.int64)
        mine = [v for v in cycle.cls.volumes if any(k in v for k in _DISKS)]
        once: set[str] = cycle.data.get(self.name) or set()
        if not mine and not once:
            return None
        for pod in snapshot.where.values():
            if not pod.cls.volumes:
                continue
            row = snapshot.rows.get(pod.node)
            uses_it = once and pod.namespace == cycle.pod.namespace and once & {n for n, _ in pvc.claim_names(pod)}
            if uses_it and row is not None:  # taken for every node: the claim is for one pod in the cluster
                codes[:] = np.where(codes == 0, _ONCE, codes)
            if row is not None and any(_conflict(a, b) for a in mine for b in pod.cls.volumes):
                codes[row] = _DISK
        return codes[rows]

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unschedulable(REASON_DISK if code == _DISK else REASON_ONCE)

    def events(self) -> list[EventWithHint]:
        return [
            on("AssignedPod", Action.DELETE, _frees_volume),
            on("Node", Action.ADD),
            on("PersistentVolumeClaim", Action.ADD | Action.UPDATE),
        ]


def _frees_volume(pod: PodInfo, old: Any, new: Any) -> bool:
    return old is not None and bool(old["spec"].get("volumes"))


def _conflict(a: Obj, b: Obj) -> bool:
    """Two volumes of different pods that cannot be on one node."""
    for kind in _DISKS:
        x, y = a.get(kind), b.get(kind)
        if not x or not y:
            continue
        match kind:
            case "gcePersistentDisk":
                return x["pdName"] == y["pdName"] and not (x.get("readOnly") and y.get("readOnly"))
            case "awsElasticBlockStore":
                return bool(x["volumeID"] == y["volumeID"])
            case "iscsi":
                return x["iqn"] == y["iqn"] and not (x.get("readOnly") and y.get("readOnly"))
            case "rbd":
                same = (
                    set(x.get("monitors") or ()) & set(y.get("monitors") or ())
                    and (x.get("pool") or "rbd") == (y.get("pool") or "rbd")
                    and x["image"] == y["image"]
                )
                return bool(same) and not (x.get("readOnly") and y.get("readOnly"))
    return False
