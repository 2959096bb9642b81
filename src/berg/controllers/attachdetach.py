"""Attaching volumes to nodes: a VolumeAttachment for each volume and node that a pod needs, which the driver's
attacher acts on; and the node's record of what is attached, which its kubelet waits for.

Only CSI volumes are attached; a driver may say that its volumes need no attaching.

Source: pkg/controller/volume/attachdetach, pkg/volume/csi/csi_attacher.go.
"""

from __future__ import annotations

import hashlib

from berg.controllers.context import APIController, Context
from berg.controllers.podgc import BY_NODE, index_by_node
from berg.controllers.pods import is_finished
from berg.controllers.volumeprotection import BY_CLAIM, claim_names, index_by_claim
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

MAX_WAIT_FOR_UNMOUNT_S = 360.0
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


def attachment_name(handle: str, driver: str, node: str) -> str:
    return f"csi-{hashlib.sha256(f'{handle}{driver}{node}'.encode()).hexdigest()}"


def unique_name(volume: Obj) -> str:
    csi = volume["spec"]["csi"]
    return f"kubernetes.io/csi/{csi['driver']}^{csi['volumeHandle']}"


class AttachDetachController(APIController):
    name = "persistentvolume-attach-detach-controller"
    component = "attachdetach-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("volumeattachments.storage.k8s.io")
        self.pods, self.nodes = ctx.informer("pods"), ctx.informer("nodes")
        self.claims, self.volumes = ctx.informer("persistentvolumeclaims"), ctx.informer("persistentvolumes")
        self.attachments = ctx.informer("volumeattachments.storage.k8s.io")
        self.drivers = ctx.informer("csidrivers.storage.k8s.io")
        index_by_node(ctx)
        index_by_claim(ctx)
        self._unwanted: dict[str, float] = {}
        """attachment → when it was first seen to be of no more use"""
        self._waiting: set[str] = set()
        """nodes that need a volume which another node still has"""
        self.pods.add_handler(self._pod, lambda old, new: self._pod(new), self._pod)
        self.claims.add_handler(self._claim, lambda old, new: self._claim(new))
        self.attachments.add_handler(self._attachment, lambda old, new: self._attachment(new), self._attachment_gone)
        self.nodes.add_handler(lambda n: self.queue.add(meta.name(n)), self._node_changed)

    def _pod(self, pod: Obj) -> None:
        if (node := pod["spec"].get("nodeName")) and claim_names(pod):
            self.queue.add(node)

    def _claim(self, claim: Obj) -> None:
        for pod in self.pods.lister.by_index(BY_CLAIM, meta.key(claim)):
            self._pod(pod)

    def _attachment(self, va: Obj) -> None:
        self.queue.add(va["spec"]["nodeName"])

    def _attachment_gone(self, va: Obj) -> None:
        """Another node may have been waiting for the volume."""
        for node in {va["spec"]["nodeName"], *self._waiting}:
            self.queue.add(node)
        self._waiting.clear()

    def _node_changed(self, old: Obj, new: Obj) -> None:
        mounted = "volumesInUse"
        before, after = (old.get("status") or {}).get(mounted), (new.get("status") or {}).get(mounted)
        if before != after or old["spec"].get("taints") != new["spec"].get("taints"):
            self.queue.add(meta.name(new))

    # -- one node

    async def reconcile(self, key: str) -> None:
        wanted = self._wanted(key)
        present = {meta.name(va): va for va in self.attachments.lister if va["spec"]["nodeName"] == key}
        for name, (volume, pods) in wanted.items():
            self._unwanted.pop(name, None)
            va = present.get(name)
            if va is None:
                await self._attach(name, volume, key, pods)
            elif (error := (va.get("status") or {}).get("attachError")) is not None:
                text = f'AttachVolume.Attach failed for volume "{meta.name(volume)}" : {error.get("message", "")}'
                for pod in pods:
                    self.event(pod, "Warning", "FailedAttachVolume", text)
        for name, va in present.items():
            # One with another name was made by someone else, and is theirs to end.
            if name not in wanted and name.startswith("csi-") and not meta.is_deleting(va):
                await self._detach(key, va)
        await self._report(key, wanted, present)

    def _wanted(self, node: str) -> dict[str, tuple[Obj, list[Obj]]]:
        """Attachments by name: the volume and the pods that need it."""
        found: dict[str, tuple[Obj, list[Obj]]] = {}
        for pod in self.pods.lister.by_index(BY_NODE, node):
            if is_finished(pod):
                continue
            for name in claim_names(pod):
                claim = self.claims.lister.get(meta.namespace(pod), name)
                volume = self._volume(claim)
                if volume is not None:
                    csi = volume["spec"]["csi"]
                    key = attachment_name(csi["volumeHandle"], csi["driver"], node)
                    found.setdefault(key, (volume, []))[1].append(pod)
        return found

    def _volume(self, claim: Obj | None) -> Obj | None:
        """The bound CSI volume of a claim, if its driver attaches."""
        if claim is None or (claim.get("status") or {}).get("phase") != "Bound":
            return None
        volume = self.volumes.lister.get(None, claim["spec"].get("volumeName", ""))
        if volume is None or "csi" not in volume["spec"]:
            return None
        driver = self.drivers.lister.get(None, volume["spec"]["csi"]["driver"])
        return volume if driver is None or driver["spec"].get("attachRequired", True) else None

    async def _attach(self, name: str, volume: Obj, node: str, pods: list[Obj]) -> None:
        if not set(volume["spec"].get("accessModes") or ()) & {"ReadWriteMany", "ReadOnlyMany"}:
            others = [
                va
                for va in self.attachments.lister
                if va["spec"]["source"].get("persistentVolumeName") == meta.name(volume) and meta.name(va) != name
            ]
            if others:
                text = (
                    f'Multi-Attach error for volume "{meta.name(volume)}" Volume is already exclusively attached to '
                    "one node and can't be attached to another"
                )
                for pod in pods:
                    self.event(pod, "Warning", "FailedAttachVolume", text)
                self._waiting.add(node)
                return
        body = {
            "metadata": {"name": name},
            "spec": {
                "attacher": volume["spec"]["csi"]["driver"],
                "nodeName": node,
                "source": {"persistentVolumeName": meta.name(volume)},
            },
        }
        try:
            await self.client.create(self.resource, body)
        except ApiError as e:
            if e.reason != "AlreadyExists":
                raise

    async def _detach(self, node_name: str, va: Obj) -> None:
        """Not while the node still has it mounted, unless that node is gone or has been silent for long."""
        volume = self.volumes.lister.get(None, va["spec"]["source"].get("persistentVolumeName", ""))
        node = self.nodes.lister.get(None, node_name)
        name, now = meta.name(va), self.clock.monotonic()
        if node is not None and volume is not None and "csi" in volume["spec"]:
            in_use = (node.get("status") or {}).get("volumesInUse") or ()
            if unique_name(volume) in in_use and not any(
                t["key"] == OUT_OF_SERVICE for t in node["spec"].get("taints") or ()
            ):
                since = self._unwanted.setdefault(name, now)
                ready = any(
                    c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ())
                )
                if ready or now - since < MAX_WAIT_FOR_UNMOUNT_S:
                    self.queue.add_after(node_name, MAX_WAIT_FOR_UNMOUNT_S)
                    return
        self._unwanted.pop(name, None)
        try:
            await self.client.delete(self.resource, None, name, uid=meta.uid(va))
        except ApiError as e:
            if e.code != 404:
                raise

    async def _report(self, key: str, wanted: dict[str, tuple[Obj, list[Obj]]], present: dict[str, Obj]) -> None:
        node = self.nodes.lister.get(None, key)
        if node is None:
            return
        attached: list[Obj] = []
        for _, va in sorted(present.items()):
            volume = self.volumes.lister.get(None, va["spec"]["source"].get("persistentVolumeName", ""))
            if volume is None or "csi" not in volume["spec"] or not (va.get("status") or {}).get("attached"):
                continue
            if meta.is_deleting(va):
                continue
            attached.append({"name": unique_name(volume), "devicePath": ""})
        status = node.get("status") or {}
        before = status.get("volumesAttached") or []
        if before == attached:
            return
        patch = {"status": {"volumesAttached": attached or None}}
        await self.client.patch(resource("nodes"), None, key, patch, subresource="status")
        new = {a["name"] for a in attached} - {a["name"] for a in before}
        for volume, pods in wanted.values():
            if unique_name(volume) in new:
                for pod in pods:
                    text = f'AttachVolume.Attach succeeded for volume "{meta.name(volume)}" '
                    self.event(pod, "Normal", "SuccessfulAttachVolume", text)
