"""Claims, volumes and attribute classes in use are not deleted: a finalizer holds them until no one uses them.

Source: pkg/controller/volume/{pvcprotection,pvprotection,vacprotection}.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.controllers.pods import is_finished
from berg.machinery import meta
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj

BY_CLAIM = "claim"


def claim_names(pod: Obj) -> list[str]:
    """The claims that a pod uses, those of its ephemeral volumes too."""
    found = []
    for v in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in v:
            found.append(v["persistentVolumeClaim"]["claimName"])
        elif "ephemeral" in v:
            found.append(f"{meta.name(pod)}-{v['name']}")
    return found


def index_by_claim(ctx: Context) -> None:
    ctx.informer("pods").add_index(BY_CLAIM, lambda p: [f"{meta.namespace(p)}/{c}" for c in claim_names(p)])


class _Protection(APIController):
    """Subclasses say what the finalizer is and whether an object is in use."""

    resource_name = ""
    finalizer = ""

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource: Resource = resource(self.resource_name)
        self.objects = ctx.informer(self.resource_name)
        self.follow(self.objects)

    async def in_use(self, obj: Obj) -> bool:
        raise NotImplementedError

    async def reconcile(self, key: str) -> None:
        obj = self.objects.lister.get_key(key)
        if obj is None:
            return
        finalizers: list[str] = obj["metadata"].get("finalizers") or []
        held = self.finalizer in finalizers
        if meta.is_deleting(obj):
            if held and not await self.in_use(obj):
                await self._put(obj, [f for f in finalizers if f != self.finalizer])
        elif not held:
            await self._put(obj, [*finalizers, self.finalizer])

    async def _put(self, obj: Obj, finalizers: list[str]) -> None:
        try:
            await self.client.update(self.resource, {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}})
        except ApiError as e:
            if e.code != 404:
                raise


class ClaimProtection(_Protection):
    name = "persistentvolumeclaim-protection-controller"
    resource_name = "persistentvolumeclaims"
    finalizer = "kubernetes.io/pvc-protection"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.pods = ctx.informer("pods")
        index_by_claim(ctx)
        self.pods.add_handler(None, self._pod_changed, self._pod)

    def _pod(self, pod: Obj) -> None:
        for name in claim_names(pod):
            self.queue.add(f"{meta.namespace(pod)}/{name}")

    def _pod_changed(self, old: Obj, new: Obj) -> None:
        if is_finished(new) and not is_finished(old):
            self._pod(new)

    async def in_use(self, obj: Obj) -> bool:
        if any(self._uses(p) for p in self.pods.lister.by_index(BY_CLAIM, meta.key(obj))):
            return True
        # The informer may not know the newest pod; this is asked only for a claim that is about to go.
        fresh = await self.client.list(resource("pods"), meta.namespace(obj))
        return any(meta.name(obj) in claim_names(p) and self._uses(p) for p in fresh.get("items") or ())

    def _uses(self, pod: Obj) -> bool:
        return bool(pod["spec"].get("nodeName")) and not is_finished(pod)


class VolumeProtection(_Protection):
    name = "persistentvolume-protection-controller"
    resource_name = "persistentvolumes"
    finalizer = "kubernetes.io/pv-protection"

    async def in_use(self, obj: Obj) -> bool:
        return (obj.get("status") or {}).get("phase") == "Bound"


class AttributesClassProtection(_Protection):
    name = "volumeattributesclass-protection-controller"
    resource_name = "volumeattributesclasses.storage.k8s.io"
    finalizer = "kubernetes.io/vac-protection"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.claims, self.volumes = ctx.informer("persistentvolumeclaims"), ctx.informer("persistentvolumes")
        for informer in (self.claims, self.volumes):
            informer.add_handler(None, lambda old, new: self._user(old), self._user)

    def _names(self, obj: Obj) -> set[str]:
        status = obj.get("status") or {}
        return {
            obj["spec"].get("volumeAttributesClassName"),
            status.get("currentVolumeAttributesClassName"),
            (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
        } - {None, ""}

    def _user(self, obj: Obj) -> None:
        for name in self._names(obj):
            self.queue.add(name)

    async def in_use(self, obj: Obj) -> bool:
        name = meta.name(obj)
        return any(name in self._names(o) for i in (self.claims, self.volumes) for o in i.lister)
