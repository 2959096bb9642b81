"""Cluster IPs and node ports: who holds which, and giving out free ones.

An address is held by an IPAddress object of its name (the creation of which decides between servers), a port by
the Service that names it. What is in use is derived from the stored objects when it is first needed and kept in
memory from then on; `repair` derives it anew. The first part of a range (16 to 256 addresses) is given out last,
so that users may choose there.

Source: KEP-1880 (ServiceCIDR, IPAddress), KEP-3070; kubernetes pkg/registry/core/service/ipallocator, portallocator.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Iterable, Sequence
from time import perf_counter

from berg.apiserver.admission.interface import Api
from berg.apiserver.kinds.core.allocation_figures import AllocationFigures, Network, usable
from berg.machinery.metrics import Registry
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

MANAGED_BY = "ipallocator.k8s.io"
FAMILIES = {4: "IPv4", 6: "IPv6"}


class RangeFull(Exception):
    def __init__(self) -> None:
        super().__init__("range is full")


class NotAllocatable(Exception):
    """A wanted address or port that cannot be had; the message says why."""


def family_of(ip: str) -> str:
    return "IPv6" if ":" in ip else "IPv4"


def _reserved(size: int) -> int:
    """How many addresses at the start of a range are given out last."""
    return 0 if size <= 16 else min(max(16, size // 16), 256)


class ServiceAllocation:
    def __init__(
        self, api: Api, service_cidrs: Sequence[str] = ("10.96.0.0/16",), node_ports: tuple[int, int] = (30000, 32767)
    ) -> None:
        """`service_cidrs`: the primary family's range first. `node_ports`: first and last."""
        self.api = api
        self.cidrs: list[Network] = [ipaddress.ip_network(c) for c in service_cidrs]
        self.node_ports = node_ports
        self._ips: set[str] | None = None
        self._ports: set[int] | None = None
        self._random = random.Random()
        self._cleaning: dict[str, asyncio.Task[None]] = {}
        self._figures = AllocationFigures()

    @property
    def families(self) -> list[str]:
        """Those of the cluster, the primary one first."""
        return list(dict.fromkeys(FAMILIES[c.version] for c in self.cidrs))

    def repair(self) -> None:
        """Derives what is in use from what is stored."""
        services = self.api.list(resource("services"))
        self._ips = {o["metadata"]["name"] for o in self.api.list(resource("ipaddresses.networking.k8s.io"))}
        self._ports = set()
        for s in services:
            spec = s.get("spec") or {}
            self._ips.update(ip for ip in spec.get("clusterIPs") or (spec.get("clusterIP"),) if ip and ip != "None")
            self._ports.update(ports_of(s))

    def _used_ips(self) -> set[str]:
        if self._ips is None:
            self.repair()
        assert self._ips is not None
        return self._ips

    def _used_ports(self) -> set[int]:
        if self._ports is None:
            self.repair()
        assert self._ports is not None
        return self._ports

    def networks(self, family: str) -> list[Network]:
        """The ranges in use: the configured ones, then those of ready ServiceCIDR objects."""
        found = [c for c in self.cidrs if FAMILIES[c.version] == family]
        for o in self.api.list(resource("servicecidrs.networking.k8s.io")):
            if o["metadata"].get("deletionTimestamp"):
                continue
            conditions = (o.get("status") or {}).get("conditions") or ()
            if any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
                for text in (o.get("spec") or {}).get("cidrs") or ():
                    network = ipaddress.ip_network(text, strict=False)
                    if FAMILIES[network.version] == family and network not in found:
                        found.append(network)
        return found

    def describe(self, registry: Registry) -> None:
        def networks() -> Iterable[tuple[Network, set[str]]]:
            return [(n, self._used_ips()) for family in self.families for n in self.networks(family)]

        self._figures.describe(registry, networks, self._used_ports, self.node_ports)

    async def allocate_next_ip(self, family: str, namespace: str, name: str, *, dry_run: bool = False) -> str:
        """Raises RangeFull."""
        for network in self.networks(family):
            started = perf_counter()
            first, last = usable(network)
            size = last - first + 1
            reserved = _reserved(network.num_addresses)
            for low, high in ((reserved, size), (0, min(reserved, size))):
                for offset in self._scan(low, high):
                    ip = str(network[0] + (first - int(network[0])) + offset)
                    if ip not in self._used_ips() and (dry_run or await self._hold(ip, namespace, name)):
                        if not dry_run:
                            self._figures.address(network, "dynamic", started)
                        return ip
            self._figures.address(network, "dynamic", started, well=False)
        raise RangeFull

    def _scan(self, low: int, high: int) -> Iterable[int]:
        """Every offset once, from a random one on."""
        if high <= low:
            return
        start = self._random.randrange(low, high)
        yield from range(start, high)
        yield from range(low, start)

    async def allocate_ip(self, ip: str, namespace: str, name: str, *, dry_run: bool = False) -> None:
        """Raises NotAllocatable."""
        address = ipaddress.ip_address(ip)
        network = next((n for n in self.networks(FAMILIES[address.version]) if address in n), None)
        if network is None:
            raise NotAllocatable("the provided network does not match the current range")
        first, last = usable(network)
        if not first <= int(address) <= last:
            raise NotAllocatable("the provided network does not match the current range")
        if str(address) in self._used_ips():
            raise NotAllocatable("provided IP is already allocated")
        started = perf_counter()
        if dry_run:
            return
        held = await self._hold(str(address), namespace, name)
        self._figures.address(network, "static", started, well=held)
        if not held:
            raise NotAllocatable("provided IP is already allocated")

    async def _hold(self, ip: str, namespace: str, name: str) -> bool:
        """False when another server was first."""
        self._used_ips().add(ip)
        if (going := self._cleaning.get(ip)) is not None:
            await asyncio.gather(going, return_exceptions=True)
        family = family_of(ip)
        holder: Obj = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IPAddress",
            "metadata": {
                "name": ip,
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": family,
                    "ipaddress.kubernetes.io/managed-by": MANAGED_BY,
                },
            },
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
        }
        try:
            await self.api.create(resource("ipaddresses.networking.k8s.io"), "", holder)
        except ApiError as e:
            if e.reason == "AlreadyExists":
                return False
            self._used_ips().discard(ip)
            raise
        return True

    def release_ips(self, ips: Iterable[str]) -> None:
        """Free at once; their IPAddress objects go in the background."""
        for ip in ips:
            self._used_ips().discard(ip)
            task = self._cleaning[ip] = asyncio.get_running_loop().create_task(self._forget(ip))
            task.add_done_callback(lambda _, ip=ip: self._cleaning.pop(ip, None))  # type: ignore[misc]

    async def _forget(self, ip: str) -> None:
        try:
            await self.api.delete(resource("ipaddresses.networking.k8s.io"), "", ip)
        except ApiError as e:
            if e.reason != "NotFound":
                self._used_ips().add(ip)  # still held; the next repair sees it again

    async def settle(self) -> None:
        """Until nothing is left to clean up."""
        while self._cleaning:
            await asyncio.gather(*self._cleaning.values(), return_exceptions=True)

    def allocate_port(self, port: int, *, dry_run: bool = False) -> None:
        """A dry run may ask for a port beyond the range, as upstream's may. Raises NotAllocatable."""
        low, high = self.node_ports
        if not low <= port <= high and not dry_run:
            raise NotAllocatable(f"provided port is not in the valid range. The range of valid ports is {low}-{high}")
        used = self._used_ports()
        self._figures.port("static", well=port not in used)
        if port in used:
            raise NotAllocatable("provided port is already allocated")
        used.add(port)

    def allocate_next_port(self) -> int:
        """Raises RangeFull."""
        low, high = self.node_ports
        size = high - low + 1
        reserved = 0 if size < 128 else min(max(16, size // 32), 128)
        used = self._used_ports()
        for start, end in ((reserved, size), (0, reserved)):
            for offset in self._scan(start, end):
                if low + offset not in used:
                    used.add(low + offset)
                    self._figures.port("dynamic")
                    return low + offset
        self._figures.port("dynamic", well=False)
        raise RangeFull

    def release_ports(self, ports: Iterable[int]) -> None:
        self._used_ports().difference_update(ports)


def ports_of(service: Obj) -> list[int]:
    """The node ports a service holds, its health check's too."""
    spec = service.get("spec") or {}
    found = [p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        found.append(spec["healthCheckNodePort"])
    return found
