"""Which day a token that lies in a Secret was last used: written down, so that what nobody uses can be cleaned up.

Source: kubernetes pkg/serviceaccount/legacy.go; KEP-2799.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from berg.apiserver.registry.services import Services
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)

LAST_USED = "kubernetes.io/legacy-token-last-used"


def note_use(services: Services, secret: Obj) -> None:
    """Once a day for each; `secret` is not changed."""
    now, labels = services.clock.now(), secret["metadata"].get("labels") or {}
    days = [f"{now + timedelta(days=d):%Y-%m-%d}" for d in (0, 1)]
    if labels.get(LAST_USED) not in days:
        labels = {**labels, LAST_USED: days[0]}
        services.spawn(_update(services, {**secret, "metadata": {**secret["metadata"], "labels": labels}}))


async def _update(services: Services, secret: Obj) -> None:
    try:
        await services.update(resource("secrets"), secret["metadata"]["namespace"], secret)
    except ApiError as e:
        log.info("noting the use of a token: %s", e)
