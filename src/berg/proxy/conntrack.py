"""Flows that the kernel remembers and should not: UDP has no end, so a flow to an endpoint that is gone, or to a
service from before it had one, would live on for as long as its client talks.

`forget` deletes the entries of a UDP service port that do not lead to one of its present endpoints.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Any

from berg.proxy.model import ServicePort

log = logging.getLogger(__name__)


def forget(ports: Sequence[ServicePort], family: int) -> int:
    """Returns how many entries were deleted. Blocks; never raises for what the kernel lacks."""
    from pyroute2 import NFCTSocket
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    allowed: dict[tuple[str, int], set[str]] = {}
    node_ports: dict[int, set[str]] = {}
    for p in ports:
        allowed.setdefault((p.cluster_ip, p.port), set()).update(a for a, _ in p.internal)
        for address in p.external_ips:
            allowed.setdefault((address, p.port), set()).update(a for a, _ in p.external)
        if p.node_port:
            node_ports.setdefault(p.node_port, set()).update(a for a, _ in p.external)
    deleted = 0
    try:
        with NFCTSocket(nfgen_family=socket.AF_INET if family == 4 else socket.AF_INET6) as ct:
            for entry in list(ct.dump()):
                original, reply = _tuple(entry, "CTA_TUPLE_ORIG"), _tuple(entry, "CTA_TUPLE_REPLY")
                if original is None or reply is None or original[4] != socket.IPPROTO_UDP:
                    continue
                source, destination, sport, dport, protocol = original
                targets = allowed.get((destination, dport))
                if targets is None and reply[0] != destination:
                    targets = node_ports.get(dport)
                if targets is None or reply[0] in targets:
                    continue
                which = NFCTAttrTuple(
                    family=socket.AF_INET if family == 4 else socket.AF_INET6,
                    saddr=source,
                    daddr=destination,
                    proto=protocol,
                    sport=sport,
                    dport=dport,
                )
                ct.entry("del", tuple_orig=which)
                deleted += 1
    except Exception as e:
        log.warning("old UDP flows could not be forgotten: %s", e)
    return deleted


def _tuple(entry: Any, name: str) -> tuple[str, str, int, int, int] | None:
    """(source, destination, source port, destination port, protocol)"""
    t = entry.get_attr(name)
    if t is None:
        return None
    ip, proto = t.get_attr("CTA_TUPLE_IP"), t.get_attr("CTA_TUPLE_PROTO")
    if ip is None or proto is None:
        return None
    source = ip.get_attr("CTA_IP_V4_SRC") or ip.get_attr("CTA_IP_V6_SRC")
    destination = ip.get_attr("CTA_IP_V4_DST") or ip.get_attr("CTA_IP_V6_DST")
    sport, dport = proto.get_attr("CTA_PROTO_SRC_PORT"), proto.get_attr("CTA_PROTO_DST_PORT")
    if sport is None or dport is None:
        return None
    return source, destination, int(sport), int(dport), int(proto.get_attr("CTA_PROTO_NUM"))
