"""Identity Leases of servers that have not renewed them for an hour are deleted, once an hour.

Source: kubernetes pkg/controlplane/controller/apiserverleasegc.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from berg.apiserver.hooks.identity_lease import COMPONENT, DURATION_S, LABEL
from berg.apiserver.registry.services import Services
from berg.machinery.clock import parse_rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)


async def run(services: Services) -> None:
    services.spawn(_keep(services))


async def _keep(services: Services) -> None:
    while True:
        await services.clock.sleep(DURATION_S)
        await collect(services)


async def collect(services: Services) -> None:
    leases = resource("leases.coordination.k8s.io")
    for lease in services.list(leases, "kube-system"):
        name = lease["metadata"]["name"]
        if (lease["metadata"].get("labels") or {}).get(LABEL) == COMPONENT and _expired(services, lease):
            try:
                await services.delete(leases, "kube-system", name)
                log.info("lease %s was not renewed: deleted", name)
            except ApiError as e:
                log.debug("lease %s: %s", name, e)


def _expired(services: Services, lease: Obj) -> bool:
    spec = lease.get("spec") or {}
    if not spec.get("renewTime") or spec.get("leaseDurationSeconds") is None:
        return True
    end = parse_rfc3339(spec["renewTime"]) + timedelta(seconds=spec["leaseDurationSeconds"])
    return end < services.clock.now()
