"""VolumeZone: a bound volume's zone and region labels must be the node's.

Source: plugins/volumezone/volume_zone.go.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, PreFilter, Rows, Scope
from berg.scheduler.framework.status import Status, unresolvable
from berg.scheduler.plugins import claims as pvc
from berg.scheduler.state import nodeselector
from berg.scheduler.state.podinfo import PodClass

Obj = dict[str, Any]
REASON = "node(s) had no available volume zone"
_STABLE = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
}
KEYS = (*_STABLE, *_STABLE.values())


class VolumeZone(PreFilter, Filter):
    name = "VolumeZone"
    scope = Scope.CLUSTER

    def applies(self, cls: PodClass) -> bool:
        return any("persistentVolumeClaim" in v or "ephemeral" in v for v in cls.volumes)

    def pre_filter(self, cycle: Cycle) -> Status | None:
        if not cycle.cls.volumes or not self.applies(cycle.cls):
            return None
        found, fault = pvc.claims_of(cycle.pod, self.handle.objects)
        if fault:
            return unresolvable(fault)
        wanted: list[tuple[str, frozenset[str]]] = []
        for claim in found:
            name = claim["spec"].get("volumeName")
            if not name:
                if not pvc.storage_class_name(claim):
                    return unresolvable("PersistentVolumeClaim had no pv name and storageClass name")
                continue
            volume = self.handle.objects.get("PersistentVolume", "", name)
            if volume is not None:
                labels = volume["metadata"].get("labels") or {}
                wanted += [(k, frozenset(labels[k].split("__"))) for k in KEYS if k in labels]
        cycle.data[self.name] = wanted
        return None

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        wanted = cycle.data.get(self.name)
        if not wanted:
            return None
        snapshot = cycle.snapshot
        bad = np.zeros(nodeselector.count_rows(snapshot, rows), dtype=np.bool_)
        placed = np.zeros(len(bad), dtype=np.bool_)  # nodes without any such label belong to no zone: they pass
        for key in KEYS:
            placed |= snapshot.label(key).ids[rows] >= 0
        for key, values in wanted:
            hit = np.zeros(len(bad), dtype=np.bool_)
            for k in {key, _STABLE.get(key, key)}:
                hit |= nodeselector.requirement(snapshot, {"key": k, "operator": "In", "values": sorted(values)}, rows)
            bad |= ~hit
        return (bad & placed).astype(np.int64)

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unresolvable(REASON)

    def events(self) -> list[EventWithHint]:
        return [
            on("StorageClass", Action.ADD),
            on("Node", Action.ADD | Action.UPDATE_NODE_LABEL),
            on(
                "PersistentVolumeClaim",
                Action.ADD | Action.UPDATE,
                lambda pod, _, new: new is not None and new["metadata"].get("namespace") == pod.namespace,
            ),
            on("PersistentVolume", Action.ADD | Action.UPDATE),
        ]
