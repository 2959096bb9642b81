"""This server's Lease in kube-system, by which the others know that it is there.

Source: kubernetes pkg/controlplane/apiserver/server.go (KEP-1965).
"""

from __future__ import annotations

import hashlib
import logging
import socket

from berg.apiserver.registry.services import Services
from berg.machinery.clock import rfc3339_micro
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)

DURATION_S = 3600
RENEW_S = 10.0


def identity(services: Services) -> str:
    digest = hashlib.sha256(f"{socket.gethostname()}-{services.secure_port}".encode()).hexdigest()
    return f"apiserver-{digest[:26]}"


async def run(services: Services) -> None:
    await _renew(services)
    services.spawn(_keep(services))


async def _keep(services: Services) -> None:
    while True:
        await services.clock.sleep(RENEW_S)
        try:
            await _renew(services)
        except ApiError as e:
            log.warning("renewing the identity lease: %s", e)


async def _renew(services: Services) -> None:
    leases = resource("leases.coordination.k8s.io")
    name = identity(services)
    now = rfc3339_micro(services.clock.now())
    current = services.get(leases, "kube-system", name)
    if current is not None:
        await services.update(leases, "kube-system", {**current, "spec": {**current["spec"], "renewTime": now}})
        return
    holder = f"{name}_{services.instance}"
    lease: Obj = {
        "metadata": {
            "name": name,
            "namespace": "kube-system",
            "labels": {
                "apiserver.kubernetes.io/identity": "kube-apiserver",
                "kubernetes.io/hostname": socket.gethostname(),
            },
        },
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": DURATION_S, "renewTime": now},
    }
    await services.create(leases, "kube-system", lease)
