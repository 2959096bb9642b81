"""ConfigMap kube-root-ca.crt in every namespace: how pods know the API server.

Source: pkg/controller/certificates/rootcacertpublisher.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.controllers.objects import namespace_is_terminating
from berg.controllers.serviceaccount import is_active
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

NAME = "kube-root-ca.crt"
DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of "
    "Kubernetes clusters."
)


class RootCAPublisher(APIController):
    name = "root-ca-certificate-publisher-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("configmaps")
        self.namespaces = ctx.informer("namespaces")
        # Only the ConfigMaps of this name: all others would be kept in memory for nothing.
        self.maps = ctx.informer("configmaps", field_selector=f"metadata.name={NAME}")
        self.namespaces.add_handler(self.enqueue, self.enqueue_changed)
        self.maps.add_handler(None, lambda old, new: self._map(new), self._map)
        self._ca = ""

    def _map(self, cm: Obj) -> None:
        self.queue.add(meta.namespace(cm))

    async def start(self) -> None:
        self._ca = self.ctx.config.root_ca().decode()
        if self._ca:
            await super().start()

    async def reconcile(self, key: str) -> None:
        if not is_active(self.namespaces.lister.get(None, key)):
            return
        data = {"ca.crt": self._ca}
        annotations = {"kubernetes.io/description": DESCRIPTION}
        cm = self.maps.lister.get(key, NAME)
        try:
            if cm is None:
                md = {"name": NAME, "namespace": key, "annotations": annotations}
                await self.client.create(self.resource, {"metadata": md, "data": data})
            elif cm.get("data") != data or meta.annotations(cm) != {**meta.annotations(cm), **annotations}:
                md = {**cm["metadata"], "annotations": {**meta.annotations(cm), **annotations}}
                await self.client.update(self.resource, {**cm, "metadata": md, "data": data})
        except ApiError as e:
            if e.reason != "AlreadyExists" and not namespace_is_terminating(e):
                raise
