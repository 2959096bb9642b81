"""ServiceCIDRs: Ready, and not deleted while addresses are in use that no other range contains.

Source: pkg/controller/servicecidrs.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from berg.controllers.context import APIController, Context
from berg.controllers.objects import conditions_of, find_condition
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import Obj

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
IN_USE = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"


def _networks(cidr: Obj) -> list[str]:
    return list(cidr["spec"].get("cidrs") or ())


class ServiceCIDRController(APIController):
    name = "service-cidr-controller"
    component = "service-cidr-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("servicecidrs.networking.k8s.io")
        self.cidrs = ctx.informer("servicecidrs.networking.k8s.io")
        self.addresses = ctx.informer("ipaddresses.networking.k8s.io")
        self.cidrs.add_handler(self._cidr, lambda old, new: self._cidr(new), self._cidr)
        self.addresses.add_handler(None, None, self._freed)

    def _cidr(self, cidr: Obj) -> None:
        for other in self.cidrs.lister:  # a range that comes or goes may free another
            if other is cidr or meta.is_deleting(other):
                self.enqueue(other)

    def _freed(self, address: Obj) -> None:
        for cidr in self.cidrs.lister:
            if meta.is_deleting(cidr):
                self.enqueue(cidr)

    async def reconcile(self, key: str) -> None:
        cidr = self.cidrs.lister.get_key(key)
        if cidr is None:
            return
        finalizers = cidr["metadata"].get("finalizers") or []
        if meta.is_deleting(cidr):
            if FINALIZER not in finalizers:
                return
            if self._needed(cidr):
                await self._condition(cidr, "False", "Terminating", IN_USE)
            else:
                await self._finalizers(cidr, [f for f in finalizers if f != FINALIZER])
            return
        if FINALIZER not in finalizers:
            cidr = await self._finalizers(cidr, [*finalizers, FINALIZER])
        await self._condition(cidr, "True", "", "Kubernetes Service CIDR is ready")

    def _needed(self, cidr: Obj) -> bool:
        others = [
            ip_network(n)
            for c in self.cidrs.lister
            if meta.name(c) != meta.name(cidr) and not meta.is_deleting(c)
            for n in _networks(c)
        ]
        mine = [ip_network(n) for n in _networks(cidr)]
        for obj in self.addresses.lister:
            address = ip_address(meta.name(obj))
            if any(address in n for n in mine) and not any(address in n for n in others):
                return True
        return False

    async def _finalizers(self, cidr: Obj, finalizers: list[str]) -> Obj:
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": cidr["metadata"]["resourceVersion"]}}
        return await self.client.patch(self.resource, None, meta.name(cidr), patch)

    async def _condition(self, cidr: Obj, status: str, reason: str, message: str) -> None:
        conditions = conditions_of(cidr)
        old = find_condition(conditions, "Ready")
        new: Obj = {"type": "Ready", "status": status, "reason": reason, "message": message}
        if old is not None and all(old.get(k) == v for k, v in new.items()):
            return
        new["lastTransitionTime"] = rfc3339(self.clock.now())
        conditions = [*(c for c in conditions if c["type"] != "Ready"), new]
        body = {**cidr, "status": {**(cidr.get("status") or {}), "conditions": conditions}}
        await self.client.update_status(self.resource, body)
