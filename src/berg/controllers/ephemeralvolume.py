"""Claims of generic ephemeral volumes: made for a pod, owned by it. Source: pkg/controller/volume/ephemeral."""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.controllers.objects import copied
from berg.controllers.ownership import api_ref
from berg.controllers.volumeprotection import BY_CLAIM, index_by_claim
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj


class EphemeralVolumeController(APIController):
    name = "ephemeral-volume-controller"
    component = "ephemeral_volume"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("persistentvolumeclaims")
        self.pods, self.claims = ctx.informer("pods"), ctx.informer("persistentvolumeclaims")
        index_by_claim(ctx)
        self.pods.add_handler(self._pod)
        self.claims.add_handler(None, None, self._claim_gone)

    def _pod(self, pod: Obj) -> None:
        if not meta.is_deleting(pod) and any("ephemeral" in v for v in pod["spec"].get("volumes") or ()):
            self.enqueue(pod)

    def _claim_gone(self, claim: Obj) -> None:
        for pod in self.pods.lister.by_index(BY_CLAIM, meta.key(claim)):
            self._pod(pod)

    async def reconcile(self, key: str) -> None:
        pod = self.pods.lister.get_key(key)
        if pod is None or meta.is_deleting(pod):
            return
        for volume in pod["spec"].get("volumes") or ():
            if "ephemeral" in volume:
                try:
                    await self._make(pod, volume)
                except ApiError as e:
                    text = f"ephemeral volume {volume['name']}: {e.message}"
                    self.event(pod, "Warning", "FailedBinding", text)
                    raise

    async def _make(self, pod: Obj, volume: Obj) -> None:
        name = f"{meta.name(pod)}-{volume['name']}"
        known = self.claims.lister.get(meta.namespace(pod), name)
        if known is not None:
            if not meta.is_controlled_by(known, pod):
                text = f"PVC {meta.key(known)} was not created for pod {meta.key(pod)} (pod is not owner)"
                raise ApiError(409, "Conflict", text)
            return
        template = volume["ephemeral"].get("volumeClaimTemplate") or {}
        md = template.get("metadata") or {}
        claim = {
            "metadata": {
                "name": name,
                "namespace": meta.namespace(pod),
                "labels": md.get("labels") or {},
                "annotations": md.get("annotations") or {},
                "ownerReferences": [api_ref(pod, resource("pods"))],
            },
            "spec": copied(template.get("spec") or {}),
        }
        await self.client.create(self.resource, claim)
