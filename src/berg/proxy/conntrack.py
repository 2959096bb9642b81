"""Flows that the kernel remembers and should not: UDP has no end, so a flow to an endpoint that is gone, or to a
service from before it had one, would live on for as long as its client talks.

`forget` deletes the entries of a UDP service port that do not lead to one of its present endpoints. A machine may have
a hundred thousand entries, nearly all of them somebody else's: each is looked at as bytes, and no further than needed.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import struct
from collections.abc import Sequence

from berg.machinery.netlink import Connection, attribute, attributes, nested, open_socket
from berg.proxy.model import ServicePort

log = logging.getLogger(__name__)

_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102
"""subsystem conntrack, and the message"""
_NFGEN = struct.Struct("=BBH")
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE = 1, 2, 18
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _SPORT, _DPORT = 1, 2, 3
_ADDRESSES = {4: (1, 2), 6: (3, 4)}
"""source and destination within the tuple"""


def forget(ports: Sequence[ServicePort], family: int) -> int:
    """Returns how many entries were deleted. Blocks; never raises for what the kernel lacks."""
    allowed: dict[tuple[bytes, int], set[bytes]] = {}
    node_ports: dict[int, set[bytes]] = {}
    for p in ports:
        inside, outside = {_packed(a) for a, _ in p.internal}, {_packed(a) for a, _ in p.external}
        allowed.setdefault((_packed(p.cluster_ip), p.port), set()).update(inside)
        for address in p.external_ips:
            allowed.setdefault((_packed(address), p.port), set()).update(outside)
        if p.node_port:
            node_ports.setdefault(p.node_port, set()).update(outside)
    head = _NFGEN.pack(socket.AF_INET if family == 4 else socket.AF_INET6, 0, 0)
    try:
        with Connection(open_socket(_NETLINK_NETFILTER)) as netlink:
            stale = [
                head + entry
                for body in netlink.answers(_GET, head)
                if (entry := _stale(body, family, allowed, node_ports)) is not None
            ]
            for body in stale:
                try:
                    netlink.request((_DELETE, 0, body))
                except FileNotFoundError:
                    continue  # it ended meanwhile
    except OSError as e:
        log.warning("old UDP flows could not be forgotten: %s", e)
        return 0
    return len(stale)


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _stale(
    body: bytes, family: int, allowed: dict[tuple[bytes, int], set[bytes]], node_ports: dict[int, set[bytes]]
) -> bytes | None:
    """What names the entry in a request to delete it; None for one that may stay."""
    entry = attributes(body, _NFGEN.size)
    original = attributes(entry.get(_TUPLE_ORIG, b""), 0)
    protocol = attributes(original.get(_TUPLE_PROTO, b""), 0)
    if protocol.get(_PROTO_NUM) != b"\x11" or _DPORT not in protocol:  # UDP
        return None
    port = int.from_bytes(protocol[_DPORT], "big")
    source, destination = _ADDRESSES[family]
    called = attributes(original.get(_TUPLE_IP, b""), 0).get(destination, b"")
    reply = attributes(attributes(entry.get(_TUPLE_REPLY, b""), 0).get(_TUPLE_IP, b""), 0)
    answering = reply.get(source, b"")
    targets = allowed.get((called, port))
    if targets is None and answering != called:
        targets = node_ports.get(port)
    if targets is None or answering in targets:
        return None
    zone = attribute(_ZONE, entry[_ZONE]) if _ZONE in entry else b""
    return nested(_TUPLE_ORIG, entry[_TUPLE_ORIG]) + zone
