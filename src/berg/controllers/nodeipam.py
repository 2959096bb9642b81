"""Pod CIDRs: every node gets a range of its own from each of the cluster's.

What is taken is known from the nodes themselves: the set kept here is rebuilt from them at start and follows
their events.

Source: pkg/controller/nodeipam/ipam/range_allocator.go.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

from berg.controllers.context import APIController, Context
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

UPDATE_RETRIES = 3
Network = IPv4Network | IPv6Network


class CIDRSet:
    """Ranges of one size in a larger one, by number."""

    def __init__(self, cluster: Network, prefix: int) -> None:
        if prefix < cluster.prefixlen:
            raise ValueError(f"node CIDR mask size /{prefix} is larger than the cluster CIDR {cluster}")
        self.cluster, self.prefix = cluster, prefix
        self.count = 1 << (prefix - cluster.prefixlen)
        self._size = 1 << (cluster.max_prefixlen - prefix)
        self._used: set[int] = set()
        self._next = 0

    def occupy(self, cidr: str) -> bool:
        """Whether it is one of ours."""
        try:
            network = ip_network(cidr)
        except ValueError:
            return False
        if network.version != self.cluster.version:
            return False
        first = (int(network.network_address) - int(self.cluster.network_address)) // self._size
        last = (int(network.broadcast_address) - int(self.cluster.network_address)) // self._size
        if last < 0 or first >= self.count:
            return False
        self._used.update(range(max(0, first), min(last, self.count - 1) + 1))
        return True

    def release(self, cidr: str) -> None:
        network = ip_network(cidr)
        if network.version == self.cluster.version:
            self._used.discard((int(network.network_address) - int(self.cluster.network_address)) // self._size)

    def allocate(self) -> str | None:
        for i in range(self.count):
            number = (self._next + i) % self.count
            if number not in self._used:
                self._used.add(number)
                self._next = number + 1
                address = int(self.cluster.network_address) + number * self._size
                return str(type(self.cluster)((address, self.prefix)))
        return None


class NodeIpamController(APIController):
    name = "node-ipam-controller"
    component = "cidrAllocator"
    workers = 1  # one at a time: the set is shared

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("nodes")
        self.nodes = ctx.informer("nodes")
        config = ctx.config
        self.sets: list[CIDRSet] = []
        enabled = config.allocate_node_cidrs if config.allocate_node_cidrs is not None else bool(config.cluster_cidr)
        if enabled:
            for text in filter(None, config.cluster_cidr.split(",")):
                network = ip_network(text.strip(), strict=False)
                v4 = network.version == 4
                size = config.node_cidr_mask_size_ipv4 if v4 else config.node_cidr_mask_size_ipv6
                self.sets.append(CIDRSet(network, size))
            for text in filter(None, config.service_cluster_ip_range.split(",")):
                for s in self.sets:
                    s.occupy(text.strip())
            self.nodes.add_handler(self._node, lambda old, new: self._node(new), self._gone)

    async def start(self) -> None:
        if self.sets:
            await super().start()

    def _node(self, node: Obj) -> None:
        cidrs = pod_cidrs(node)
        for s, cidr in zip(self.sets, cidrs, strict=False):
            s.occupy(cidr)
        if not cidrs:
            self.queue.add(meta.name(node))

    def _gone(self, node: Obj) -> None:
        for s, cidr in zip(self.sets, pod_cidrs(node), strict=False):
            s.release(cidr)

    async def reconcile(self, key: str) -> None:
        node = self.nodes.lister.get_key(key)
        if node is None or pod_cidrs(node):
            return
        chosen: list[str] = []
        for s in self.sets:
            cidr = s.allocate()
            if cidr is None:
                self._release(chosen)
                ref = {"apiVersion": "v1", "kind": "Node", "name": key, "uid": meta.uid(node)}
                self.event(ref, "Normal", "CIDRNotAvailable", f"Node {key} status is now: CIDRNotAvailable")
                raise ApiError(
                    500, "InternalError", "CIDR allocation failed; there are no remaining CIDRs left to allocate"
                )
            chosen.append(cidr)
        # Whatever version the node has by now: ranges that it was given meanwhile can't be changed, so this is refused.
        patch = {"spec": {"podCIDR": chosen[0], "podCIDRs": chosen}}
        for attempt in range(1, UPDATE_RETRIES + 1):
            try:
                await self.client.patch(self.resource, None, key, patch, type="strategic")
                return
            except ApiError:
                if attempt == UPDATE_RETRIES:
                    self._release(chosen)
                    raise

    def _release(self, chosen: list[str]) -> None:
        for s, cidr in zip(self.sets, chosen, strict=False):
            s.release(cidr)


def pod_cidrs(node: Obj) -> list[str]:
    spec = node.get("spec") or {}
    return spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
