"""This server's Lease in kube-system, by which the others know that it is there. Its name is the machine's, so that
it stays when the server starts anew; the holder changes then.

Source: kubernetes pkg/controlplane/apiserver/server.go, k8s.io/apiserver pkg/server/config.go (KEP-1965).
"""

from __future__ import annotations

import base64
import hashlib
import logging
import socket

from berg.apiserver.registry.services import Services
from berg.machinery.clock import rfc3339_micro
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)

LABEL, COMPONENT = "apiserver.kubernetes.io/identity", "kube-apiserver"
DURATION_S = 3600
RENEW_S = 10.0


def identity() -> str:
    parts = (socket.gethostname().encode(), COMPONENT.encode())
    digest = hashlib.sha256(b"".join(len(p).to_bytes(2, "big") + p for p in parts)).digest()
    return f"apiserver-{base64.b32encode(digest[:16]).decode().rstrip('=').lower()}"


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
    name = identity()
    now = rfc3339_micro(services.clock.now())
    current = services.get(leases, "kube-system", name)
    renewed = {"holderIdentity": f"{name}_{services.instance}", "leaseDurationSeconds": DURATION_S, "renewTime": now}
    if current is not None:
        await services.update(leases, "kube-system", {**current, "spec": {**current["spec"], **renewed}})
        return
    labels = {LABEL: COMPONENT, "kubernetes.io/hostname": socket.gethostname()}
    lease: Obj = {"metadata": {"name": name, "namespace": "kube-system", "labels": labels}, "spec": renewed}
    await services.create(leases, "kube-system", lease)
