"""Routes to the pods of other nodes, through their node's address (what flannel calls host-gw).

Ours are told from others by their protocol number, so that they can be flushed without remembering them. The
functions block and must not run on an event loop's thread: pyroute2 brings a loop of its own.
"""

from __future__ import annotations

import errno
import ipaddress

PROTOCOL = 98
"""rtm_protocol of every route made here"""


def ensure(cidr: str, via: str) -> None:
    """Packets to `cidr` go to the node at `via`, which must be a neighbour. Raises OSError."""
    from pyroute2 import IPRoute, NetlinkError

    with IPRoute() as ip:
        try:
            ip.route("replace", dst=cidr, gateway=via, proto=PROTOCOL)
        except NetlinkError as e:
            raise OSError(e.code, f"no route to the pods of {cidr} through {via}: {e}") from e


def remove(cidr: str) -> None:
    """It is fine when there is none. Raises OSError."""
    from pyroute2 import IPRoute, NetlinkError

    with IPRoute() as ip:
        try:
            ip.route("del", dst=cidr, proto=PROTOCOL)
        except NetlinkError as e:
            if e.code != errno.ESRCH:
                raise OSError(e.code, f"the route to {cidr} can't be removed: {e}") from e


def flush(within: str) -> None:
    """Removes every route that a Berg node made in this network namespace to pods of the cluster CIDR `within`."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        cluster = ipaddress.ip_network(within)
        for route in ip.get_routes(proto=PROTOCOL):
            network = ipaddress.ip_network(f"{route.get_attr('RTA_DST')}/{route['dst_len']}")
            if network.version == cluster.version and network.subnet_of(cluster):  # type: ignore[arg-type]
                remove(str(network))
