"""The few rtnetlink messages that connecting a pod takes, packed by hand.

Source: rtnetlink(7), include/uapi/linux/{rtnetlink,if_link}.h.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct

from berg.machinery import netlink
from berg.machinery.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Request,
    attribute,
    attributes,
    nested,
    number,
    text,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IFINFO = struct.Struct("=BxHiII")

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 20, 21, 22, 24, 25, 26

IFF_UP = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_PROTINFO, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 12, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER, _BRPORT_HAIRPIN = 1, 2, 1, 4
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_F_NODAD = 1, 2, 8, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_AF_BRIDGE = 7
_CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def new_bridge(name: str, mac: bytes, mtu: int) -> Request:
    body = _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + text(IFLA_IFNAME, name) + attribute(IFLA_ADDRESS, mac)
    body += number(IFLA_MTU, mtu) + nested(IFLA_LINKINFO, text(_INFO_KIND, "bridge"))
    return RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body


def new_veth(name: str, bridge: int, mtu: int, netns_fd: int, peer: str, peer_mac: bytes) -> Request:
    """Both ends at once: the near one up and a port of the bridge, the far one in its namespace under its final name
    (it can only be brought up once its other end is there: `set_up`)."""
    far = _IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, peer) + attribute(IFLA_ADDRESS, peer_mac)
    far += number(IFLA_MTU, mtu) + number(IFLA_NET_NS_FD, netns_fd)
    info = nested(IFLA_LINKINFO, text(_INFO_KIND, "veth"), nested(_INFO_DATA, attribute(_VETH_PEER, far)))
    body = _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + text(IFLA_IFNAME, name) + number(IFLA_MTU, mtu)
    return RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + number(IFLA_MASTER, bridge) + info


def set_hairpin(index: int) -> Request:
    """The bridge may send a packet back where it came from: a pod that calls its own service needs that."""
    port = nested(IFLA_PROTINFO, attribute(_BRPORT_HAIRPIN, b"\1"))
    return RTM_SETLINK, 0, _IFINFO.pack(_AF_BRIDGE, 0, index, 0, 0) + port


def set_up(index: int) -> Request:
    return RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP)


def delete_link(name: str) -> Request:
    return RTM_DELLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name)


def new_address(index: int, interface: Interface) -> Request:
    packed = interface.ip.packed
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, interface.network.prefixlen, 0, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if interface.version == 6:
        body += number(_IFA_FLAGS, _IFA_F_NODAD)
    return RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body


def delete_address(index: int, interface: Interface) -> Request:
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, interface.network.prefixlen, 0, 0, index)
    return RTM_DELADDR, 0, body + attribute(_IFA_LOCAL, interface.ip.packed)


def new_default_route(index: int, gateway: Address) -> Request:
    family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
    # Table main, protocol boot, scope universe, type unicast.
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 3, 0, 1, 0)
    return (
        RTM_NEWROUTE,
        NLM_F_CREATE | NLM_F_EXCL,
        body + attribute(_RTA_GATEWAY, gateway.packed) + number(_RTA_OIF, index),
    )


class Connection(netlink.Connection):
    """A socket for routes in the namespace at `netns`, or in this one. For one thread at a time."""

    def __init__(self, netns: str = "") -> None:
        super().__init__(_in_netns(netns) if netns else _socket())

    def links(self) -> dict[str, Link]:
        links = (Link(body) for body in self.dump(RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0)))
        return {link.name: link for link in links}

    def addresses(self, index: int) -> list[Interface]:
        found = []
        for body in self.dump(RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            _, prefix, _, _, owner = struct.unpack_from("=BBBBI", body)
            parts = attributes(body, 8)
            packed = parts.get(_IFA_LOCAL) or parts.get(_IFA_ADDRESS)
            if owner == index and packed is not None:
                found.append(ipaddress.ip_interface((packed, prefix)))
        return found

    def default_link(self) -> int | None:
        """The index of the interface that the default route leaves by."""
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in self.dump(RTM_GETROUTE, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)):
                table, kind = body[4], body[7]
                parts = attributes(body, 12)
                if body[1] == 0 and table == 254 and kind == 1 and _RTA_OIF in parts and _RTA_DST not in parts:
                    return int(struct.unpack("=I", parts[_RTA_OIF])[0])
        return None


class Link:
    def __init__(self, body: bytes) -> None:
        _, _, self.index, self.flags, _ = _IFINFO.unpack_from(body)
        parts = attributes(body, _IFINFO.size)
        self.name = parts[IFLA_IFNAME].rstrip(b"\0").decode()
        self.mtu = struct.unpack("=I", parts[IFLA_MTU])[0] if IFLA_MTU in parts else 0
        self.mac = parts.get(IFLA_ADDRESS, b"")
        self.master = struct.unpack("=I", parts[IFLA_MASTER])[0] if IFLA_MASTER in parts else 0


def _socket() -> socket.socket:
    return netlink.open_socket(socket.NETLINK_ROUTE)


def _in_netns(path: str) -> socket.socket:
    """A socket belongs to the namespace that it was made in; the thread goes there for just this one call."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            return _socket()
        finally:
            _setns(home)
    finally:
        os.close(home)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")
