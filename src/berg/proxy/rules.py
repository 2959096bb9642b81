"""The rules in the kernel: one table whose chains never change, and maps that hold the services.

Rules are not made per service. A service of N endpoints is one element of the map `services`, whose verdict goes
to the chain `pick-N`, and N elements of the map `endpoints`, keyed by address, protocol, port and 0…N-1:

    dnat to  daddr . protocol . dport . (random mod N)  map @endpoints

So a change to a service is a change of a few elements, however many services there are: 0.3 ms against 50 ms with
a chain for each service (10,000 services here), and 0.3 s against 13 s for all of them at start.

What goes to a service has one of three manners, which are in the chain's name: `pick` (a cluster IP: the source
is rewritten only when it is not a pod's), `mask` (from outside: always rewritten, so that answers come back this
way), `keep` (externalTrafficPolicy Local: the client's address stays). Only session affinity needs chains of a
service's own, because what a client was given is remembered per endpoint.

`Fragment` is all the kernel must hold for one service port; `changes()` turns two of them into commands.

Source: for behaviour, k8s.io/kubernetes pkg/proxy/nftables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from berg.proxy.model import ServicePort, Target

MARK = 0x4000
"""The bit that asks for masquerade, kube-proxy's default."""
MANNERS = ("pick", "mask", "keep", "mask-node", "keep-node")


@dataclass(slots=True)
class Fragment:
    elements: dict[tuple[str, str], str] = field(default_factory=dict)
    """(map or set, key) → value; empty value for a set"""
    size: int = 0
    """the largest N of the shared chains that are used"""
    sets: dict[str, str] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)


class Family:
    """How IPv4 and IPv6 differ in the rules' words."""

    def __init__(self, version: int) -> None:
        self.nft = "ip" if version == 4 else "ip6"
        self.address = "ipv4_addr" if version == 4 else "ipv6_addr"


def fragment(sp: ServicePort, family: Family) -> Fragment:
    f = Fragment()
    key = f"{sp.cluster_ip} . {sp.protocol} . {sp.port}"
    f.elements["cluster-ips", sp.cluster_ip] = ""
    if sp.internal:
        f.elements["services", key] = _destination(f, sp, "pick", key, "endpoints", sp.internal, family)
    manner = "keep" if sp.preserve_source else "mask"
    for address in sp.external_ips:
        outer = f"{address} . {sp.protocol} . {sp.port}"
        # From inside, an external address is as good as the cluster's: policy Local does not bind pods.
        if sp.external:
            f.elements["services", outer] = _destination(f, sp, manner, outer, "endpoints", sp.external, family)
        else:
            f.elements["refused", outer] = "drop" if sp.drop_external else "goto refuse"
        for source in sp.source_ranges:
            f.elements["allowed-sources", f"{outer} . {source}"] = ""
        if sp.source_ranges:
            f.elements["guarded", outer] = "goto guard"
    if sp.node_port:
        outer = f"{sp.protocol} . {sp.node_port}"
        if sp.external:
            f.elements["node-ports", outer] = _destination(
                f, sp, f"{manner}-node", outer, "node-endpoints", sp.external, family
            )
        else:
            f.elements["refused-ports", outer] = "drop" if sp.drop_external else "goto refuse"
    for address, _ in sp.internal + sp.external:
        f.elements["hairpin", f"{address} . {address}"] = ""
    return f


def _destination(
    f: Fragment, sp: ServicePort, manner: str, key: str, endpoints: str, targets: tuple[Target, ...], family: Family
) -> str:
    """The verdict that sends what matched `key` to one of `targets`."""
    if sp.affinity_s:
        return f"goto {_affinity(f, sp, manner, targets, family)}"
    for i, (address, port) in enumerate(targets):
        f.elements[endpoints, f"{key} . {i}"] = f"{address} . {port}"
    f.size = max(f.size, len(targets))
    return f"goto {manner}-{len(targets)}"


def _affinity(f: Fragment, sp: ServicePort, manner: str, targets: tuple[Target, ...], family: Family) -> str:
    """A chain of the service's own: a client goes where it went before, for as long as it was told."""
    own = f"affinity-{_hash(sp.name, sp.protocol, manner)}"
    rules, choices = [*_marks(manner)], []
    for i, (address, port) in enumerate(targets):
        one = f"{own}-{_hash(address, str(port))}"
        f.sets[one] = f"type {family.address}; size 65535; flags dynamic,timeout; timeout {sp.affinity_s}s;"
        f.chains[one] = [
            f"update @{one} {{ {family.nft} saddr }}",
            f"meta l4proto {sp.protocol} dnat to {_joined(address, port)}",
        ]
        rules.append(f"{family.nft} saddr @{one} goto {one}")
        choices.append(f"{i} : goto {one}")
    rules.append(f"numgen random mod {len(targets)} vmap {{ {', '.join(choices)} }}")
    f.chains[own] = rules
    return own


def _hash(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _marks(manner: str) -> list[str]:
    if manner.startswith("mask"):
        return ["jump mark-for-masquerade"]
    return ["jump mark-strangers"] if manner == "pick" else []


def shared_chain(manner: str, size: int, family: Family) -> list[str]:
    """The rules of `MANNER-N`."""
    n = family.nft
    key, endpoints = (
        ("meta l4proto . th dport", "node-endpoints")
        if manner.endswith("-node")
        else (f"{n} daddr . meta l4proto . th dport", "endpoints")
    )
    pick = f"numgen random mod {size}"
    return [
        *_marks(manner),
        f"meta l4proto {{ tcp, udp, sctp }} dnat {n} to {key} . {pick} map @{endpoints}",
    ]


def base(table: str, family: Family, pod_cidr: str, largest: int) -> list[str]:
    """The table from nothing, with shared chains for up to `largest` endpoints: whatever stood there before goes
    in the same transaction.

    The shared chains are all made here because nftables 1.0 can't add a rule over a `typeof` map that an earlier
    transaction made ("conflicting protocols").
    """
    n, address = family.nft, family.address
    t = f"{n} {table}"
    catch = f"{n} daddr . meta l4proto . th dport"
    strangers = f"{n} saddr != {pod_cidr} jump mark-for-masquerade" if pod_cidr else "jump mark-for-masquerade"
    commands = [f"add table {t}", f"delete table {t}", f"add table {t}"]
    commands += [
        f"add set {t} cluster-ips {{ type {address}; }}",
        f"add set {t} hairpin {{ type {address} . {address}; }}",
        f"add map {t} services {{ type {address} . inet_proto . inet_service : verdict; }}",
        f"add map {t} endpoints {{ typeof {catch} . numgen random mod 65535 : {n} daddr . th dport; }}",
        f"add map {t} node-ports {{ type inet_proto . inet_service : verdict; }}",
        f"add map {t} node-endpoints {{ typeof meta l4proto . th dport . numgen random mod 65535 :"
        f" {n} daddr . th dport; }}",
        f"add map {t} refused {{ type {address} . inet_proto . inet_service : verdict; }}",
        f"add map {t} refused-ports {{ type inet_proto . inet_service : verdict; }}",
        f"add map {t} guarded {{ type {address} . inet_proto . inet_service : verdict; }}",
        f"add set {t} allowed-sources {{ type {address} . inet_proto . inet_service . {address}; flags interval; }}",
    ]
    chains: dict[str, tuple[str, list[str]]] = {
        "mark-for-masquerade": ("", [f"meta mark set meta mark or {MARK:#x}"]),
        "mark-strangers": ("", [strangers]),
        "refuse": ("", ["meta l4proto tcp reject with tcp reset", "reject"]),
        "guard": ("", [f"{catch} . {n} saddr @allowed-sources return", "drop"]),
        "catch": ("", [f"{catch} vmap @services", "fib daddr type local meta l4proto . th dport vmap @node-ports"]),
        "prerouting": ("type nat hook prerouting priority -100;", ["jump catch"]),
        "output": ("type nat hook output priority -100;", ["jump catch"]),
        "postrouting": (
            "type nat hook postrouting priority 100;",
            [
                f"meta mark and {MARK:#x} != 0 meta mark set meta mark xor {MARK:#x} masquerade fully-random",
                f"ct status dnat {n} saddr . {n} daddr @hairpin masquerade fully-random",
            ],
        ),
        "early": ("type filter hook prerouting priority -110;", [f"ct state new {catch} vmap @guarded"]),
        "forward": (
            "type filter hook forward priority 0;",
            [f"ct state new {catch} vmap @refused", f"ct state new {n} daddr @cluster-ips goto refuse"],
        ),
        "input": (
            "type filter hook input priority 0;",
            ["ct state new fib daddr type local meta l4proto . th dport vmap @refused-ports"],
        ),
        "filter-output": (
            "type filter hook output priority 0;",
            [
                f"ct state new {catch} vmap @refused",
                f"ct state new {n} daddr @cluster-ips goto refuse",
                "ct state new fib daddr type local meta l4proto . th dport vmap @refused-ports",
            ],
        ),
    }
    for manner in MANNERS:
        for size in range(1, largest + 1):
            chains[f"{manner}-{size}"] = ("", shared_chain(manner, size, family))
    commands += [f"add chain {t} {name}{f' {{ {hook} }}' if hook else ''}" for name, (hook, _) in chains.items()]
    for name, (_, rules) in chains.items():
        commands += [f"add rule {t} {name} {rule}" for rule in rules]
    return commands


def changes(table: str, family: Family, old: Iterable[Fragment], new: Iterable[Fragment]) -> list[str]:
    """The commands that lead from the old fragments to the new ones, in an order the kernel takes as one
    transaction.

    Elements that several services share (an address with two ports, an endpoint behind two services) are counted
    by the caller: `old` and `new` must be what really goes and comes.
    """
    t = f"{family.nft} {table}"
    before, after = _merged(old), _merged(new)
    commands: list[str] = []
    commands += [
        f"add set {t} {name} {{ {text} }}" for name, text in after.sets.items() if before.sets.get(name) != text
    ]
    commands += [f"add chain {t} {name}" for name in after.chains if name not in before.chains]
    gone = {k: v for k, v in before.elements.items() if after.elements.get(k) != v}
    come = {k: v for k, v in after.elements.items() if before.elements.get(k) != v}
    commands += _element_commands("delete", t, dict.fromkeys(gone, ""))
    for name, rules in after.chains.items():
        if before.chains.get(name) != rules:
            commands.append(f"flush chain {t} {name}")
            commands += [f"add rule {t} {name} {rule}" for rule in rules]
    commands += _element_commands("add", t, come)
    dead = [name for name in before.chains if name not in after.chains]
    commands += [f"flush chain {t} {name}" for name in dead]
    commands += [f"delete chain {t} {name}" for name in dead]
    commands += [f"delete set {t} {name}" for name in before.sets if name not in after.sets]
    return commands


def _merged(fragments: Iterable[Fragment]) -> Fragment:
    whole = Fragment()
    for f in fragments:
        whole.elements.update(f.elements)
        whole.sets.update(f.sets)
        whole.chains.update(f.chains)
    return whole


def _element_commands(verb: str, table: str, elements: dict[tuple[str, str], str]) -> list[str]:
    grouped: dict[str, list[str]] = {}
    for (container, key), value in elements.items():
        grouped.setdefault(container, []).append(f"{key} : {value}" if value else key)
    return [f"{verb} element {table} {name} {{ {', '.join(items)} }}" for name, items in grouped.items()]
