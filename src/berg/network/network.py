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
from berg.network import routes
from berg.runtime.network import PodNetworkError

log = logging.getLogger(__name__)

_RETRY_S = 2.0


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
        self._cidrs = ""
        self._routes: dict[str, str] = {}
        """podCIDR of another node → that node's address, as the kernel has them"""
        self._dirty = asyncio.Event()
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
        self._nodes.add_handler(self._changed, self._changed, self._changed)
        await self._informers.start()

    async def stop(self) -> None:
        """Pods stay connected; `routes.flush` takes the routes away when the node ends."""
        if self._task:
            self._task.cancel()
        await self._informers.stop()
        await self._client.close()

    def _changed(self, *_: Obj) -> None:
        self._dirty.set()

    async def _run(self) -> None:
        """Brings the kernel to what the nodes say; what fails is tried again."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._sync()
            except (PodNetworkError, OSError) as e:
                log.error("%s", e)
                await asyncio.sleep(_RETRY_S)
                self._dirty.set()

    async def _sync(self) -> None:
        wanted: dict[str, str] = {}
        for node in self._nodes.lister:
            spec = node.get("spec") or {}
            cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
            address = internal_ip(node)
            if meta.name(node) == self._config.node_name:
                if cidrs and ",".join(cidrs) != self._cidrs:
                    await self._use(",".join(cidrs))
            elif address:
                wanted |= {cidr: address for cidr in cidrs if (":" in cidr) == (":" in address)}
        for cidr in self._routes.keys() - wanted.keys():
            await asyncio.to_thread(routes.remove, cidr)
            del self._routes[cidr]
        for cidr, via in wanted.items():
            if self._routes.get(cidr) != via:
                await asyncio.to_thread(routes.ensure, cidr, via)
                self._routes[cidr] = via

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
