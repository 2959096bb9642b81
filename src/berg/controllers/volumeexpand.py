"""Claims that ask for more than their volume has: this tells who is waited for. Expanding is a CSI driver's work.

Source: pkg/controller/volume/expand.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.machinery import quantity
from berg.machinery.status import Obj


class VolumeExpandController(APIController):
    name = "persistentvolume-expander-controller"
    component = "volume_expand"
    workers = 1

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.claims, self.volumes = ctx.informer("persistentvolumeclaims"), ctx.informer("persistentvolumes")
        self.claims.add_handler(self._claim, lambda old, new: self._claim(new) if old["spec"] != new["spec"] else None)

    def _claim(self, claim: Obj) -> None:
        status = claim.get("status") or {}
        wanted = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0")
        have = (status.get("capacity") or {}).get("storage")
        if status.get("phase") == "Bound" and have and quantity.value(wanted) > quantity.value(have):
            self.enqueue(claim)

    async def reconcile(self, key: str) -> None:
        claim = self.claims.lister.get_key(key)
        volume = self.volumes.lister.get(None, claim["spec"].get("volumeName", "")) if claim is not None else None
        if claim is None or volume is None:
            return
        text = "waiting for an external controller to expand this PVC"
        if "csi" not in volume["spec"]:
            text = "didn't find a plugin capable of expanding the volume; "
            text += "waiting for an external controller to process this PVC"
        self.event(claim, "Normal", "ExternalExpanding", text)
