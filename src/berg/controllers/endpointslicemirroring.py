"""EndpointSlice mirroring: Endpoints that someone keeps by hand, for a service without selector, appear as slices.

Source: pkg/controller/endpointslicemirroring.
"""

from __future__ import annotations

import asyncio

from berg.client.expectations import Expectations
from berg.controllers.context import APIController, Context
from berg.controllers.endpointslice import BY_SERVICE, MANAGED_BY, SERVICE_NAME, index_by_service
from berg.controllers.endpointslice_packing import Desired, Plan, plan
from berg.controllers.objects import namespace_is_terminating
from berg.controllers.ownership import api_ref
from berg.controllers.service_pods import canonical_ip, family
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

NAME = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
MAX_PER_SUBSET = 1000
NOT_COPIED = frozenset(
    {"endpoints.kubernetes.io/last-change-trigger-time", LEADER, "kubectl.kubernetes.io/last-applied-configuration"}
)


class EndpointSliceMirroringController(APIController):
    name = "endpointslice-mirroring-controller"
    component = "endpoint-slice-mirroring-controller"
    max_retries = 15

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("endpointslices.discovery.k8s.io")
        self.services = ctx.informer("services")
        self.endpoints = ctx.informer("endpoints")
        self.slices = ctx.informer("endpointslices.discovery.k8s.io")
        index_by_service(ctx)
        self.expectations = Expectations(ctx.clock)
        self.follow(self.services)
        self.follow(self.endpoints)
        self.slices.add_handler(self._slice_added, lambda old, new: self._slice(new), self._slice)

    def _slice(self, s: Obj) -> None:
        labels = meta.labels(s)
        if labels.get(MANAGED_BY) == NAME and labels.get(SERVICE_NAME):
            self.queue.add(f"{meta.namespace(s)}/{labels[SERVICE_NAME]}")

    def _slice_added(self, s: Obj) -> None:
        labels = meta.labels(s)
        if labels.get(MANAGED_BY) == NAME:
            self.expectations.added(f"{meta.namespace(s)}/{labels.get(SERVICE_NAME)}")
        self._slice(s)

    async def reconcile(self, key: str) -> None:
        if not self.expectations.satisfied(key):
            return
        existing = self.slices.lister.by_index(BY_SERVICE, f"{NAME}/{key}")
        endpoints = self.endpoints.lister.get_key(key)
        service = self.services.lister.get_key(key)
        if endpoints is None or service is None or service["spec"].get("selector") or not mirrored(endpoints):
            await self._apply(key, None, {}, Plan(delete=existing))
            return
        labels = {**meta.labels(endpoints), SERVICE_NAME: meta.name(endpoints), MANAGED_BY: NAME}
        annotations = {k: v for k, v in meta.annotations(endpoints).items() if k not in NOT_COPIED}
        todo = Plan()
        for address_type, desired in slices_of(endpoints).items():
            mine = [s for s in existing if s["addressType"] == address_type]
            todo.extend(plan(address_type, mine, desired, labels, annotations, placeholder=False))
        md = {"labels": labels, "annotations": annotations}
        await self._apply(key, endpoints, md, todo)

    async def _apply(self, key: str, endpoints: Obj | None, md: Obj, todo: Plan) -> None:
        namespace, _, name = key.partition("/")
        if endpoints is not None:
            ref = api_ref(endpoints, resource("endpoints"))
            md = {**md, "generateName": f"{name}-", "namespace": namespace, "ownerReferences": [ref]}
        if todo.create:
            self.expectations.expect(key, adds=len(todo.create))

        async def create(s: Obj) -> None:
            try:
                await self.client.create(self.resource, {**s, "metadata": md})
            except ApiError as e:
                self.expectations.added(key)
                if not namespace_is_terminating(e):
                    raise

        async def delete(s: Obj) -> None:
            try:
                await self.client.delete(self.resource, namespace, s["metadata"]["name"])
            except ApiError as e:
                if e.code != 404:
                    raise

        async def update(s: Obj) -> None:
            await self.client.update(self.resource, s)

        work = [create(s) for s in todo.create] + [update(s) for s in todo.update] + [delete(s) for s in todo.delete]
        for r in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(r, BaseException):
                raise r


def mirrored(endpoints: Obj) -> bool:
    return meta.labels(endpoints).get(SKIP) != "true" and LEADER not in meta.annotations(endpoints)


def slices_of(endpoints: Obj) -> dict[str, list[Desired]]:
    """By address family; both are always there, so that slices of one that is gone are removed."""
    found: dict[str, dict[str, Desired]] = {"IPv4": {}, "IPv6": {}}
    for subset in endpoints.get("subsets") or ():
        ports = [{"name": "", "protocol": "TCP", **p} for p in subset.get("ports") or ()]
        count = 0
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(field) or ():
                if (count := count + 1) > MAX_PER_SUBSET:
                    break
                endpoint: Obj = {"addresses": [canonical_ip(address["ip"])], "conditions": {"ready": ready}}
                for name in ("hostname", "targetRef", "nodeName"):
                    if address.get(name):
                        endpoint[name] = address[name]
                by_ports = found[family(address["ip"])]
                by_ports.setdefault(repr(ports), Desired(ports)).endpoints.append(endpoint)
    return {t: list(d.values()) for t, d in found.items()}
