"""The proxy subresource of nodes, pods and services: HTTP to whatever listens there.

A name may be `[scheme:]NAME[:port]`. A service's request goes to one of its ready endpoints.

Source: kubernetes pkg/registry/core/{node,pod,service}/…, k8s.io/apimachinery pkg/util/proxy.
"""

from __future__ import annotations

import ipaddress
import random

from berg.apiserver.http.forward import Target, Unreachable, client_tls, forward, unavailable
from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry.registry import Registry
from berg.apiserver.registry.services import Services
from berg.apiserver.requestinfo import RequestInfo
from berg.apiserver.subresources import kubelet, links, reading
from berg.machinery import status
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj

_KINDS = {"nodes": "NodeProxyOptions", "pods": "PodProxyOptions", "services": "ServiceProxyOptions"}


async def handle(request: Request, registry: Registry, resource_: Resource) -> Response:
    info: RequestInfo = request.info
    services = registry.services
    after = 8 if registry.storage.namespaced else 6  # /api/v1/namespaces/NS/pods/NAME/proxy, /api/v1/nodes/NAME/proxy
    steps = request.path.split("/", after)
    tail = f"/{steps[after]}" if len(steps) > after else ""
    await reading.admit_connect(request, registry, resource_, _KINDS[resource_.plural], {"path": tail})
    path = tail or "/"
    match resource_.plural:
        case "nodes":
            target = _node(services, info.name, path)
        case "pods":
            target = await _pod(registry, info, path)
        case _:
            target = await _service(registry, info, path)
    if not tail and request.method in ("GET", "HEAD"):
        # Relative links of what is behind need the slash, as upstream's redirect gives it.
        query = f"?{request.raw_query}" if request.raw_query else ""
        return Response(301, b"", "", {"Location": f"{request.path}/{query}"})
    target.query = request.raw_query
    extra = {"X-Forwarded-For": request.remote.rpartition(":")[0], "X-Forwarded-Uri": request.path}
    # The page must come as it is written, for its links to be found.
    request.headers.pop("accept-encoding", None)
    try:
        response = await forward(request, target, {k: v for k, v in extra.items() if v})
    except Unreachable as e:
        raise unavailable(e) from None
    return await links.through(response, request.path.removesuffix(tail), target.authority)


def split_name(name: str) -> tuple[str, str, str]:
    """(scheme, name, port). Raises BadRequest."""
    parts = name.split(":")
    match parts:
        case [plain]:
            return "", plain, ""
        case [plain, port]:
            return "", plain, port
        case [("http" | "https" | "") as scheme, plain, port]:
            return scheme, plain, port
    raise status.bad_request(f'invalid service request "{name}"')


def _node(services: Services, name: str, path: str) -> Target:
    scheme, plain, port = split_name(name)
    target = kubelet.target(services, plain, path)
    if port and port.isdigit() and int(port) != target.port:
        target.port = int(port)
        target.tls = client_tls() if scheme == "https" else None
    elif scheme == "http":
        target.tls = None
    return target


async def _pod(registry: Registry, info: RequestInfo, path: str) -> Target:
    scheme, name, port = split_name(info.name)
    pod = (await registry.entry(info.namespace, name)).obj
    host = (pod.get("status") or {}).get("podIP", "")
    number = int(port) if port.isdigit() else 0
    if not number:
        number = _container_port(pod, port)
    check_address(host)
    return Target(
        host, number or (443 if scheme == "https" else 80), path, tls=client_tls() if scheme == "https" else None
    )


def check_address(host: str) -> None:
    """Nobody gets at what listens on this machine's own loopback by way of an object. Raises BadRequest."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if (
        address is None
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    ):
        raise status.bad_request("address not allowed")


def _container_port(pod: Obj, name: str) -> int:
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if not name or port.get("name") == name:
                return int(port["containerPort"])
    return 0


async def _service(registry: Registry, info: RequestInfo, path: str) -> Target:
    scheme, name, port_name = split_name(info.name)
    service = (await registry.entry(info.namespace, name)).obj
    spec = service.get("spec") or {}
    ports = spec.get("ports") or []
    port: Obj | None = None
    if not port_name and len(ports) == 1:
        port = ports[0]
    for p in ports:
        if port_name and (p.get("name") == port_name or str(p["port"]) == port_name):
            port = p
    if port is None:
        raise status.service_unavailable(f'no service port "{port_name}" found for service "{name}"')
    tls = client_tls() if scheme == "https" else None
    if spec.get("type") == "ExternalName":
        return Target(spec["externalName"], port["port"], path, tls=tls)
    host, number = await endpoint(registry.services, info.namespace, name, port.get("name") or "")
    check_address(host)
    return Target(host, number, path, tls=tls)


async def endpoint(services: Services, namespace: str, name: str, port_name: str) -> tuple[str, int]:
    """One ready address behind a service's port. Raises ServiceUnavailable."""
    slices = resource("endpointslices.discovery.k8s.io")
    await services.open(slices)
    found: list[tuple[str, int]] = []
    for one in services.list(slices, namespace):
        if (one["metadata"].get("labels") or {}).get("kubernetes.io/service-name") != name:
            continue
        number = next((p.get("port") for p in one.get("ports") or () if (p.get("name") or "") == port_name), None)
        if number is None:
            continue
        for e in one.get("endpoints") or ():
            if (e.get("conditions") or {}).get("ready", True) is not False:
                found += [(a, number) for a in e.get("addresses") or ()]
    if not found:
        raise ApiError(503, "ServiceUnavailable", f'no endpoints available for service "{name}"')
    return random.choice(found)
