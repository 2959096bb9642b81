"""The `kubernetes` service in `default`: this server's address for everyone inside the cluster, kept true.

Source: kubernetes pkg/controlplane/controller/kubernetesservice, defaultservicecidr.
"""

from __future__ import annotations

import ipaddress
import socket

from berg.apiserver.hooks.objects import ensure
from berg.apiserver.registry.services import Services
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

NAME = "kubernetes"


def advertised(services: Services) -> str:
    """`--advertise-address`, else the address of the interface that leads out."""
    config = services.config
    if config.advertise_address:
        return config.advertise_address
    if config.bind_address not in ("", "0.0.0.0", "::"):
        return config.bind_address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: only asks the routing table
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


async def run(services: Services) -> None:
    cidrs = services.config.service_cluster_ip_range
    await ensure(
        services, resource("servicecidrs.networking.k8s.io"), {"metadata": {"name": NAME}, "spec": {"cidrs": cidrs}}
    )
    port = services.secure_port
    first = str(next(ipaddress.ip_network(cidrs[0]).hosts()))
    spec: Obj = {
        "clusterIP": first,
        "clusterIPs": [first],
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        "sessionAffinity": "None",
        "type": "ClusterIP",
    }
    meta: Obj = {
        "name": NAME,
        "namespace": "default",
        "labels": {"component": "apiserver", "provider": "kubernetes"},
    }
    await ensure(services, resource("services"), {"metadata": meta, "spec": spec})
    address = advertised(services)
    if ipaddress.ip_address(address).is_loopback:
        return  # no endpoint can be on loopback: there is nothing true to say to the cluster
    labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    await _keep(
        services,
        "endpoints",
        {
            "metadata": {"name": NAME, "namespace": "default", "labels": labels},
            "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
        },
        "subsets",
    )
    await _keep(
        services,
        "endpointslices.discovery.k8s.io",
        {
            "metadata": {"name": NAME, "namespace": "default", "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": "IPv6" if ":" in address else "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": ports,
        },
        "endpoints",
        "ports",
    )


async def _keep(services: Services, plural: str, wanted: Obj, *fields: str) -> None:
    r = resource(plural)
    if await ensure(services, r, wanted):
        return
    current = services.get(r, "default", NAME)
    if current is not None and any(current.get(f) != wanted.get(f) for f in fields):
        try:
            await services.update(r, "default", {**current, **{f: wanted[f] for f in fields}})
        except ApiError as e:
            if e.code != 409:
                raise
