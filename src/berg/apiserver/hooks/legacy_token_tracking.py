"""Since when the use of tokens in Secrets is written down: whoever cleans up must not take what is older for unused.

Source: kubernetes pkg/controlplane/controller/legacytokentracking; KEP-2799.
"""

from __future__ import annotations

from datetime import datetime

from berg.apiserver.hooks.objects import ensure
from berg.apiserver.registry.services import Services
from berg.machinery.resources import resource
from berg.machinery.status import Obj

NAME = "kube-apiserver-legacy-service-account-token-tracking"
NAMESPACE = "kube-system"


async def run(services: Services) -> None:
    config_maps = resource("configmaps")
    since = {"since": f"{services.clock.now():%Y-%m-%d}"}
    wanted: Obj = {"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": since}
    if await ensure(services, config_maps, wanted):
        return
    found = services.get(config_maps, NAMESPACE, NAME)
    if found is not None and not _is_date((found.get("data") or {}).get("since") or ""):
        await services.update(config_maps, NAMESPACE, {**found, "data": {**(found.get("data") or {}), **since}})


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        return False
    return True
