"""What is counted of cluster IPs and node ports.

Source: kubernetes pkg/registry/core/service/{ipallocator,portallocator}/metrics.go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from time import perf_counter

from berg.machinery.metrics import Counter, Histogram, Registry, Samples

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class AllocationFigures:
    def __init__(self) -> None:
        self._addresses, self._no_addresses = Counter(("cidr", "scope")), Counter(("cidr", "scope"))
        self._ports, self._no_ports = Counter(("scope",)), Counter(("scope",))
        self._seconds = Histogram(("cidr",), _SECONDS)

    def address(self, network: Network, scope: str, started: float, *, well: bool = True) -> None:
        """`scope`: static (asked for) or dynamic."""
        (self._addresses if well else self._no_addresses).inc(str(network), scope)
        self._seconds.observe(perf_counter() - started, str(network))

    def port(self, scope: str, *, well: bool = True) -> None:
        (self._ports if well else self._no_ports).inc(scope)

    def describe(
        self,
        r: Registry,
        networks: Callable[[], Iterable[tuple[Network, set[str]]]],
        ports: Callable[[], set[int]],
        port_range: tuple[int, int],
    ) -> None:
        """`networks`: each with all addresses that are in use."""

        def addresses(*, free: bool) -> Samples:
            for network, used in networks():
                taken = sum(ipaddress.ip_address(ip) in network for ip in used)
                first, last = usable(network)
                yield (str(network),), last - first + 1 - taken if free else taken

        first, last = port_range
        ip, node = "kube_apiserver_clusterip_allocator", "kube_apiserver_nodeport_allocator"
        r.gauge(f"{ip}_allocated_ips", "[ALPHA] Cluster IPs in use.", ("cidr",), lambda: addresses(free=False))
        r.gauge(f"{ip}_available_ips", "[ALPHA] Cluster IPs that are free.", ("cidr",), lambda: addresses(free=True))
        r.gauge(f"{node}_allocated_ports", "[ALPHA] Node ports in use.", (), lambda: [((), len(ports()))])
        help = "[ALPHA] Node ports that are free."
        r.gauge(f"{node}_available_ports", help, (), lambda: [((), last - first + 1 - len(ports()))])
        for name, help, kept in (
            (f"{ip}_allocation_total", "[ALPHA] Cluster IPs given.", self._addresses),
            (f"{ip}_allocation_errors_total", "[ALPHA] Cluster IPs that could not be given.", self._no_addresses),
            (f"{node}_allocation_total", "[ALPHA] Node ports given.", self._ports),
            (f"{node}_allocation_errors_total", "[ALPHA] Node ports that could not be given.", self._no_ports),
        ):
            r.total(name, help, kept.labels, lambda kept=kept: kept.values.items())  # type: ignore[misc]
        help = "[ALPHA] How long it took to give a cluster IP."
        name = f"{ip}_allocation_duration_seconds"
        r.distribution(name, help, _SECONDS, self._seconds.labels, self._seconds.cells)


def usable(network: Network) -> tuple[int, int]:
    """The first and last address that may be given out: neither the network's own nor IPv4's broadcast address."""
    first, last = int(network[0]) + 1, int(network[-1])
    if network.version == 4 and network.prefixlen < 31:
        last -= 1
    return (first, last) if network.prefixlen < network.max_prefixlen - 1 else (int(network[0]), int(network[-1]))
