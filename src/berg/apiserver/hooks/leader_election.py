"""Coordinated leader election, behind its gate and with its API (`coordination.k8s.io/v1beta1`) served.

Source: kubernetes pkg/controlplane/apiserver/server.go (KEP-4355).
"""

from __future__ import annotations

import logging
import socket

from berg.apiserver.registry.services import Services

log = logging.getLogger(__name__)


async def run(services: Services) -> None:
    from berg.apiserver.coordination.elections import Elections
    from berg.apiserver.coordination.leadership import Leadership, Timing

    registry = services.registries.get(("coordination.k8s.io", "leasecandidates"))
    if registry is None:
        log.warning("leasecandidates.coordination.k8s.io is not served: --runtime-config turns it on")
        return
    config = services.config
    timing = Timing(
        config.coordinated_leadership_lease_duration_s,
        config.coordinated_leadership_renew_deadline_s,
        config.coordinated_leadership_retry_period_s,
    )
    elections = Elections(services, registry.storage)
    elections.follow()
    identity = f"{socket.gethostname()}_{services.instance}"
    services.spawn(Leadership(services, "leader-election-controller", identity, timing).run(elections.run))
