"""Whether an aggregated server can be used, and the condition that says so.

Source: k8s.io/kube-aggregator pkg/controllers/status/remote.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from berg.apiserver.http.forward import Unreachable
from berg.apiserver.http.hooks import resolve
from berg.apiserver.registry.modify import modify
from berg.machinery import meta as metas
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

if TYPE_CHECKING:
    from berg.apiserver.aggregation.aggregator import Aggregator, Remote

DISCOVERY_S = 5.0


async def check(aggregator: Aggregator, remote: Remote) -> Obj:
    """The Available condition as it is now."""
    service = remote.spec["service"]
    namespace, name, port = service["namespace"], service["name"], service.get("port") or 443
    found = aggregator.services.get(resource("services"), namespace, name)
    if found is None:
        return _no("ServiceNotFound", f'service/{name} in "{namespace}" is not present')
    if not any(p.get("port") == port for p in (found.get("spec") or {}).get("ports") or ()):
        return _no("ServicePortError", f'service/{name} in "{namespace}" is not listening on port {port}')
    try:
        host, number = await resolve(aggregator.services, namespace, name, port)
    except ApiError:
        return _no("MissingEndpoints", f'endpoints for service/{name} in "{namespace}" have no addresses')
    group, version = remote.group_version
    url = f"https://{host}:{number}/apis/{group}/{version}"
    try:
        async with asyncio.timeout(DISCOVERY_S):
            answer = await aggregator.ask(remote, f"/apis/{group}/{version}")
    except (Unreachable, ApiError, TimeoutError) as e:
        why = "context deadline exceeded" if isinstance(e, TimeoutError) else str(e)
        return _no("FailedDiscoveryCheck", f'failing or missing response from {url}: Get "{url}": {why}')
    if not 200 <= answer.status < 300:
        return _no(
            "FailedDiscoveryCheck", f"failing or missing response from {url}: bad status from {url}: {answer.status}"
        )
    return {"type": "Available", "status": "True", "reason": "Passed", "message": "all checks passed"}


def _no(reason: str, message: str) -> Obj:
    return {"type": "Available", "status": "False", "reason": reason, "message": message}


async def write(aggregator: Aggregator, name: str, condition: Obj) -> None:
    now = aggregator.services.clock.now()

    def change(obj: Obj) -> None:
        metas.set_condition(obj.setdefault("status", {}).setdefault("conditions", []), condition, now)

    await modify(aggregator.registry, "", name, change)
