"""In which version this server stores each built-in resource, told in StorageVersions before anybody may write.

Source: k8s.io/apiserver pkg/storageversion (KEP-2339).
"""

from __future__ import annotations

import logging

from berg.apiserver.hooks.identity_lease import identity
from berg.apiserver.registry.registry import Registry
from berg.apiserver.registry.services import Services
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj
from berg.machinery.storageversions import with_common_version

log = logging.getLogger(__name__)


async def run(services: Services) -> None:
    of = services.registries.get(("internal.apiserver.k8s.io", "storageversions"))
    if of is None:
        log.warning("storageversions.internal.apiserver.k8s.io is not served: --runtime-config turns it on")
        return
    for registry in dict.fromkeys(services.registries.values()):
        if not registry.custom:
            await _tell(services, of.storage, registry)


async def _tell(services: Services, versions: Resource, registry: Registry) -> None:
    storage = registry.storage
    name = f"{storage.group or 'core'}.{storage.plural}"
    decodable = list(registry.versions)
    server: Obj = {
        "apiServerID": identity(),
        "encodingVersion": storage.api_version,
        "decodableVersions": [storage.api_version, *(v for v in decodable if v != storage.api_version)],
        "servedVersions": decodable,
    }
    for _ in range(3):  # another server may say the same at this moment
        try:
            found = services.get(versions, "", name) or await services.create(
                versions, "", {"metadata": {"name": name}, "spec": {}}
            )
            status = found.get("status") or {}
            servers = [s for s in status.get("storageVersions") or () if s["apiServerID"] != server["apiServerID"]]
            status = with_common_version({**status, "storageVersions": [*servers, server]}, 0, services.clock.now())
            await services.update(versions, "", {**found, "status": status}, "status")
            return
        except ApiError as e:
            if e.reason not in ("Conflict", "AlreadyExists"):
                raise
    log.warning("the storage version of %s could not be told", name)
