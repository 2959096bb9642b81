"""Whether an aggregated server can be used, and the condition that says so.

Source: k8s.io/kube-aggregator pkg/controllers/status/remote.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from berg.apiserver.http.forward import Unreachable
from berg.apiserver.registry.modify import modify
from berg.machinery import meta as metas
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

if TYPE_CHECKING:
    from berg.apiserver.aggregation.aggregator import Aggregator, Remote

DISCOVERY_S = 5.0
ATTEMPTS = 5


async def check(aggregator: Aggregator, remote: Remote) -> Obj:
    """The Available condition as it is now."""
    service = remote.spec["service"]
    namespace, name, port = service["namespace"], service["name"], service.get("port") or 443
    found = aggregator.services.get(resource("services"), namespace, name)
    if found is None:
        return _no("ServiceNotFound", f'service/{name} in "{namespace}" is not present')
    if (found["spec"].get("type") or "ClusterIP") == "ClusterIP":
        listed = next((p for p in found["spec"].get("ports") or () if p.get("port") == port), None)
        if listed is None:
            return _no("ServicePortError", f'service/{name} in "{namespace}" is not listening on port {port}')
        fault = _endpoints_fault(aggregator, namespace, name, listed.get("name") or "")
        if fault is not None:
            return fault
    why: str | None = None
    for _ in range(ATTEMPTS):  # each at another endpoint, perhaps
        why = await _discovery_fault(aggregator, remote)
        if why is None:
            return {"type": "Available", "status": "True", "reason": "Passed", "message": "all checks passed"}
    return _no("FailedDiscoveryCheck", why or "")


def _endpoints_fault(aggregator: Aggregator, namespace: str, name: str, port_name: str) -> Obj | None:
    every = aggregator.services.list(resource("endpointslices.discovery.k8s.io"), namespace)
    own = [s for s in every if (s["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == name]
    if not own:
        return _no("EndpointsNotFound", f'cannot find endpointslices for service/{name} in "{namespace}"')
    for one in own:
        ready = any((e.get("conditions") or {}).get("ready") is not False for e in one.get("endpoints") or ())
        if ready and any((p.get("name") or "") == port_name and p.get("port") for p in one.get("ports") or ()):
            return None
    why = f'endpointslices for service/{name} in "{namespace}" have no addresses with port name "{port_name}"'
    return _no("MissingEndpoints", why)


async def _discovery_fault(aggregator: Aggregator, remote: Remote) -> str | None:
    group, version = remote.group_version
    path = f"/apis/{group}/{version}"
    try:
        target = await aggregator.target(remote, path)
    except ApiError as e:
        return e.message
    url = f"https://{target.authority}{path}"
    try:
        async with asyncio.timeout(DISCOVERY_S):
            answer = await aggregator.ask(remote, path)
    except (Unreachable, ApiError, TimeoutError) as e:
        why = "context deadline exceeded" if isinstance(e, TimeoutError) else str(e)
        return f'failing or missing response from {url}: Get "{url}": {why}'
    if not 200 <= answer.status < 300:
        return f"failing or missing response from {url}: bad status from {url}: {answer.status}"
    return None


def _no(reason: str, message: str) -> Obj:
    return {"type": "Available", "status": "False", "reason": reason, "message": message}


async def write(aggregator: Aggregator, name: str, condition: Obj) -> None:
    now = aggregator.services.clock.now()

    def change(obj: Obj) -> None:
        metas.set_condition(obj.setdefault("status", {}).setdefault("conditions", []), condition, now)

    await modify(aggregator.registry, "", name, change)
