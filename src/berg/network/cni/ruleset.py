"""The texts of the bridge network's nftables table.

    prerouting, output   host ports: what comes to one of the node's own addresses goes to the pod
    postrouting          pods that leave the cluster carry the node's address; so do callers of a host port that could
                         not be answered otherwise (the pod itself, the node by 127.0.0.1)

`hostports*` map (protocol, port) to (pod, port); `hostipports*` the same for a host port on one address only.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import Any

from berg.network.cni.rtnetlink import Network

MARK = "0x2000"
"""The bit of the packet mark that says: mask the sender. The same one that CNI's portmap plugin uses."""

_FAMILIES = {4: ("ip", "ipv4_addr", "127.0.0.0/8"), 6: ("ip6", "ipv6_addr", "::1")}


def table_commands(table: str, bridge: str, pods: Sequence[Network], cluster_cidrs: Sequence[str]) -> str:
    """Makes the table anew, empty of host ports."""
    cluster: list[Network] = [*pods, *(ip_network(cidr, strict=False) for cidr in cluster_cidrs)]
    inside: dict[int, list[Network]] = {
        4: list(collapse_addresses(network for network in cluster if isinstance(network, IPv4Network))),
        6: list(collapse_addresses(network for network in cluster if isinstance(network, IPv6Network))),
    }
    body: list[str] = []
    dnat: list[str] = []
    masquerade = [f"meta mark & {MARK} == {MARK} masquerade fully-random"]
    for version, (family, kind, loopback) in _FAMILIES.items():
        own = [str(network) for network in pods if network.version == version]
        body += [
            f"map hostports{version} {{ type inet_proto . inet_service : {kind} . inet_service; }}",
            f"set hostportkeys{version} {{ type inet_proto . inet_service; }}",
            f"map hostipports{version} {{ type {kind} . inet_proto . inet_service : {kind} . inet_service; }}",
            f"set hostipportkeys{version} {{ type {kind} . inet_proto . inet_service; }}",
        ]
        senders = ", ".join([*own, loopback])
        key, keyed = "meta l4proto . th dport", f"{family} daddr . meta l4proto . th dport"
        mark = f"{family} saddr {{ {senders} }} meta mark set meta mark | {MARK}"
        dnat += [
            f"{keyed} @hostipportkeys{version} {mark}",
            f"{key} @hostportkeys{version} {mark}",
            f"dnat {family} to {keyed} map @hostipports{version}",
            f"meta nfproto ipv{version} dnat {family} to {key} map @hostports{version}",
        ]
        if own:
            nodes = ", ".join(map(str, inside[version]))
            beyond = f"{family} daddr != {{ {nodes} }}"
            multicast = "ip daddr != 224.0.0.0/4" if version == 4 else "ip6 daddr != ff00::/8"
            masquerade.append(f"{family} saddr {{ {', '.join(own)} }} {beyond} {multicast} masquerade fully-random")
    hostports = "fib daddr type local jump hostports"
    return "\n".join(
        [
            f"table inet {table}",
            f"delete table inet {table}",
            f"table inet {table} {{",
            *body,
            "chain hostports {",
            *dnat,
            "}",
            f"chain prerouting {{ type nat hook prerouting priority -101; policy accept; {hostports}; }}",
            f"chain output {{ type nat hook output priority -101; policy accept; {hostports}; }}",
            "chain postrouting {",
            "type nat hook postrouting priority 100; policy accept;",
            *masquerade,
            "}",
            "}",
            "",
        ]
    )


def host_port_commands(table: str, verb: str, ips: Sequence[str], ports: Sequence[Sequence[Any]]) -> str:
    """`verb`: add or delete. `ports`: protocol, host address, host port, port in the pod."""
    lines: list[str] = []
    for protocol, host_ip, host_port, port in ports:
        for ip in ips:
            version = ip_address(ip).version
            any_address = not host_ip or ip_address(host_ip).is_unspecified
            if not any_address and ip_address(host_ip).version != version:
                continue
            key = f"{protocol} . {host_port}" if any_address else f"{host_ip} . {protocol} . {host_port}"
            name = "hostport" if any_address else "hostipport"
            target = f" : {ip} . {port}" if verb == "add" else ""
            lines.append(f"{verb} element inet {table} {name}s{version} {{ {key}{target} }}")
            lines.append(f"{verb} element inet {table} {name}keys{version} {{ {key} }}")
    return "".join(f"{line}\n" for line in lines)
