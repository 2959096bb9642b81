"""The few rtnetlink messages that connecting a pod takes, packed by hand.

A connection sends a batch of requests in one call and reads the answers; the first that the kernel refuses raises.
Written out because a general library costs more to import (100 ms, 20 MB) than all pods of a node cost to connect.

Source: rtnetlink(7), include/uapi/linux/{rtnetlink,if_link}.h.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_REPLACE = 1, 4, 0x300, 0x100
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 20, 21, 22, 24, 25, 26

IFF_UP = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_PROTINFO, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 12, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER, _BRPORT_HAIRPIN = 1, 2, 1, 4
_NESTED = 0x8000
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_F_NODAD = 1, 2, 8, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_AF_BRIDGE = 7
_CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


Request = tuple[int, int, bytes]
"""Type, flags, body."""


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


class Connection:
    """A netlink socket in the namespace at `netns`, or in this one. For one thread at a time."""

    def __init__(self, netns: str = "") -> None:
        self._sequence = 0
        self._socket = _in_netns(netns) if netns else _socket()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, *requests: Request) -> None:
        """Sends all, waits for all; raises the first refusal as OSError. Those after it were carried out too."""
        first = self._sequence + 1
        packet = b"".join(self._pack(kind, flags | NLM_F_ACK, body) for kind, flags, body in requests)
        self._socket.send(packet)
        pending = set(range(first, self._sequence + 1))
        failure: OSError | None = None
        while pending:
            for kind, sequence, body in self._receive():
                if kind != _NLMSG_ERROR or sequence not in pending:
                    continue
                pending.discard(sequence)
                code = struct.unpack_from("=i", body)[0]
                if code and failure is None:
                    failure = OSError(-code, os.strerror(-code))
        if failure is not None:
            raise failure

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        self._socket.send(self._pack(kind, NLM_F_DUMP, body))
        found: list[bytes] = []
        while True:
            for answer, sequence, data in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == _NLMSG_DONE:
                    return found
                if answer == _NLMSG_ERROR:
                    code = struct.unpack_from("=i", data)[0]
                    raise OSError(-code, os.strerror(-code))
                found.append(data)

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

    def _pack(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0) + body

    def _receive(self) -> Sequence[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 20)
        messages = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
            messages.append((kind, sequence, data[offset + _HEADER.size : offset + length]))
            offset += (length + 3) & ~3
        return messages


class Link:
    def __init__(self, body: bytes) -> None:
        _, _, self.index, self.flags, _ = _IFINFO.unpack_from(body)
        parts = attributes(body, _IFINFO.size)
        self.name = parts[IFLA_IFNAME].rstrip(b"\0").decode()
        self.mtu = struct.unpack("=I", parts[IFLA_MTU])[0] if IFLA_MTU in parts else 0
        self.mac = parts.get(IFLA_ADDRESS, b"")
        self.master = struct.unpack("=I", parts[IFLA_MASTER])[0] if IFLA_MASTER in parts else 0


def attributes(body: bytes, offset: int) -> dict[int, bytes]:
    found = {}
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _socket() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    netlink.bind((0, 0))
    return netlink


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
