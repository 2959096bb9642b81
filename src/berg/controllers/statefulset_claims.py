"""The claims of a StatefulSet's pods: made from the templates, owned as the retention policy says.

By default claims outlive everything. `whenDeleted: Delete` lets them go with the set, `whenScaled: Delete` with
the pod that a smaller set no longer has: the garbage collector follows the owner references put here.

Source: pkg/controller/statefulset/stateful_pod_control.go, KEP-1847.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from berg.controllers import statefulset_pods as identity
from berg.controllers.context import Context
from berg.controllers.objects import copied, replicas
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj


class ClaimControl:
    def __init__(self, ctx: Context, event: Callable[[Obj, str, str, str], Any]) -> None:
        self._client, self._event = ctx.client, event
        self.resource = resource("persistentvolumeclaims")
        self.claims = ctx.informer("persistentvolumeclaims")

    async def create_missing(self, s: Obj, pod: Obj) -> None:
        n = identity.ordinal(s, pod)
        for template in s["spec"].get("volumeClaimTemplates") or ():
            assert n is not None
            name = identity.claim_name(s, template, n)
            existing = self.claims.lister.get(meta.namespace(s), name)
            if existing is not None and not meta.is_deleting(existing):
                continue
            if existing is not None:
                raise ApiError(409, "Conflict", f"pvc {name} is being deleted")
            await self._create(s, pod, template, name)

    async def _create(self, s: Obj, pod: Obj, template: Obj, name: str) -> None:
        claim = copied({k: v for k, v in template.items() if k != "status"})
        labels = {**(claim["metadata"].get("labels") or {}), **(s["spec"]["selector"].get("matchLabels") or {})}
        claim["metadata"] = {
            **{k: v for k, v in claim["metadata"].items() if k == "annotations" and v},
            "name": name,
            "namespace": meta.namespace(s),
            "labels": labels,
        }
        refs = wanted_owners(s, pod, [])
        if refs:
            claim["metadata"]["ownerReferences"] = refs
        claim.update(apiVersion="v1", kind="PersistentVolumeClaim")
        what = f"Claim {name}"
        try:
            await self._client.create(self.resource, claim)
        except ApiError as e:
            if e.reason == "AlreadyExists":
                return
            text = f"Create {what} for Pod {meta.name(pod)} in StatefulSet {meta.name(s)} failed error: {e.message}"
            self._event(s, "Warning", "FailedCreate", text)
            raise
        text = f"Create {what} Pod {meta.name(pod)} in StatefulSet {meta.name(s)} success"
        self._event(s, "Normal", "SuccessfulCreate", text)

    async def own(self, s: Obj, pod: Obj) -> bool:
        """Puts the owner references that the policy asks for. Whether they were there already."""
        n = identity.ordinal(s, pod)
        settled = True
        for template in s["spec"].get("volumeClaimTemplates") or ():
            assert n is not None
            claim = self.claims.lister.get(meta.namespace(s), identity.claim_name(s, template, n))
            if claim is None:
                continue
            before = claim["metadata"].get("ownerReferences") or []
            after = wanted_owners(s, pod, before)
            if after != before:
                settled = False
                md = {**claim["metadata"], "ownerReferences": after}
                await self._client.update(self.resource, {**claim, "metadata": md})
        return settled


def wanted_owners(s: Obj, pod: Obj, refs: list[Obj]) -> list[Obj]:
    policy = s["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    with_set, with_scale = policy.get("whenDeleted") == "Delete", policy.get("whenScaled") == "Delete"
    if any(r.get("controller") and r["uid"] not in (meta.uid(s), meta.uid(pod)) for r in refs):
        return refs  # another controller's: not ours to decide
    n = identity.ordinal(s, pod)
    start = (s["spec"].get("ordinals") or {}).get("start", 0)
    scaled_down = n is not None and not 0 <= n - start < replicas(s)
    by_set = with_set and not (with_scale and scaled_down)
    by_pod = with_scale and scaled_down and bool(meta.uid(pod))
    rest = [r for r in refs if r["uid"] not in (meta.uid(s), meta.uid(pod) or None)]
    found = list(rest)
    if by_set:
        found.append(_ref("apps/v1", "StatefulSet", s))
    if by_pod:
        found.append(_ref("v1", "Pod", pod))
    same = {r["uid"] for r in found} == {r["uid"] for r in refs}
    return refs if same else found


def _ref(api_version: str, kind: str, obj: Obj) -> Obj:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": meta.name(obj),
        "uid": meta.uid(obj),
        "controller": True,
        "blockOwnerDeletion": True,
    }
