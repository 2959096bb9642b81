"""StorageVersions of API servers that are gone: what names a server without identity Lease is taken out.

Source: KEP-2339, pkg/controller/storageversiongc; k8s.io/apiserver pkg/storageversion.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj
from berg.machinery.storageversions import with_common_version

STORAGE_VERSIONS = Resource(
    "internal.apiserver.k8s.io", "v1alpha1", "storageversions", "StorageVersion", namespaced=False
)
IDENTITY = "apiserver.kubernetes.io/identity"


class StorageVersionGC(APIController):
    name = "storageversion-garbage-collector-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.leases = ctx.informer("leases.coordination.k8s.io", namespace="kube-system", label_selector=IDENTITY)
        self.versions = ctx.informers.informer(STORAGE_VERSIONS)
        ctx.asked.append(self.versions)
        self.versions.add_handler(self.enqueue, self.enqueue_changed)
        self.leases.add_handler(on_delete=self._server_gone)

    def _server_gone(self, lease: Obj) -> None:
        for version in self.versions.lister:
            self.enqueue(version)

    async def reconcile(self, key: str) -> None:
        seen = self.versions.lister.get_key(key)
        if seen is None or not self._strangers(seen):
            return
        # The Lease may only not be here yet: a server writes both when it starts.
        leases = await self.client.list(self.leases.resource, "kube-system", label_selector=IDENTITY)
        there = {lease["metadata"]["name"] for lease in leases.get("items") or ()}
        version = await self._read(key)
        if version is None:
            return
        servers = (version.get("status") or {}).get("storageVersions") or []
        left = [s for s in servers if s["apiServerID"] in there]
        if len(left) == len(servers):
            return
        if not left:
            await self.client.delete(STORAGE_VERSIONS, None, key)
            return
        status = {**version["status"], "storageVersions": left}
        changed = {**version, "status": with_common_version(status, 0, self.clock.now())}
        await self.client.update(STORAGE_VERSIONS, changed, subresource="status")

    def _strangers(self, version: Obj) -> bool:
        known = {lease["metadata"]["name"] for lease in self.leases.lister}
        servers = (version.get("status") or {}).get("storageVersions") or ()
        return any(s["apiServerID"] not in known for s in servers)

    async def _read(self, name: str) -> Obj | None:
        try:
            return await self.client.get(STORAGE_VERSIONS, None, name)
        except ApiError as e:
            if e.code == 404:
                return None
            raise
