"""More than one node on one machine: each further node is a network namespace of its own, joined by a bridge.

    host (first node)  172.30.INDEX.1 ── bridge bergINDEX-n ── veth ── 172.30.INDEX.2  (namespace berg-NAME-NODE)

To the cluster these are hosts like any other: their own addresses, ports, rules and routes.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Any

from berg.lifecycle.spec import ClusterSpec, NodeSpec

_CLONE_NEWNET = 0x40000000


def address(index: int, number: int) -> str:
    """The address of the cluster's node `number`, counted from 1."""
    return f"172.30.{index}.{number}"


def _bridged(spec: ClusterSpec) -> bool:
    """Whether the first node has its address on the bridge: for neighbours, or because the machine has none."""
    return bool(spec.nodes) and spec.nodes[0].address == address(spec.index, 1)


def node_bridge(spec: ClusterSpec) -> str:
    return f"{spec.bridge}-n"


def ensure(spec: ClusterSpec) -> None:
    """Makes what is missing; repairs nothing that is there. Needs root."""
    if not _bridged(spec):
        return
    remote = [n for n in spec.nodes if n.netns]
    from pyroute2 import IPRoute, netns

    with IPRoute() as ip:
        bridge = _link(ip, node_bridge(spec), kind="bridge")
        _address(ip, bridge, spec.nodes[0].address)
        # Without a default route the machine itself would not even try to reach a service.
        ip.route("replace", dst=spec.service_cidr, oif=bridge)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for node in remote:
            if node.netns not in netns.listnetns():
                netns.create(node.netns)
                _connect(ip, bridge, spec, node)


def _connect(ip: Any, bridge: int, spec: ClusterSpec, node: NodeSpec) -> None:
    from pyroute2 import NetNS

    number = node.address.rpartition(".")[2]
    outside = f"{spec.bridge}-v{number}"
    if found := ip.link_lookup(ifname=outside):
        ip.link("del", index=found[0])
    ip.link("add", ifname=outside, kind="veth", peer={"ifname": "eth0", "net_ns_fd": node.netns})
    ip.link("set", index=ip.link_lookup(ifname=outside)[0], master=bridge, state="up")
    # What a node sends to another's node port may lead back to itself; with bridge netfilter that is one port's way.
    Path(f"/sys/class/net/{outside}/brport/hairpin_mode").write_text("1")
    with NetNS(node.netns) as inner:
        inner.link("set", index=inner.link_lookup(ifname="lo")[0], state="up")
        inside = inner.link_lookup(ifname="eth0")[0]
        inner.link("set", index=inside, state="up")
        _address(inner, inside, node.address)
        inner.route("replace", dst="default", gateway=spec.nodes[0].address)


def _link(ip: Any, name: str, **kind: Any) -> int:
    if not ip.link_lookup(ifname=name):
        ip.link("add", ifname=name, **kind)
    index = int(ip.link_lookup(ifname=name)[0])
    ip.link("set", index=index, state="up")
    return index


def _address(ip: Any, index: int, address: str) -> None:
    held = [a.get_attr("IFA_ADDRESS") for a in ip.get_addr(index=index, family=2)]
    if address not in held:
        ip.addr("add", index=index, address=address, prefixlen=24)


def enter(name: str) -> None:
    """This process into the namespace. For a process with one thread only."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"entering the network namespace {name}")
    finally:
        os.close(fd)


def remove(spec: ClusterSpec) -> None:
    """Takes all of it away; it is fine when there is none."""
    if not _bridged(spec):
        return
    remote = [n for n in spec.nodes if n.netns]
    from pyroute2 import IPRoute, netns

    for node in remote:
        if node.netns in netns.listnetns():
            netns.remove(node.netns)
    with IPRoute() as ip:
        for node in remote:
            _delete(ip, f"{spec.bridge}-v{node.address.rpartition('.')[2]}")
        _delete(ip, node_bridge(spec))


def _delete(ip: Any, name: str) -> None:
    from pyroute2 import NetlinkError

    for index in ip.link_lookup(ifname=name):
        try:
            ip.link("del", index=index)
        except NetlinkError as e:
            if e.code != errno.ENODEV:  # it was just going, with the namespace of its other end
                raise
