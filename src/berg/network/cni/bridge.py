"""Berg's own pod network: a bridge per node, a veth pair per pod, addresses from the node's pod CIDR.

Connecting a pod is a few netlink messages: one makes the pair (far end in the pod's namespace, near end on the
bridge), a batch of others brings the far end up with its address and route. No program is started. What was given to
whom stands in files, so that a restarted node agent goes on and `destroy` leaves nothing.

    DIR/addresses/     one file per address (`ipam.py`)
    DIR/pods/ID.json   what a pod has: addresses, host ports

A table of our own in nftables (`inet berg-NAME-cni`) masks pods that talk to the world beyond the cluster, and carries
the host ports as elements of maps, so that a pod with host ports is one small transaction.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ipaddress
import os
import shutil
import socket
import threading
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import orjson

from berg.machinery import nftables as nft
from berg.network.cni import rtnetlink as rt
from berg.network.cni.ipam import Exhausted, HostLocal
from berg.network.cni.ruleset import host_port_commands, table_commands
from berg.runtime.network import PodNetworkError, PodNetworkRequest, PodNetworkResult

INTERFACE = "eth0"

_SYSCTLS = {"net/ipv4/ip_forward": "1"}
_SYSCTLS_V6 = {"net/ipv6/conf/all/forwarding": "1"}
_BRIDGE_NF = {"net/bridge/bridge-nf-call-iptables": "1", "net/bridge/bridge-nf-call-ip6tables": "1"}


class BridgeNetwork:
    """A body of `berg.runtime.network.PodNetwork`. Without pod CIDRs it is not ready, until `set_pod_cidrs`."""

    def __init__(
        self,
        name: str,
        directory: str,
        *,
        pod_cidrs: Sequence[str] = (),
        cluster_cidrs: Sequence[str] = (),
        mtu: int = 0,
        bridge: str = "",
    ) -> None:
        self.bridge = bridge or bridge_name(name)
        self.table = f"berg-{name}-cni"
        self._directory = directory
        self._cidrs = _normal(pod_cidrs)
        self._cluster_cidrs = list(cluster_cidrs)
        self._mtu = mtu
        self._ipam: HostLocal | None = None
        self._index = 0
        self._lock = threading.Lock()
        self._trouble = "no pod CIDR has been assigned to the node yet"

    async def start(self) -> None:
        """Makes the bridge and the table, or takes up those that are there. Raises PodNetworkError."""
        if self._cidrs and self._ipam is None:
            await asyncio.to_thread(self._prepare)

    async def stop(self) -> None:
        """Pods stay connected."""

    async def set_pod_cidr(self, cidrs: str) -> None:
        """The node's CIDRs, separated by commas, as the kubelet passes them on."""
        wanted = _normal(cidr for cidr in cidrs.split(",") if cidr)
        if wanted and (wanted != self._cidrs or self._ipam is None):
            self._cidrs = wanted
            await asyncio.to_thread(self._prepare)

    async def setup(self, request: PodNetworkRequest) -> PodNetworkResult:
        await self.start()
        return await asyncio.to_thread(self._setup, request)

    async def teardown(self, request: PodNetworkRequest) -> None:
        await asyncio.to_thread(self._teardown, request.sandbox_id)

    async def status(self) -> str | None:
        try:
            await self.start()
        except PodNetworkError as error:
            return str(error)
        return None if self._ipam is not None else self._trouble

    async def gc(self, keep: Collection[str]) -> None:
        """Forgets every pod that is not among these sandboxes."""
        owners = set(self._addresses().owners().values())
        for stray in (owners | set(self._pods())) - set(keep):
            await asyncio.to_thread(self._teardown, stray)

    async def destroy(self) -> None:
        """Removes the bridge with every pod's cable, the table and the files."""
        await asyncio.to_thread(self._destroy)

    # In a thread from here on

    def _prepare(self) -> None:
        with self._lock:
            if self._ipam is not None and list(map(str, self._ipam.networks)) == self._cidrs:
                return  # somebody else was faster
            try:
                ipam = HostLocal(os.path.join(self._directory, "addresses"), self._cidrs)
                os.makedirs(os.path.join(self._directory, "pods"), exist_ok=True)
                self._prepare_bridge(ipam)
                _prepare_sysctls(self.bridge, ipam)
                commands = table_commands(self.table, self.bridge, ipam.networks, self._cluster_cidrs)
                for pod in self._pods().values():
                    commands += host_port_commands(self.table, "add", pod["ips"], pod["ports"])
                nft.run(commands)
            except (OSError, ValueError, nft.NftError) as error:
                self._trouble = f"the pod network cannot be set up: {error}"
                raise PodNetworkError(self._trouble) from error
            self._ipam = ipam

    def _prepare_bridge(self, ipam: HostLocal) -> None:
        with rt.Connection() as netlink:
            links = netlink.links()
            mtu = self._mtu or _outer_mtu(netlink, links)
            self._mtu = mtu
            if self.bridge not in links:
                netlink.request(rt.new_bridge(self.bridge, _mac(ipam.gateway(ipam.networks[0]).ip), mtu))
                links = netlink.links()
            self._index = links[self.bridge].index
            wanted = {ipam.gateway(network) for network in ipam.networks}
            present = {a for a in netlink.addresses(self._index) if not a.ip.is_link_local}
            changes = [rt.delete_address(self._index, a) for a in present - wanted]
            changes += [rt.new_address(self._index, a) for a in wanted - present]
            if changes:
                netlink.request(*changes)

    def _setup(self, request: PodNetworkRequest) -> PodNetworkResult:
        if self._ipam is not None and _index_of(self.bridge) != self._index:
            self._ipam = None  # somebody has deleted the bridge; the next pod has one again, as with the CNI plugin
            self._prepare()
        ipam = self._ipam
        if ipam is None:
            raise PodNetworkError(self._trouble)
        try:
            interfaces = ipam.allocate(request.sandbox_id)
        except Exhausted as error:
            raise PodNetworkError(str(error)) from error
        try:
            self._connect(request, interfaces)
            ips = [str(interface.ip) for interface in interfaces]
            ports = [[m.protocol, m.host_ip, m.host_port, m.container_port] for m in request.port_mappings]
            self._record(request.sandbox_id, {"ips": ips, "ports": ports})
            if ports:
                nft.run(host_port_commands(self.table, "add", ips, ports))
        except (OSError, nft.NftError) as error:
            self._teardown(request.sandbox_id)
            text = f'failed to setup network for sandbox "{request.sandbox_id}": {error}'
            raise PodNetworkError(text) from error
        return PodNetworkResult(ips=ips, interface=INTERFACE)

    def _connect(self, request: PodNetworkRequest, interfaces: Sequence[rt.Interface]) -> None:
        near = _cable(request.sandbox_id)
        netns = os.open(request.netns_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with rt.Connection() as netlink:
                new = rt.new_veth(near, self._index, self._mtu, netns, INTERFACE, _mac(interfaces[0].ip))
                try:
                    netlink.request(new)
                except FileExistsError:
                    # What a setup left that was killed half way.
                    netlink.request(rt.delete_link(near))
                    netlink.request(new)
                netlink.request(rt.set_hairpin(_index_of(near)))
        finally:
            os.close(netns)
        with rt.Connection(request.netns_path) as inside:
            index = inside.links()[INTERFACE].index
            inside.request(
                rt.set_up(index),
                *(rt.new_address(index, interface) for interface in interfaces),
                *(rt.new_default_route(index, HostLocal.gateway(i.network).ip) for i in interfaces),
            )

    def _teardown(self, sandbox_id: str) -> None:
        pod = self._pods().get(sandbox_id)
        if pod is not None and pod["ports"]:
            try:
                nft.run(host_port_commands(self.table, "delete", pod["ips"], pod["ports"]))
            except nft.NftError:
                self._rebuild(without=sandbox_id)
        try:
            with rt.Connection() as netlink:
                netlink.request(rt.delete_link(_cable(sandbox_id)))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise PodNetworkError(f'cannot remove the cable of sandbox "{sandbox_id}": {error}') from error
        for path in (self._pod_path(sandbox_id), self._pod_path(sandbox_id) + ".new"):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        # The address last: as long as anything of the pod is left, nobody else may get it.
        self._addresses().release(sandbox_id)

    def _addresses(self) -> HostLocal:
        """Also before the node's CIDRs are known again: what is to be released stands in the files."""
        return self._ipam or HostLocal(os.path.join(self._directory, "addresses"), ())

    def _rebuild(self, without: str) -> None:
        """Somebody changed the table under us: made anew from what is on record."""
        if self._ipam is None:
            return
        commands = table_commands(self.table, self.bridge, self._ipam.networks, self._cluster_cidrs)
        for id, pod in self._pods().items():
            if id != without:
                commands += host_port_commands(self.table, "add", pod["ips"], pod["ports"])
        try:
            nft.run(commands)
        except nft.NftError as error:
            raise PodNetworkError(str(error)) from error

    def _destroy(self) -> None:
        with self._lock, rt.Connection() as netlink:
            links = netlink.links()
            bridge = links.get(self.bridge)
            if bridge is not None:
                cables = [link.name for link in links.values() if link.master == bridge.index]
                for name in [*cables, self.bridge]:
                    try:
                        netlink.request(rt.delete_link(name))
                    except OSError as error:
                        if error.errno != errno.ENODEV:
                            raise
            try:
                nft.run(f"table inet {self.table}\ndelete table inet {self.table}\n")
            except nft.NftError:
                pass  # no nftables on this machine, so no table either
            shutil.rmtree(self._directory, ignore_errors=True)
            self._ipam = None

    def _pods(self) -> dict[str, Any]:
        found = {}
        try:
            names = os.listdir(os.path.join(self._directory, "pods"))
        except FileNotFoundError:
            return {}
        for name in names:
            id, _, suffix = name.rpartition(".")
            if suffix != "json":
                continue
            try:
                with open(self._pod_path(id), "rb") as file:
                    found[id] = orjson.loads(file.read())
            except (FileNotFoundError, ValueError):
                continue
        return found

    def _record(self, sandbox_id: str, pod: dict[str, Any]) -> None:
        path = self._pod_path(sandbox_id)
        with open(path + ".new", "wb") as file:
            file.write(orjson.dumps(pod))
        os.replace(path + ".new", path)

    def _pod_path(self, sandbox_id: str) -> str:
        return os.path.join(self._directory, "pods", f"{sandbox_id}.json")


def _normal(cidrs: Iterable[str]) -> list[str]:
    return [str(ipaddress.ip_network(cidr, strict=False)) for cidr in cidrs]


def bridge_name(name: str) -> str:
    """An interface's name has 15 characters at most."""
    wanted = f"cni-{name}"
    return wanted if len(wanted) <= 15 else f"cni-{hashlib.sha256(name.encode()).hexdigest()[:11]}"


def _cable(sandbox_id: str) -> str:
    return f"veth{hashlib.sha256(sandbox_id.encode()).hexdigest()[:11]}"


def _index_of(name: str) -> int:
    """0 for a link that there is not."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _mac(ip: rt.Address) -> bytes:
    """An address that follows from the pod's, so that a reused one never meets a stale neighbour entry."""
    return b"\x0a\x58" + ip.packed[-4:]


def _outer_mtu(netlink: rt.Connection, links: dict[str, rt.Link]) -> int:
    index = netlink.default_link()
    return next((link.mtu for link in links.values() if link.index == index), 1500)


def _prepare_sysctls(bridge: str, ipam: HostLocal) -> None:
    wanted = dict(_SYSCTLS)
    if any(network.version == 6 for network in ipam.networks):
        wanted |= _SYSCTLS_V6
    # A host port is reached from the node itself by 127.0.0.1 too, which is not routed unless told to.
    wanted[f"net/ipv4/conf/{bridge}/route_localnet"] = "1"
    for name, value in wanted.items():
        _sysctl(name, value)
    # Without this an answer that a service's pod sends to a pod on the same bridge never passes the rules that must
    # turn its address back.
    if not os.path.exists("/proc/sys/net/bridge"):
        _load_module("br_netfilter")
    for name, value in _BRIDGE_NF.items():
        if os.path.exists(f"/proc/sys/{name}"):
            _sysctl(name, value)


def _sysctl(name: str, value: str) -> None:
    path = f"/proc/sys/{name}"
    with open(path) as file:
        if file.read().strip() == value:
            return
    with open(path, "w") as file:
        file.write(value)


def _load_module(name: str) -> None:
    import subprocess

    try:
        subprocess.run(["modprobe", name], check=False, capture_output=True)
    except FileNotFoundError:
        pass
