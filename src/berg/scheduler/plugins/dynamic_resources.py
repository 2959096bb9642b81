"""DynamicResources: a pod goes where its resource claims' devices are, and the claims are reserved for it.

Claims that are allocated (by whoever did it) are honoured: their node selector, and that they are for one consumer at
a time unless shared. Differs from upstream: claims that are not allocated yet are not allocated here, so a pod with
such a claim is told that it cannot be placed, and waits until the claim changes.

Source: plugins/dynamicresources, KEP-4381.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.machinery.resources import resource
from berg.machinery.status import ApiError
from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, PreBind, PreEnqueue, PreFilter, Rows, Scope
from berg.scheduler.framework.status import Status, error, unresolvable
from berg.scheduler.state import nodeselector
from berg.scheduler.state.podinfo import PodClass, PodInfo

Obj = dict[str, Any]
MAX_CONSUMERS = 256
REASON_UNALLOCATED = "cannot allocate all claims"
REASON_ELSEWHERE = "resourceclaim not available on the node"
_UNALLOCATED, _ELSEWHERE = 1, 2


class DynamicResources(PreEnqueue, PreFilter, Filter, PreBind):
    name = "DynamicResources"
    scope = Scope.CLUSTER

    def pre_enqueue(self, pod: PodInfo) -> Status | None:
        if not pod.cls.resource_claims:
            return None
        fault = self._claims(pod)[1]
        return unresolvable(fault) if fault else None

    def pre_filter(self, cycle: Cycle) -> Status | None:
        if not cycle.cls.resource_claims:
            return None
        claims, fault = self._claims(cycle.pod)
        if fault:
            return unresolvable(fault)
        for claim in claims:
            users = (claim.get("status") or {}).get("reservedFor") or ()
            if len(users) >= MAX_CONSUMERS and not _reserved_for(claim, cycle.pod):
                return unresolvable("resourceclaim in use")
        cycle.data[self.name] = claims
        return None

    def applies(self, cls: PodClass) -> bool:
        return bool(cls.resource_claims)

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        codes = np.zeros(nodeselector.count_rows(cycle.snapshot, rows), dtype=np.int64)
        for claim in cycle.data.get(self.name) or ():
            allocation = (claim.get("status") or {}).get("allocation")
            if allocation is None:
                codes[:] = _UNALLOCATED
            elif (selector := allocation.get("nodeSelector")) is not None:
                codes[~nodeselector.node_selector(cycle.snapshot, selector, rows) & (codes == 0)] = _ELSEWHERE
        return codes

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unresolvable(REASON_UNALLOCATED if code == _UNALLOCATED else REASON_ELSEWHERE)

    def pre_bind_needed(self, cycle: Cycle) -> bool:
        return any(not _reserved_for(c, cycle.pod) for c in cycle.data.get(self.name) or ())

    async def pre_bind(self, cycle: Cycle, node: str) -> Status | None:
        pod = cycle.pod
        me = {"resource": "pods", "name": pod.name, "uid": pod.obj["metadata"].get("uid", "")}
        for claim in cycle.data[self.name]:
            if _reserved_for(claim, pod):
                continue
            meta, users = claim["metadata"], (claim.get("status") or {}).get("reservedFor") or []
            patch = {
                "metadata": {"resourceVersion": meta.get("resourceVersion")},
                "status": {"reservedFor": [*users, me]},
            }
            try:
                await self.handle.client.patch(
                    resource("resourceclaims.resource.k8s.io"),
                    meta.get("namespace"),
                    meta["name"],
                    patch,
                    subresource="status",
                )
            except ApiError as e:
                return error(e.message)
        return None

    def _claims(self, pod: PodInfo) -> tuple[list[Obj], str]:
        """(claims, fault)"""
        made = {
            s["name"]: s.get("resourceClaimName")
            for s in (pod.obj.get("status") or {}).get("resourceClaimStatuses") or ()
        }
        found: list[Obj] = []
        for ref in pod.cls.resource_claims:
            name = ref.get("resourceClaimName")
            if name is None:
                if ref["name"] not in made:
                    return [], f'pod "{pod.key}": waiting for the claim of "{ref["name"]}" to be created'
                name = made[ref["name"]]
                if name is None:  # none was needed
                    continue
            claim = self.handle.objects.get("ResourceClaim", pod.namespace, name)
            if claim is None:
                return [], f'resourceclaim.resource.k8s.io "{name}" not found'
            if claim["metadata"].get("deletionTimestamp"):
                return [], f'resourceclaim "{name}" is being deleted'
            found.append(claim)
        return found, ""

    def events(self) -> list[EventWithHint]:
        return [
            on("ResourceClaim", Action.ADD | Action.UPDATE, _same_namespace),
            on("UnscheduledPod", Action.UPDATE, lambda pod, _, new: _is(pod, new)),
            on("Node", Action.ADD | Action.UPDATE_NODE_LABEL),
        ]


def _reserved_for(claim: Obj, pod: PodInfo) -> bool:
    users = (claim.get("status") or {}).get("reservedFor") or ()
    return any(u.get("uid") == pod.obj["metadata"].get("uid") for u in users)


def _same_namespace(pod: PodInfo, old: Any, new: Any) -> bool:
    return new is not None and new["metadata"].get("namespace") == pod.namespace


def _is(pod: PodInfo, new: Any) -> bool:
    return new is not None and new["metadata"].get("uid") == pod.uid
