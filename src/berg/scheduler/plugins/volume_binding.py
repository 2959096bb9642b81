"""VolumeBinding: a pod goes where its claims' volumes can be reached, and claims that wait for their first consumer
are bound, or provisioned, for the node that was chosen.

PreFilter sorts the claims: bound ones, those that wait for a consumer, and unbound ones that should have been bound at
once (which reject the pod). Filter asks each node; Reserve remembers volumes promised to claims, so that two pods are
not given the same; PreBind writes the promises and waits until they are kept.

Source: plugins/volumebinding, KEP-1472 storage capacity.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from berg.machinery import quantity
from berg.machinery.resources import resource
from berg.machinery.status import ApiError
from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, PreBind, PreFilter, Reserve, Rows, Scope
from berg.scheduler.framework.status import Status, error, unresolvable
from berg.scheduler.plugins import claims as pvc
from berg.scheduler.state import nodeselector
from berg.scheduler.state.arrays import Bools
from berg.scheduler.state.podinfo import PodClass

Obj = dict[str, Any]
REASON_BIND = "node(s) didn't find available persistent volumes to bind"
REASON_NODE = "node(s) didn't match PersistentVolume's node affinity"
REASON_SPACE = "node(s) did not have enough free storage"
REASON_NO_VOLUME = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
_BITS = (REASON_NO_VOLUME, REASON_NODE, REASON_BIND, REASON_SPACE)
_NO_VOLUME, _NODE, _BIND, _SPACE = 1, 2, 4, 8


@dataclass(slots=True)
class _Claims:
    bound: list[Obj] = field(default_factory=list)
    waiting: list[Obj] = field(default_factory=list)
    static: list[tuple[Obj, Obj]] = field(default_factory=list)
    """(claim, volume) for the chosen node, after Reserve"""
    provision: list[Obj] = field(default_factory=list)


class VolumeBinding(PreFilter, Filter, Reserve, PreBind):
    name = "VolumeBinding"
    scope = Scope.CLUSTER

    def __init__(self, args: Obj, handle: Any) -> None:
        super().__init__(args, handle)
        self._timeout_s = args.get("bindTimeoutSeconds", 600)
        self._promised: dict[str, str] = {}
        """names of volumes reserved, with the claim (namespace/name) they are for"""

    def applies(self, cls: PodClass) -> bool:
        return any("persistentVolumeClaim" in v or "ephemeral" in v for v in cls.volumes)

    def pre_filter(self, cycle: Cycle) -> Status | None:
        if not cycle.cls.volumes or not self.applies(cycle.cls):
            return None
        found, fault = pvc.claims_of(cycle.pod, self.handle.objects)
        if fault:
            return unresolvable(fault)
        sorted_out = _Claims()
        for claim in found:
            if pvc.is_bound(claim):
                sorted_out.bound.append(claim)
            elif pvc.waits_for_consumer(claim, self.handle.objects) and not claim["spec"].get("volumeName"):
                sorted_out.waiting.append(claim)
            else:
                return unresolvable("pod has unbound immediate PersistentVolumeClaims")
        cycle.data[self.name] = sorted_out
        return None

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        claims: _Claims | None = cycle.data.get(self.name)
        if claims is None:
            return None
        codes = np.zeros(nodeselector.count_rows(cycle.snapshot, rows), dtype=np.int64)
        for claim in claims.bound:
            volume = self.handle.objects.get("PersistentVolume", "", claim["spec"]["volumeName"])
            if volume is None:
                codes |= _NO_VOLUME
            else:
                codes |= np.where(_reaches(cycle, volume, rows), 0, _NODE)
        self._filter_waiting(cycle, claims.waiting, rows, codes)
        return codes

    def _filter_waiting(self, cycle: Cycle, waiting: list[Obj], rows: Rows, codes: Ints) -> None:
        for claim in waiting:
            chosen = (claim["metadata"].get("annotations") or {}).get(pvc.SELECTED_NODE)
            if chosen:
                here = np.zeros(cycle.snapshot.capacity, dtype=np.bool_)
                if (row := cycle.snapshot.rows.get(chosen)) is not None:
                    here[row] = True
                codes |= np.where(here[rows], 0, _BIND)
                continue
            found = np.zeros(len(codes), dtype=np.bool_)
            for volume in self._free_volumes(claim):
                found |= _reaches(cycle, volume, rows)
            if found.all():
                continue
            provisionable, roomy = self._provisionable(cycle, claim, rows)
            codes |= np.where(found | provisionable, 0, _BIND)
            codes |= np.where(found | ~provisionable | roomy, 0, _SPACE)

    def _free_volumes(self, claim: Obj) -> list[Obj]:
        """Volumes that suit the claim and are not promised to another, the one made for it or the smallest first."""
        meta = claim["metadata"]
        me = f"{meta.get('namespace')}/{meta['name']}"
        found = [
            v
            for v in self.handle.objects.list("PersistentVolume")
            if self._promised.get(v["metadata"]["name"], me) == me and pvc.volume_suits(v, claim)
        ]
        return sorted(found, key=lambda v: (not v["spec"].get("claimRef"), pvc.capacity(v)))

    def _provisionable(self, cycle: Cycle, claim: Obj, rows: Rows) -> tuple[Bools, Bools]:
        """(where a volume may be made for the claim, where the driver says it has room)."""
        n = nodeselector.count_rows(cycle.snapshot, rows)
        everywhere = np.ones(n, dtype=np.bool_)
        cls = self.handle.objects.get("StorageClass", "", pvc.storage_class_name(claim))
        provisioner = (cls or {}).get("provisioner") or ""
        if cls is None or not provisioner or provisioner == pvc.NO_PROVISIONER:
            return ~everywhere, everywhere
        allowed = everywhere
        if topologies := cls.get("allowedTopologies"):
            allowed = np.zeros(n, dtype=np.bool_)
            for one in topologies:
                expressions = [
                    {"key": e["key"], "operator": "In", "values": e["values"]}
                    for e in one.get("matchLabelExpressions") or ()
                ]
                allowed |= nodeselector.term(cycle.snapshot, {"matchExpressions": expressions}, rows)
        return allowed, self._room(cycle, claim, cls, rows, everywhere)

    def _room(self, cycle: Cycle, claim: Obj, cls: Obj, rows: Rows, everywhere: Bools) -> Bools:
        driver = self.handle.objects.get("CSIDriver", "", cls["provisioner"])
        if driver is None or not driver["spec"].get("storageCapacity"):
            return everywhere
        asked = quantity.value(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0"))
        room = np.zeros(len(everywhere), dtype=np.bool_)
        for c in self.handle.objects.list("CSIStorageCapacity"):
            if c.get("storageClassName") != cls["metadata"]["name"] or not (topology := c.get("nodeTopology")):
                continue
            limit = c.get("maximumVolumeSize") or c.get("capacity")
            if limit is None or quantity.value(limit) < asked:
                continue
            expressions = [
                *({"key": k, "operator": "In", "values": [v]} for k, v in (topology.get("matchLabels") or {}).items()),
                *(topology.get("matchExpressions") or ()),
            ]
            if not expressions:
                return everywhere
            room |= nodeselector.term(cycle.snapshot, {"matchExpressions": expressions}, rows)
        return room

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unresolvable(*(reason for i, reason in enumerate(_BITS) if code >> i & 1))

    def reserve(self, cycle: Cycle, node: str) -> Status | None:
        claims: _Claims | None = cycle.data.get(self.name)
        if claims is None or not claims.waiting:
            return None
        row = np.array([cycle.snapshot.rows[node]], dtype=np.intp)
        taken: set[str] = set()
        for claim in claims.waiting:
            meta = claim["metadata"]
            for volume in self._free_volumes(claim):
                name = volume["metadata"]["name"]
                if name not in taken and bool(_reaches(cycle, volume, row)[0]):
                    taken.add(name)
                    self._promised[name] = f"{meta.get('namespace')}/{meta['name']}"
                    claims.static.append((claim, volume))
                    break
            else:
                claims.provision.append(claim)
        return None

    def unreserve(self, cycle: Cycle, node: str) -> None:
        claims: _Claims | None = cycle.data.get(self.name)
        if claims is not None:
            for _, volume in claims.static:
                self._promised.pop(volume["metadata"]["name"], None)
            claims.static, claims.provision = [], []

    def pre_bind_needed(self, cycle: Cycle) -> bool:
        claims: _Claims | None = cycle.data.get(self.name)
        return claims is not None and bool(claims.static or claims.provision)

    async def pre_bind(self, cycle: Cycle, node: str) -> Status | None:
        claims: _Claims = cycle.data[self.name]
        client = self.handle.client
        try:
            for claim, volume in claims.static:
                meta = claim["metadata"]
                ref = {
                    "kind": "PersistentVolumeClaim",
                    "apiVersion": "v1",
                    "namespace": meta.get("namespace"),
                    "name": meta["name"],
                    "uid": meta.get("uid"),
                    "resourceVersion": meta.get("resourceVersion"),
                }
                change: Obj = {"spec": {"claimRef": ref}}
                if not volume["spec"].get("claimRef"):
                    change["metadata"] = {"annotations": {BOUND: "yes"}}
                change.setdefault("metadata", {})["resourceVersion"] = volume["metadata"].get("resourceVersion")
                await client.patch(resource("persistentvolumes"), None, volume["metadata"]["name"], change)
            for claim in claims.provision:
                meta = claim["metadata"]
                change = {"metadata": {"annotations": {pvc.SELECTED_NODE: node}}}
                await client.patch(resource("persistentvolumeclaims"), meta.get("namespace"), meta["name"], change)
        except ApiError as e:
            return error(e.message)
        return await self._until_bound(cycle, claims, node)

    async def _until_bound(self, cycle: Cycle, claims: _Claims, node: str) -> Status | None:
        wanted = [c["metadata"]["name"] for c, _ in claims.static] + [c["metadata"]["name"] for c in claims.provision]
        deadline = self.handle.clock.monotonic() + self._timeout_s
        while True:
            now = [self.handle.objects.get("PersistentVolumeClaim", cycle.pod.namespace, n) for n in wanted]
            if all(c is not None and pvc.is_bound(c) for c in now):
                for _, volume in claims.static:
                    self._promised.pop(volume["metadata"]["name"], None)
                return None
            for name, claim in zip(wanted, now, strict=True):
                if claim is None or claim["metadata"].get("deletionTimestamp"):
                    return error(f'binding volumes: persistentvolumeclaim "{name}" not found')
                selected = (claim["metadata"].get("annotations") or {}).get(pvc.SELECTED_NODE)
                provisioned = any(c["metadata"]["name"] == name for c in claims.provision)
                if provisioned and selected is None and not pvc.is_bound(claim):
                    # the provisioner could not make it there, and asks for another node
                    return error(f'binding volumes: selectedNode annotation reset for PVC "{name}"')
            left = deadline - self.handle.clock.monotonic()
            if left <= 0:
                return error("binding volumes: context deadline exceeded")
            await self._next_change(left)

    async def _next_change(self, timeout_s: float) -> None:
        changed = asyncio.ensure_future(self.handle.changed("PersistentVolumeClaim"))
        slept = asyncio.ensure_future(self.handle.clock.sleep(timeout_s))
        try:
            await asyncio.wait({changed, slept}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            slept.cancel()

    def events(self) -> list[EventWithHint]:
        return [
            on("StorageClass", Action.ADD | Action.UPDATE),
            on("PersistentVolumeClaim", Action.ADD | Action.UPDATE, _same_namespace),
            on("PersistentVolume", Action.ADD | Action.UPDATE),
            on("Node", Action.ADD | Action.UPDATE_NODE_LABEL),
            on("CSINode", Action.ADD | Action.UPDATE),
            on("CSIDriver", Action.UPDATE),
            on("CSIStorageCapacity", Action.ADD | Action.UPDATE),
        ]


BOUND = pvc.BOUND_BY_CONTROLLER


def _same_namespace(pod: Any, old: Any, new: Any) -> bool:
    return new is not None and new["metadata"].get("namespace") == pod.namespace


def _reaches(cycle: Cycle, volume: Obj, rows: Rows) -> Bools:
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    if required is None:
        return np.ones(nodeselector.count_rows(cycle.snapshot, rows), dtype=np.bool_)
    return nodeselector.node_selector(cycle.snapshot, required, rows)
