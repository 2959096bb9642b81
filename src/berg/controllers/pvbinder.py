"""Binding of claims to volumes, both ways, and what becomes of volumes whose claim is gone.

Binding is four writes in this order: the volume's claimRef, its phase, the claim's volumeName, its phase; each is
safe to be the last one, since every pass goes on from what the two objects say. The volume's claimRef decides.

Volumes are made and deleted by external provisioners; this only asks for them by annotations. Which volume suits
a claim is in pvmatch.py.

Source: pkg/controller/volume/persistentvolume/pv_controller.go.
"""

from __future__ import annotations

from berg.controllers import pvmatch
from berg.controllers.context import APIController, Context
from berg.controllers.objects import by_age
from berg.controllers.volumeprotection import BY_CLAIM, index_by_claim
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
BETA_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
NO_PROVISIONER = "kubernetes.io/no-provisioner"


class PersistentVolumeBinder(APIController):
    name = "persistentvolume-binder-controller"
    component = "persistentvolume-controller"
    workers = 1  # one at a time: two claims must not choose the same volume

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.claim_resource, self.volume_resource = resource("persistentvolumeclaims"), resource("persistentvolumes")
        self.claims, self.volumes = ctx.informer("persistentvolumeclaims"), ctx.informer("persistentvolumes")
        self.classes, self.pods = ctx.informer("storageclasses.storage.k8s.io"), ctx.informer("pods")
        index_by_claim(ctx)
        self.volume_queue = self.add_loop(self.sync_volume, workers=1)
        self._taken: dict[str, str] = {}
        """volume → claim UID, for binds that the informer has not shown yet"""
        self.claims.add_handler(self._claim, self._claim_changed, self._claim)
        self.volumes.add_handler(self._volume, lambda old, new: self._volume(new), self._volume_gone)
        self.classes.add_handler(lambda c: self._pending(), lambda old, new: self._pending())
        self.pods.add_handler(self._pod, lambda old, new: self._pod(new))

    # -- events

    def _claim(self, claim: Obj) -> None:
        self.enqueue(claim)
        if name := claim["spec"].get("volumeName"):
            self.volume_queue.add(name)

    def _claim_changed(self, old: Obj, new: Obj) -> None:
        self._claim(new)

    def _volume(self, volume: Obj) -> None:
        self.volume_queue.add(meta.name(volume))
        ref = volume["spec"].get("claimRef")
        if ref is None:
            self._pending()
        else:
            self._taken.pop(meta.name(volume), None)
            self.queue.add(f"{ref.get('namespace', '')}/{ref['name']}")

    def _volume_gone(self, volume: Obj) -> None:
        self._taken.pop(meta.name(volume), None)
        self._volume(volume)

    def _pending(self) -> None:
        for claim in self.claims.lister:
            if (claim.get("status") or {}).get("phase") != "Bound":
                self.enqueue(claim)

    def _pod(self, pod: Obj) -> None:
        for v in pod["spec"].get("volumes") or ():
            if "persistentVolumeClaim" in v:
                claim = self.claims.lister.get(meta.namespace(pod), v["persistentVolumeClaim"]["claimName"])
                if claim is not None and (claim.get("status") or {}).get("phase") != "Bound":
                    self.enqueue(claim)

    # -- claims

    async def reconcile(self, key: str) -> None:
        claim = self.claims.lister.get_key(key)
        if claim is None:
            for volume in self.volumes.lister:
                ref = volume["spec"].get("claimRef")
                if ref is not None and f"{ref.get('namespace')}/{ref['name']}" == key:
                    self.volume_queue.add(meta.name(volume))
            return
        if BIND_COMPLETED in meta.annotations(claim):
            await self._sync_bound(claim)
        elif claim["spec"].get("volumeName"):
            await self._sync_requested(claim, claim["spec"]["volumeName"])
        else:
            await self._sync_unbound(claim)

    async def _sync_unbound(self, claim: Obj) -> None:
        storage_class = self.classes.lister.get(None, pvmatch.class_of(claim))
        delayed = storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"
        volume = self._match(claim, delayed)
        if volume is not None:
            await self._bind(volume, claim)
            return
        if await self._assign_default_class(claim):
            return
        if delayed and SELECTED_NODE not in meta.annotations(claim):
            self._tell_waiting(claim)
        elif pvmatch.class_of(claim):
            await self._provision(claim, storage_class)
        else:
            text = "no persistent volumes available for this claim and no storage class is set"
            self.event(claim, "Normal", "FailedBinding", text)
        await self._claim_phase(claim, "Pending")

    def _match(self, claim: Obj, delayed: bool) -> Obj | None:
        free: list[Obj] = []
        for volume in self.volumes.lister:
            ref = volume["spec"].get("claimRef")
            taken = self._taken.get(meta.name(volume), meta.uid(claim)) != meta.uid(claim)
            if pvmatch.is_bound_to(volume, claim):
                if not pvmatch.fault(volume, claim):
                    return volume
            elif ref is None and not delayed and not taken:
                free.append(volume)
        return pvmatch.smallest(free, claim)

    def _tell_waiting(self, claim: Obj) -> None:
        pods = [p for p in self.pods.lister.by_index(BY_CLAIM, meta.key(claim)) if not p["spec"].get("nodeName")]
        names = [meta.name(p) for p in sorted(pods, key=by_age)]
        if not names:
            text = "waiting for first consumer to be created before binding"
            self.event(claim, "Normal", "WaitForFirstConsumer", text)
        else:
            which = f"pod {names[0]}" if len(names) == 1 else f"pods {','.join(names)}"
            self.event(claim, "Normal", "WaitForPodScheduled", f"waiting for {which} to be scheduled")

    async def _assign_default_class(self, claim: Obj) -> bool:
        """A claim made before there was a default class gets it now."""
        if claim["spec"].get("storageClassName") is not None or pvmatch.CLASS in meta.annotations(claim):
            return False
        defaults = [c for c in self.classes.lister if meta.annotations(c).get(DEFAULT_CLASS) == "true"]
        if not defaults:
            return False
        chosen = max(defaults, key=by_age)
        spec = {**claim["spec"], "storageClassName": meta.name(chosen)}
        await self.client.update(self.claim_resource, {**claim, "spec": spec})
        return True

    async def _provision(self, claim: Obj, storage_class: Obj | None) -> None:
        if storage_class is None:
            text = f'storageclass.storage.k8s.io "{pvmatch.class_of(claim)}" not found'
            self.event(claim, "Warning", "ProvisioningFailed", text)
            return
        provisioner = storage_class["provisioner"]
        if provisioner == NO_PROVISIONER:
            return
        annotations = meta.annotations(claim)
        if annotations.get(PROVISIONER) != provisioner or annotations.get(BETA_PROVISIONER) != provisioner:
            wanted = {**annotations, PROVISIONER: provisioner, BETA_PROVISIONER: provisioner}
            md = {**claim["metadata"], "annotations": wanted}
            await self.client.update(self.claim_resource, {**claim, "metadata": md})
        text = (
            f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by "
            "the system administrator. If volume creation is delayed, please verify that the provisioner is running "
            "and correctly registered."
        )
        self.event(claim, "Normal", "ExternalProvisioning", text)

    async def _sync_requested(self, claim: Obj, name: str) -> None:
        """The user asked for one volume."""
        volume = self.volumes.lister.get(None, name)
        if volume is None:
            await self._claim_phase(claim, "Pending")
        elif volume["spec"].get("claimRef") is None:
            if why := pvmatch.fault(volume, claim):
                text = f'Cannot bind to requested volume "{name}": {why}'
                self.event(claim, "Warning", "VolumeMismatch", text)
                await self._claim_phase(claim, "Pending")
            else:
                await self._bind(volume, claim)
        elif pvmatch.is_bound_to(volume, claim):
            await self._bind(volume, claim)
        else:
            text = f'volume "{name}" already bound to a different claim.'
            self.event(claim, "Warning", "FailedBinding", text)
            await self._claim_phase(claim, "Pending")

    async def _sync_bound(self, claim: Obj) -> None:
        name = claim["spec"].get("volumeName")
        volume = self.volumes.lister.get(None, name) if name else None
        if not name:
            text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
            await self._lose(claim, "ClaimLost", text)
        elif volume is None:
            text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            await self._lose(claim, "ClaimLost", text)
        elif volume["spec"].get("claimRef") is None or pvmatch.is_bound_to(volume, claim):
            await self._bind(volume, claim)
        else:
            text = "Two claims are bound to the same volume, this one is bound incorrectly"
            await self._lose(claim, "ClaimMisbound", text)

    async def _lose(self, claim: Obj, reason: str, message: str) -> None:
        if (claim.get("status") or {}).get("phase") != "Lost":
            await self._claim_phase(claim, "Lost")
            self.event(claim, "Warning", reason, message)

    # -- the bind

    async def _bind(self, volume: Obj, claim: Obj) -> None:
        ref = volume["spec"].get("claimRef")
        if ref is None or ref.get("uid") != meta.uid(claim):
            md = dict(volume["metadata"])
            if ref is None:
                md["annotations"] = {**meta.annotations(volume), BOUND_BY_CONTROLLER: "yes"}
            claim_ref = {
                "kind": "PersistentVolumeClaim",
                "namespace": meta.namespace(claim),
                "name": meta.name(claim),
                "uid": meta.uid(claim),
                "apiVersion": "v1",
                "resourceVersion": claim["metadata"]["resourceVersion"],
            }
            spec = {**volume["spec"], "claimRef": claim_ref}
            volume = await self.client.update(self.volume_resource, {**volume, "metadata": md, "spec": spec})
            self._taken[meta.name(volume)] = meta.uid(claim)
        await self._volume_phase(volume, "Bound")
        annotations = meta.annotations(claim)
        wanted = {**annotations, BIND_COMPLETED: "yes"}
        if not claim["spec"].get("volumeName"):
            wanted[BOUND_BY_CONTROLLER] = "yes"
        if claim["spec"].get("volumeName") != meta.name(volume) or annotations != wanted:
            md = {**claim["metadata"], "annotations": wanted}
            spec = {**claim["spec"], "volumeName": meta.name(volume)}
            claim = await self.client.update(self.claim_resource, {**claim, "metadata": md, "spec": spec})
        await self._claim_phase(claim, "Bound", volume)

    async def _claim_phase(self, claim: Obj, phase: str, volume: Obj | None = None) -> None:
        old = claim.get("status") or {}
        status: Obj = {**old, "phase": phase}
        if volume is not None:
            status["accessModes"] = volume["spec"].get("accessModes") or []
            if "capacity" not in old or old.get("phase") != "Bound":
                status["capacity"] = {"storage": volume["spec"]["capacity"]["storage"]}
            if (vac := volume["spec"].get("volumeAttributesClassName")) is not None:
                status["currentVolumeAttributesClassName"] = vac
        else:
            for field in ("accessModes", "capacity"):
                status.pop(field, None)
        if status != old:
            await self.client.update_status(self.claim_resource, {**claim, "status": status})

    async def _volume_phase(self, volume: Obj, phase: str, message: str = "") -> bool:
        old = volume.get("status") or {}
        if old.get("phase") == phase and old.get("message", "") == message:
            return False
        status = {k: v for k, v in old.items() if k not in ("phase", "message")} | {"phase": phase}
        if message:
            status["message"] = message
        await self.client.update_status(self.volume_resource, {**volume, "status": status})
        return True

    # -- volumes

    async def sync_volume(self, key: str) -> None:
        volume = self.volumes.lister.get_key(key)
        if volume is None:
            return
        ref = volume["spec"].get("claimRef")
        if ref is None or not ref.get("uid"):
            await self._volume_phase(volume, "Available")
            return
        claim = self.claims.lister.get(ref.get("namespace"), ref["name"])
        if claim is None or meta.uid(claim) != ref["uid"]:
            claim = await self._fresh_claim(ref)
        if claim is None:
            await self._release(volume)
        elif not claim["spec"].get("volumeName"):
            self.enqueue(claim)
        elif claim["spec"]["volumeName"] == key:
            await self._volume_phase(volume, "Bound")
        elif BOUND_BY_CONTROLLER in meta.annotations(volume):
            await self._unbind(volume)
        else:
            await self._unbind(volume, keep_name=True)

    async def _fresh_claim(self, ref: Obj) -> Obj | None:
        """From the API server itself: a volume must not be released because the informer is behind."""
        try:
            claim = await self.client.get(self.claim_resource, ref.get("namespace"), ref["name"])
        except ApiError as e:
            if e.code != 404:
                raise
            return None
        return claim if meta.uid(claim) == ref["uid"] else None

    async def _unbind(self, volume: Obj, *, keep_name: bool = False) -> None:
        """The claim chose another volume. What the user had written into claimRef stays."""
        md, spec = dict(volume["metadata"]), dict(volume["spec"])
        annotations = {k: v for k, v in meta.annotations(volume).items() if k != BOUND_BY_CONTROLLER}
        md["annotations"] = annotations
        if keep_name:
            spec["claimRef"] = {k: v for k, v in spec["claimRef"].items() if k not in ("uid", "resourceVersion")}
        else:
            spec.pop("claimRef")
        volume = await self.client.update(self.volume_resource, {**volume, "metadata": md, "spec": spec})
        await self._volume_phase(volume, "Available")

    async def _release(self, volume: Obj) -> None:
        if (volume.get("status") or {}).get("phase") not in ("Released", "Failed"):
            await self._volume_phase(volume, "Released")
            return
        policy = volume["spec"].get("persistentVolumeReclaimPolicy", "Retain")
        if policy == "Recycle":
            text = "No recycler plugin found for the volume!"
            if await self._volume_phase(volume, "Failed", text):
                self.event(volume, "Warning", "VolumeFailedRecycle", text)
        elif policy == "Delete" and not _is_external(volume):
            # There is nothing here that could delete what is behind it.
            text = f'error getting deleter volume plugin for volume "{meta.name(volume)}": '
            text += "no deletable volume plugin matched"
            if await self._volume_phase(volume, "Failed", text):
                self.event(volume, "Warning", "VolumeFailedDelete", text)


def _is_external(volume: Obj) -> bool:
    return PROVISIONED_BY in meta.annotations(volume) or "csi" in volume["spec"]
