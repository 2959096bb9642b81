"""The ClusterTrustBundle by which everybody may know the API server: that of the signer
`kubernetes.io/kube-apiserver-serving`, named by a hash of what is in it, and the only one of its signer.

Source: KEP-3257, pkg/controller/certificates/clustertrustbundlepublisher.
"""

from __future__ import annotations

import hashlib

from berg.controllers.context import APIController, Context
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

SIGNER = "kubernetes.io/kube-apiserver-serving"


def bundle_name(signer: str, bundle: bytes) -> str:
    return f"{signer.replace('/', ':')}:{hashlib.sha256(bundle).hexdigest()[:24]}"


class ServingTrustBundlePublisher(APIController):
    name = "kube-apiserver-serving-clustertrustbundle-publisher-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("clustertrustbundles.certificates.k8s.io")
        self.bundles = ctx.informer(
            "clustertrustbundles.certificates.k8s.io", field_selector=f"spec.signerName={SIGNER}"
        )
        self.bundles.add_handler(self._changed, lambda old, new: self._changed(new), self._changed)
        self._bundle = ""

    def _changed(self, _: Obj) -> None:
        self.queue.add(SIGNER)

    async def start(self) -> None:
        self._bundle = self.ctx.config.root_ca().decode()
        if self._bundle:
            await super().start()
            self.queue.add(SIGNER)

    async def reconcile(self, key: str) -> None:
        name = bundle_name(SIGNER, self._bundle.encode())
        found = self.bundles.lister.get(None, name)
        spec = {"signerName": SIGNER, "trustBundle": self._bundle}
        if found is None:
            await self.client.create(self.resource, {"metadata": {"name": name}, "spec": spec})
        elif found["spec"].get("trustBundle") != self._bundle:
            await self.client.update(self.resource, {**found, "spec": spec})
        for other in self.bundles.lister:
            if other["metadata"]["name"] != name:
                try:
                    await self.client.delete(self.resource, None, other["metadata"]["name"])
                except ApiError as e:
                    if e.code != 404:
                        raise
