"""The pod network of one node: which addresses its pods get, and the way to the pods of other nodes.

    own Node's podCIDRs   → the pod network gets them (until then it is not ready, and says so)
    other Nodes' podCIDRs → a route to each, by the node's address

The last podCIDRs are kept on disk, so that a restarted node need not wait for the API.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from berg.client.informer import InformerFactory
from berg.client.rest import Client
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import Obj
from berg.network.routes import Routes
from berg.runtime.network import PodNetworkError

log = logging.getLogger(__name__)


class Configurable(Protocol):
    async def set_pod_cidr(self, cidrs: str) -> None:
        """The node's CIDRs, separated by commas. Raises PodNetworkError."""
        ...


@dataclass(slots=True)
class Config:
    node_name: str
    state_dir: Path


class Network:
    def __init__(self, client: Client, config: Config, pods: Configurable) -> None:
        self._client, self._config, self._pods = client, config, pods
        self._informers = InformerFactory(client)
        self._nodes = self._informers.informer(resource("nodes"))
        self._routes = Routes()
        self._cidrs = ""
        self._changes: asyncio.Queue[str] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.changed: Callable[[], object] = lambda: None
        """called when the network's readiness may be another; the kubelet looks again then"""

    @property
    def _state(self) -> Path:
        return self._config.state_dir / "network.json"

    async def start(self) -> None:
        try:
            await self._use(str(json.loads(self._state.read_text())["podCIDRs"]))
        except (OSError, ValueError, KeyError):
            log.info("no podCIDR from before; waiting for the node's")
        self._task = asyncio.create_task(self._run())
        self._nodes.add_handler(self._node, lambda _, new: self._node(new), self._gone)
        await self._informers.start()

    async def stop(self) -> None:
        """Pods stay connected; `routes.flush` takes the routes away when the node ends."""
        if self._task:
            self._task.cancel()
        await self._informers.stop()
        await self._client.close()
        self._routes.close()

    def _node(self, node: Obj) -> None:
        spec = node.get("spec") or {}
        cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
        if not cidrs:
            return
        if meta.name(node) == self._config.node_name:
            self._changes.put_nowait(",".join(cidrs))
        elif address := internal_ip(node):
            for cidr in cidrs:
                if (":" in cidr) == (":" in address):
                    self._routes.ensure(cidr, address)

    def _gone(self, node: Obj) -> None:
        for cidr in (node.get("spec") or {}).get("podCIDRs") or ():
            self._routes.remove(cidr)

    async def _run(self) -> None:
        while True:
            cidrs = await self._changes.get()
            if cidrs != self._cidrs:
                try:
                    await self._use(cidrs)
                except PodNetworkError as e:
                    log.error("podCIDRs %s can't be used: %s", cidrs, e)

    async def _use(self, cidrs: str) -> None:
        if self._cidrs:
            log.warning("podCIDRs were %s and are %s: pods that run keep their addresses", self._cidrs, cidrs)
        await self._pods.set_pod_cidr(cidrs)
        self._cidrs = cidrs
        self._config.state_dir.mkdir(parents=True, exist_ok=True)
        self._state.write_text(json.dumps({"podCIDRs": cidrs}))
        self.changed()


def internal_ip(node: Obj) -> str:
    addresses = (node.get("status") or {}).get("addresses") or ()
    return next((a["address"] for a in addresses if a["type"] == "InternalIP"), "")
