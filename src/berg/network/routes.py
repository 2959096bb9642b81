"""Routes to the pods of other nodes, through their node's address (what flannel calls host-gw).

Ours are told from others by their protocol number, so that they can be flushed without remembering them.
"""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)

PROTOCOL = 98
"""rtm_protocol of every route made here"""


class Routes:
    def __init__(self) -> None:
        self._ip: Any = None
        self._set: dict[str, str] = {}

    def _netlink(self) -> Any:
        if self._ip is None:
            from pyroute2 import IPRoute

            self._ip = IPRoute()
        return self._ip

    def ensure(self, cidr: str, via: str) -> None:
        """Packets to `cidr` go to the node at `via`, which must be a neighbour. Says so in the log when it is not."""
        if self._set.get(cidr) == via:
            return
        try:
            self._netlink().route("replace", dst=cidr, gateway=via, proto=PROTOCOL)
            self._set[cidr] = via
        except Exception as e:
            log.error("no route to the pods of %s through %s: %s", cidr, via, e)

    def remove(self, cidr: str) -> None:
        if self._set.pop(cidr, None):
            try:
                self._netlink().route("del", dst=cidr, proto=PROTOCOL)
            except Exception as e:
                log.warning("route to %s not removed: %s", cidr, e)

    def close(self) -> None:
        if self._ip is not None:
            self._ip.close()
            self._ip = None


def flush() -> None:
    """Removes every route that a Berg node made in this network namespace."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        for route in ip.get_routes(proto=PROTOCOL):
            dst = route.get_attr("RTA_DST")
            ip.route("del", dst=f"{dst}/{route['dst_len']}", proto=PROTOCOL)
