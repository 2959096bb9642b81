"""What Services and EndpointSlices ask of a node, worked out without touching the kernel.

    Service + its EndpointSlices → [ServicePort]: addresses and ports to catch, and where to send what is caught

A `ServicePort` is complete: two that are equal need the same rules. All traffic policies are settled here:
internalTrafficPolicy and externalTrafficPolicy Local, topology hints, publishNotReadyAddresses, and terminating
endpoints as the last resort.

Source: k8s.io/kubernetes pkg/proxy/topology.go, KEP-1669, KEP-2086, KEP-2433, KEP-3015.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from berg.machinery.status import Obj

Target = tuple[str, int]
"""address, port"""


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service in one address family."""

    name: str
    """`namespace/service:port`"""
    protocol: str
    """tcp, udp or sctp"""
    port: int
    cluster_ip: str
    external_ips: tuple[str, ...] = ()
    """spec.externalIPs and the load balancer's addresses"""
    node_port: int = 0
    internal: tuple[Target, ...] = ()
    external: tuple[Target, ...] = ()
    drop_external: bool = False
    """there are endpoints, but none that an external client may reach from here"""
    preserve_source: bool = False
    """externalTrafficPolicy Local: the client's address is kept"""
    affinity_s: int = 0
    source_ranges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str
    port: int
    ready: bool
    serving: bool
    terminating: bool
    node: str
    zones: frozenset[str]
    nodes: frozenset[str]


def service_ports(service: Obj, slices: Sequence[Obj], node: str, zone: str, family: int) -> list[ServicePort]:
    """`family` is 4 or 6. Empty for a Service that has no address of its own (headless, ExternalName)."""
    spec = service["spec"]
    cluster_ip = _of_family(spec.get("clusterIPs") or [spec.get("clusterIP", "")], family)
    if spec.get("type") == "ExternalName" or not cluster_ip:
        return []
    metadata = service["metadata"]
    affinity_s = 0
    if spec.get("sessionAffinity") == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity_s = config.get("timeoutSeconds") or 10800
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    balancers = [i["ip"] for i in ingress if i.get("ip") and i.get("ipMode", "VIP") == "VIP"]
    outside = [a for a in [*(spec.get("externalIPs") or []), *balancers] if _family(a) == family]
    local_only = spec.get("externalTrafficPolicy") == "Local"
    found = []
    for port in spec.get("ports") or []:
        name = port.get("name", "")
        endpoints = list(_endpoints(slices, name, family))
        near = _preferred(endpoints, node, zone)
        local = [e for e in endpoints if e.node == node]
        internal = _usable(local if spec.get("internalTrafficPolicy") == "Local" else near)
        external = _usable(local) if local_only else _usable(near)
        found.append(
            ServicePort(
                name=f"{metadata['namespace']}/{metadata['name']}:{name}",
                protocol=port.get("protocol", "TCP").lower(),
                port=port["port"],
                cluster_ip=cluster_ip,
                external_ips=tuple(dict.fromkeys(outside)),
                node_port=port.get("nodePort", 0),
                internal=internal,
                external=external,
                drop_external=not external and bool(_usable(endpoints)),
                preserve_source=local_only,
                affinity_s=affinity_s,
                source_ranges=tuple(r.strip() for r in spec.get("loadBalancerSourceRanges") or ()),
            )
        )
    return found


def _endpoints(slices: Iterable[Obj], port_name: str, family: int) -> Iterable[Endpoint]:
    seen: set[Target] = set()
    for piece in slices:
        if piece.get("addressType") != f"IPv{family}":
            continue
        port = next((p.get("port") for p in piece.get("ports") or () if (p.get("name") or "") == port_name), None)
        if port is None:
            continue
        for e in piece.get("endpoints") or ():
            conditions = e.get("conditions") or {}
            ready = conditions.get("ready") is not False
            hints = e.get("hints") or {}
            for address in e["addresses"][:1]:
                if (address, port) in seen:
                    continue
                seen.add((address, port))
                yield Endpoint(
                    address,
                    port,
                    ready,
                    ready if conditions.get("serving") is None else conditions["serving"],
                    bool(conditions.get("terminating")),
                    e.get("nodeName") or "",
                    frozenset(z["name"] for z in hints.get("forZones") or ()),
                    frozenset(n["name"] for n in hints.get("forNodes") or ()),
                )


def _usable(endpoints: Sequence[Endpoint]) -> tuple[Target, ...]:
    """The ready ones; when there is none, those that end but still serve."""
    ready = [e for e in endpoints if e.ready] or [e for e in endpoints if e.serving and e.terminating]
    return tuple(sorted((e.address, e.port) for e in ready))


def _preferred(endpoints: list[Endpoint], node: str, zone: str) -> list[Endpoint]:
    """Those hinted for this node, else for this zone; all, unless every ready one has a hint of that sort."""
    ready = [e for e in endpoints if e.ready]
    if not ready:
        return endpoints
    if all(e.nodes for e in ready) and (mine := [e for e in ready if node in e.nodes]):
        return mine
    if zone and all(e.zones for e in ready) and (mine := [e for e in ready if zone in e.zones]):
        return mine
    return endpoints


def _of_family(addresses: Iterable[str], family: int) -> str:
    return next((a for a in addresses if a and a != "None" and _family(a) == family), "")


def _family(address: str) -> int:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0
