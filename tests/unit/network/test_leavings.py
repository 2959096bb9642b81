"""What the standard CNI plugins leave in iptables, as nft prints it (nftables 1.0.6 over iptables 1.8.9)."""

from __future__ import annotations

from berg.network.cni.leavings import chains_of, removal

PORTMAP = """\
table ip nat { # handle 1
	chain CNI-HOSTPORT-SETMARK { # handle 1
		counter packets 0 bytes 0 meta mark set mark or 0x2000 # handle 2
	}

	chain CNI-HOSTPORT-MASQ { # handle 3
		meta mark & 0x00002000 == 0x00002000 counter packets 0 bytes 0 masquerade # handle 4
	}

	chain POSTROUTING { # handle 5
		type nat hook postrouting priority srcnat; policy accept;
		counter packets 0 bytes 0 jump CNI-HOSTPORT-MASQ # handle 6
	}

	chain CNI-HOSTPORT-DNAT { # handle 7
	}

	chain PREROUTING { # handle 8
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local counter packets 0 bytes 0 jump CNI-HOSTPORT-DNAT # handle 9
	}
}
"""
DOCKER = "\t\tip saddr 172.17.0.0/16 counter packets 0 bytes 0 masquerade # handle 30\n\t}\n\n\tchain CNI-HOSTPORT-DNAT"


def test_a_table_that_only_the_plugins_used_goes() -> None:
    chains = chains_of(PORTMAP)
    assert chains is not None
    assert list(chains) == [
        "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "POSTROUTING", "CNI-HOSTPORT-DNAT", "PREROUTING",
    ]  # fmt: skip
    assert removal("ip", chains, None) == ["delete table ip nat"]


def test_rules_of_others_stay() -> None:
    chains = chains_of(PORTMAP.replace("\t}\n\n\tchain CNI-HOSTPORT-DNAT", DOCKER))
    assert chains is not None
    assert removal("ip", chains, None) == [
        "delete rule ip nat POSTROUTING handle 6",
        "delete rule ip nat PREROUTING handle 9",
        "delete chain ip nat PREROUTING",
        "flush chain ip nat CNI-HOSTPORT-DNAT",
        "flush chain ip nat CNI-HOSTPORT-MASQ",
        "flush chain ip nat CNI-HOSTPORT-SETMARK",
        "delete chain ip nat CNI-HOSTPORT-DNAT",
        "delete chain ip nat CNI-HOSTPORT-MASQ",
        "delete chain ip nat CNI-HOSTPORT-SETMARK",
    ]


def test_what_was_there_before_stays() -> None:
    chains = chains_of(PORTMAP)
    assert chains is not None
    assert removal("ip", chains, list(chains)) == []


def test_nothing_goes_while_another_container_has_a_port() -> None:
    in_use = PORTMAP.replace(
        "\tchain PREROUTING", "\tchain CNI-DN-0123456789abcdef { # handle 20\n\t}\n\n\tchain PREROUTING"
    )
    chains = chains_of(in_use)
    assert chains is not None
    assert removal("ip", chains, None) == []


def test_no_table() -> None:
    assert chains_of(None) is None
