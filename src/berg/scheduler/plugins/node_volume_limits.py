"""NodeVolumeLimits: no more CSI volumes on a node than its driver allows (CSINode `allocatable.count`).

Source: plugins/nodevolumelimits/csi.go.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, Rows, Scope
from berg.scheduler.framework.status import Status, unschedulable
from berg.scheduler.plugins import claims as pvc
from berg.scheduler.state.podinfo import PodClass, PodInfo

Obj = dict[str, Any]
REASON = "node(s) exceed max volume count"


class NodeVolumeLimits(Filter):
    name = "NodeVolumeLimits"
    scope = Scope.CLUSTER

    def applies(self, cls: PodClass) -> bool:
        return any(k in v for v in cls.volumes for k in ("persistentVolumeClaim", "ephemeral", "csi"))

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        wanted = self._volumes(cycle.pod)
        if not wanted:
            return None
        snapshot = cycle.snapshot
        codes = np.zeros(snapshot.capacity, dtype=np.int64)
        for csinode in self.handle.objects.list("CSINode"):
            row = snapshot.rows.get(csinode["metadata"]["name"])
            if row is None:
                continue
            limits = {
                d["name"]: d["allocatable"]["count"]
                for d in csinode["spec"].get("drivers") or ()
                if (d.get("allocatable") or {}).get("count") is not None
            }
            if not limits:
                continue
            attached: set[tuple[str, str]] = set()
            for pod in snapshot.pods[row].values():
                if pod.cls.volumes:
                    attached |= self._volumes(pod)
            for driver, limit in limits.items():
                new = {v for v in wanted - attached if v[0] == driver}
                if new and len({v for v in attached if v[0] == driver}) + len(new) > limit:
                    codes[row] = 1
        return codes[rows]

    def _volumes(self, pod: PodInfo) -> set[tuple[str, str]]:
        """(driver, handle) of what must be attached for the pod; claims not bound yet count by their name."""
        found: set[tuple[str, str]] = set()
        objects = self.handle.objects
        for name, _ in pvc.claim_names(pod):
            claim = objects.get("PersistentVolumeClaim", pod.namespace, name)
            if claim is None:
                continue
            volume = objects.get("PersistentVolume", "", claim["spec"].get("volumeName") or "")
            if volume is not None:
                if csi := volume["spec"].get("csi"):
                    found.add((csi["driver"], csi["volumeHandle"]))
            elif cls := objects.get("StorageClass", "", pvc.storage_class_name(claim)):
                found.add((cls.get("provisioner") or "", f"{pod.namespace}/{name}"))
        return found

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unschedulable(REASON)

    def events(self) -> list[EventWithHint]:
        return [
            on("CSINode", Action.ADD | Action.UPDATE),
            on("AssignedPod", Action.DELETE),
            on("PersistentVolumeClaim", Action.ADD | Action.UPDATE),
            on("VolumeAttachment", Action.DELETE),
        ]
