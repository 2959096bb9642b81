"""What the standard CNI plugins leave in iptables when their last pod has gone: `portmap` keeps its shared chains and
the rules that lead to them, and iptables keeps the table that it made for them.

Before the first pod it is written down which of it was there; at the end only what was not goes. While a chain of a
single container stands, another user of the plugins is at work, and everything stays. Only iptables over nftables is
looked at: the older kind has its tables in the kernel anyhow.

Source: containernetworking/plugins, plugins/meta/portmap (chain names).
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

Chains = dict[str, list[tuple[str, str]]]
"""chain → its rules as (text, handle)"""

_FAMILIES = ("ip", "ip6")
_BUILT_IN = ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")
_SHARED = "CNI-HOSTPORT-"
_CHAIN = re.compile(r"\tchain (\S+) \{")
_RULE = re.compile(r"\t\t(?!type )(.+?) # handle (\d+)$")


def remember(record: Path) -> None:
    """Writes down what is there now, unless that was done before."""
    if record.exists():
        return
    record.parent.mkdir(parents=True, exist_ok=True)
    found = {family: chains_of(_listing(family)) for family in _FAMILIES}
    record.write_text(
        json.dumps({family: None if chains is None else list(chains) for family, chains in found.items()})
    )


def clear(record: Path) -> None:
    """Removes what came after `remember` and serves nobody."""
    try:
        before = json.loads(record.read_text())
    except (OSError, ValueError):
        return
    for family in _FAMILIES:
        chains = chains_of(_listing(family))
        commands = removal(family, chains, before.get(family)) if chains is not None else []
        if commands:
            subprocess.run(["nft", "-f", "-"], input="\n".join(commands), text=True, capture_output=True, check=False)
    record.unlink(missing_ok=True)


def _listing(family: str) -> str | None:
    try:
        done = subprocess.run(
            ["nft", "-a", "list", "table", family, "nat"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def chains_of(listing: str | None) -> Chains | None:
    """From what `nft -a list table` prints; None where there is no table."""
    if listing is None:
        return None
    found: Chains = {}
    rules: list[tuple[str, str]] = []
    for line in listing.splitlines():
        if chain := _CHAIN.match(line):
            rules = found[chain[1]] = []
        elif rule := _RULE.match(line):
            rules.append((rule[1], rule[2]))
    return found


def removal(family: str, chains: Chains, before: list[str] | None) -> list[str]:
    """The commands, as one transaction; `before`: the chains that were there, None where there was no table."""
    mine = {c for c in chains if c.startswith(_SHARED) and c not in (before or ())}
    if any(c.startswith("CNI-") and c not in mine and c not in (before or ()) for c in chains):
        return []
    left = {c: [r for r in rules if not _leads_to(r[0], mine)] for c, rules in chains.items() if c not in mine}
    if before is None and not any(left.values()):
        return [f"delete table {family} nat"]
    commands = [
        f"delete rule {family} nat {chain} handle {handle}"
        for chain, rules in chains.items()
        if chain not in mine
        for text, handle in rules
        if _leads_to(text, mine)
    ]
    commands += [
        f"delete chain {family} nat {chain}"
        for chain in _BUILT_IN
        if chain in left and not left[chain] and chain not in (before or ())
    ]
    commands += [f"flush chain {family} nat {chain}" for chain in sorted(mine)]
    return commands + [f"delete chain {family} nat {chain}" for chain in sorted(mine)]


def _leads_to(rule: str, chains: set[str]) -> bool:
    return any(re.search(rf"\b(jump|goto) {re.escape(chain)}$", rule) for chain in chains)
