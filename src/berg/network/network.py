"""The pod network of one node: which addresses its pods get, and the way to the pods of other nodes.

    own Node's podCIDR    → the pod network is made with it (until then it is not ready, and says so)
    other Nodes' podCIDRs → a route to each, by the node's address

The last podCIDR is kept on disk, so that a restarted node need not wait for the API.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from berg.client.informer import InformerFactory
from berg.client.rest import Client
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import Obj
from berg.network.routes import Routes
from berg.runtime.network import PodNetwork, PodNetworkError, PodNetworkRequest, PodNetworkResult

log = logging.getLogger(__name__)

MakeNetwork = Callable[[str], PodNetwork]
"""podCIDR → the network of this node's pods"""


@dataclass(slots=True)
class Config:
    node_name: str
    state_dir: Path
    route_to_nodes: bool = True


class Network:
    """A component, and the PodNetwork that the runtime is given."""

    def __init__(self, client: Client, config: Config, make: MakeNetwork) -> None:
        self._client, self._config, self._make = client, config, make
        self._informers = InformerFactory(client)
        self._nodes = self._informers.informer(resource("nodes"))
        self._routes = Routes()
        self._network: PodNetwork | None = None
        self._cidr = ""
        self.changed: Callable[[], None] = lambda: None
        """called when `status` may have become another; the kubelet looks again then"""
        with contextlib.suppress(OSError, ValueError, KeyError):
            self._use(str(json.loads(self._state.read_text())["podCIDR"]))

    @property
    def _state(self) -> Path:
        return self._config.state_dir / "network.json"

    async def start(self) -> None:
        self._nodes.add_handler(self._node, lambda _, new: self._node(new), self._gone)
        await self._informers.start()

    async def stop(self) -> None:
        """Pods stay connected; `Routes.flush` takes the routes away when the node ends."""
        await self._informers.stop()
        await self._client.close()
        self._routes.close()

    def _node(self, node: Obj) -> None:
        cidr = node.get("spec", {}).get("podCIDR")
        if not cidr:
            return
        if meta.name(node) == self._config.node_name:
            if cidr != self._cidr:
                self._use(cidr)
                self._config.state_dir.mkdir(parents=True, exist_ok=True)
                self._state.write_text(json.dumps({"podCIDR": cidr}))
                self.changed()
        elif self._config.route_to_nodes and (address := internal_ip(node)):
            self._routes.ensure(cidr, address)

    def _gone(self, node: Obj) -> None:
        if cidr := node.get("spec", {}).get("podCIDR"):
            self._routes.remove(cidr)

    def _use(self, cidr: str) -> None:
        ipaddress.ip_network(cidr)
        if self._cidr and cidr != self._cidr:
            log.warning("podCIDR was %s and is %s: pods that run keep their addresses", self._cidr, cidr)
        self._cidr, self._network = cidr, self._make(cidr)

    # -- PodNetwork

    async def setup(self, request: PodNetworkRequest) -> PodNetworkResult:
        if self._network is None:
            raise PodNetworkError(_NOT_YET)
        return await self._network.setup(request)

    async def teardown(self, request: PodNetworkRequest) -> None:
        if self._network is not None:
            await self._network.teardown(request)

    async def status(self) -> str | None:
        return await self._network.status() if self._network is not None else _NOT_YET


_NOT_YET = "the node has no podCIDR yet"


def internal_ip(node: Obj) -> str:
    addresses = (node.get("status") or {}).get("addresses") or ()
    return next((a["address"] for a in addresses if a["type"] == "InternalIP"), "")
