"""Host-local addresses: which pod of this node has which address of the node's pod CIDRs.

A directory with one file per address, named by it, that holds the owner. Making the file exclusively is the
allocation, so two writers never get one address and a crash loses nothing. Addresses are given out in turn: one that
was just released is the last to be used again, while others may still remember who had it.

The network's own address, the first (the gateway, on the bridge) and, in IPv4, the broadcast address are not given out.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Collection, Iterator

from berg.network.cni.rtnetlink import Interface, Network


class Exhausted(Exception):
    pass


class HostLocal:
    def __init__(self, directory: str, cidrs: Collection[str]) -> None:
        self.networks: list[Network] = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
        self._directory = directory
        self._lock = threading.Lock()
        self._last: dict[Network, int] = {}
        os.makedirs(directory, exist_ok=True)
        for network in self.networks:
            self._last[network] = self._read_last(network)

    @staticmethod
    def gateway(network: Network) -> Interface:
        return _interface(network.network_address + 1, network)

    def allocate(self, owner: str) -> list[Interface]:
        """One address of each CIDR, in their order; the same again for an owner that has some. Raises Exhausted."""
        with self._lock:
            held = self._held(owner)
            given: list[Interface] = []
            try:
                for network in self.networks:
                    mine = next((ip for ip in held if ip in network), None)
                    given.append(_interface(mine if mine is not None else self._take(network, owner), network))
            except Exhausted:
                for interface in given:
                    if interface.ip not in held:
                        self._drop(str(interface.ip))
                raise
            return given

    def release(self, owner: str) -> None:
        with self._lock:
            for address in self._held(owner):
                self._drop(str(address))

    def owners(self) -> dict[str, str]:
        """Address to owner."""
        found = {}
        for name in os.listdir(self._directory):
            if not name.startswith("last-"):
                found[name.replace("_", ":")] = self._owner(name)
        return found

    def _held(self, owner: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        return [ipaddress.ip_address(address) for address, other in self.owners().items() if other == owner]

    def _take(self, network: Network, owner: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        for number in self._candidates(network):
            address = network.network_address + number
            try:
                fd = os.open(self._path(str(address)), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                continue
            with open(fd, "w") as file:
                file.write(owner)
            self._last[network] = number
            self._write_last(network, number)
            return address
        raise Exhausted(f"no IP addresses available in range set: {network}")

    def _candidates(self, network: Network) -> Iterator[int]:
        """Offsets to try, beginning after the last one given out."""
        first = 2
        last = network.num_addresses - (2 if network.version == 4 else 1)
        last = min(last, first + 0xFFFFF)  # nobody fills a larger range, and looking through it would take for ever
        start = self._last[network] + 1
        if not first <= start <= last:
            start = first
        yield from range(start, last + 1)
        yield from range(first, start)

    def _path(self, address: str) -> str:
        return os.path.join(self._directory, address.replace(":", "_"))

    def _owner(self, name: str) -> str:
        try:
            with open(os.path.join(self._directory, name)) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _drop(self, address: str) -> None:
        try:
            os.unlink(self._path(address))
        except FileNotFoundError:
            pass

    def _last_path(self, network: Network) -> str:
        return os.path.join(self._directory, f"last-{str(network).replace('/', '-').replace(':', '_')}")

    def _read_last(self, network: Network) -> int:
        try:
            with open(self._last_path(network)) as file:
                return int(file.read())
        except (FileNotFoundError, ValueError):
            return 1

    def _write_last(self, network: Network, number: int) -> None:
        with open(self._last_path(network), "w") as file:
            file.write(str(number))


def _interface(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: Network) -> Interface:
    return ipaddress.ip_interface(f"{address}/{network.prefixlen}")
