"""The proxy component: informers in, transactions out.

    Service or EndpointSlice event → its key is dirty → one flush for all that is dirty → one nft transaction

The flush runs in a thread of its own (libnftables blocks), never two at a time; what changes meanwhile is taken by
the next. A refused transaction is answered by building the whole table anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from berg.client.informer import InformerFactory
from berg.client.rest import Client
from berg.machinery import meta, nftables
from berg.machinery.features import FeatureGates
from berg.machinery.nftables import Nft, NftError
from berg.machinery.resources import resource
from berg.machinery.status import Obj
from berg.proxy import conntrack, rules
from berg.proxy.health import HealthServer
from berg.proxy.model import ServicePort, service_ports

log = logging.getLogger(__name__)

_RETRY_S = 2.0
_OTHERS = "service.kubernetes.io/service-proxy-name"
_HEADLESS = "service.kubernetes.io/headless"
_SERVICE_NAME = "kubernetes.io/service-name"


@dataclass(slots=True)
class Config:
    node_name: str
    table: str = "kube-proxy"
    cluster_cidrs: tuple[str, ...] = ()
    healthz_port: int = 10256
    """0: none"""
    metrics_port: int = 10249
    bind_address: str = "0.0.0.0"
    ipv6: bool = False
    feature_gates: dict[str, bool] = field(default_factory=dict)


class Proxy:
    def __init__(self, client: Client, config: Config) -> None:
        self._client, self._config = client, config
        self._informers = InformerFactory(client)
        self._services = self._informers.informer(resource("services"), label_selector=f"!{_OTHERS},!{_HEADLESS}")
        self._slices = self._informers.informer(
            resource("endpointslices.discovery.k8s.io"), label_selector=f"!{_OTHERS},!{_HEADLESS}"
        )
        self._node = self._informers.informer(resource("nodes"), field_selector=f"metadata.name={config.node_name}")
        self._slices.add_index("service", _service_key)
        self._families = [_Rules(config, v) for v in ((4, 6) if config.ipv6 else (4,))]
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        features = FeatureGates(config.feature_gates)
        self._health = HealthServer(config.bind_address, config.healthz_port, config.metrics_port, features.text)
        self._zone = ""

    async def start(self) -> None:
        self._services.add_handler(self._service, lambda _, new: self._service(new), self._service)
        self._slices.add_handler(self._slice, lambda _, new: self._slice(new), self._slice)
        self._node.add_handler(self._node_changed, lambda _, new: self._node_changed(new))
        await self._informers.start()
        self._mark(meta.key(s) for s in self._services.lister.list())
        await self._flush()
        self._task = asyncio.create_task(self._run())
        await self._health.start()

    async def stop(self) -> None:
        """The rules stay: services go on working while a proxy is exchanged. `cleanup` takes them away."""
        await self._health.stop()
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._informers.stop()
        for family in self._families:
            family.close()
        await self._client.close()

    def _service(self, service: Obj) -> None:
        self._mark([meta.key(service)])

    def _slice(self, piece: Obj) -> None:
        self._mark(_service_key(piece))

    def _node_changed(self, node: Obj) -> None:
        zone = meta.labels(node).get("topology.kubernetes.io/zone", "")
        self._health.node_deleting = meta.is_deleting(node)
        if zone != self._zone:
            self._zone = zone
            self._mark(meta.key(s) for s in self._services.lister.list())

    def _mark(self, keys: Iterable[str]) -> None:
        self._dirty.update(keys)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(0)  # events of one watch frame come together
            try:
                await self._flush()
            except NftError as e:
                log.error("rules were refused, building them anew in %.0f s: %s", _RETRY_S, e)
                for family in self._families:
                    family.fresh = False
                self._mark(meta.key(s) for s in self._services.lister.list())
                await asyncio.sleep(_RETRY_S)

    async def _flush(self) -> None:
        self._wake.clear()
        dirty, self._dirty = self._dirty, set()
        if not dirty and all(f.fresh for f in self._families):
            return
        for family in self._families:
            wanted = {key: self._ports(key, family.version) for key in dirty}
            stale = await asyncio.to_thread(family.sync, wanted)
            if stale:
                await asyncio.to_thread(conntrack.forget, stale, family.version)
        self._health.synced()

    def _ports(self, key: str, family: int) -> list[ServicePort]:
        service = self._services.lister.get_key(key)
        if service is None:
            return []
        slices = self._slices.lister.by_index("service", key)
        return service_ports(service, slices, self._config.node_name, self._zone, family)


def _service_key(piece: Obj) -> list[str]:
    name = meta.labels(piece).get(_SERVICE_NAME)
    return [f"{meta.namespace(piece)}/{name}"] if name else []


class _Rules:
    """What one address family's table holds now."""

    def __init__(self, config: Config, version: int) -> None:
        self.version = version
        self.fresh = False
        """whether the kernel's table is what we think it is"""
        self._table = config.table
        self._family = rules.Family(version)
        self._cidr = next((c for c in config.cluster_cidrs if (":" in c) == (version == 6)), "")
        self._ports: dict[str, list[ServicePort]] = {}
        self._held: Counter[tuple[str, str]] = Counter()
        """how many fragments want an element; several services may share one"""
        self._largest = 16
        """shared chains exist for services of up to this many endpoints"""
        self._nft: Nft | None = None

    def sync(self, wanted: dict[str, list[ServicePort]]) -> list[ServicePort]:
        """Brings the kernel to `wanted` for these services. Returns the UDP ports whose old flows must be
        forgotten. Raises NftError, and then holds what it held before."""
        if self._nft is None:
            self._nft = Nft()
        new = {key: [rules.fragment(p, self._family) for p in ports] for key, ports in wanted.items()}
        size = max((f.size for fragments in new.values() for f in fragments), default=0)
        if size > self._largest:
            self._largest, self.fresh = 1 << (size - 1).bit_length(), False
        if self.fresh:
            old = [rules.fragment(p, self._family) for key in wanted for p in self._ports.get(key, ())]
            held = self._held - Counter(k for f in old for k in f.elements)
            commands = []
        else:
            rest = (p for key, ports in self._ports.items() if key not in wanted for p in ports)
            new[""] = [rules.fragment(p, self._family) for p in rest]
            old, held = [], Counter()
            commands = rules.base(self._table, self._family, self._cidr, self._largest)
        come = Counter(k for fragments in new.values() for f in fragments for k in f.elements)
        fragments = [f for several in new.values() for f in several]
        _keep_shared(old, held)  # still wanted by a service that did not change
        _keep_shared(fragments, held)  # there already
        commands += rules.changes(self._table, self._family, old, fragments)
        if commands:
            self._nft.run("\n".join(commands))
        stale = [
            p
            for key, ports in wanted.items()
            for p in ports
            if p.protocol == "udp" and p not in self._ports.get(key, ())
        ]
        stale += [
            p for key, ports in wanted.items() for p in self._ports.get(key, ()) if p.protocol == "udp" and not ports
        ]
        self._held, self.fresh = held + come, True
        for key, ports in wanted.items():
            if ports:
                self._ports[key] = ports
            else:
                self._ports.pop(key, None)
        return stale

    def close(self) -> None:
        if self._nft:
            self._nft.close()


def _keep_shared(fragments: list[rules.Fragment], held: Counter[tuple[str, str]]) -> None:
    for f in fragments:
        for key in [k for k in f.elements if held[k] > 0]:
            del f.elements[key]


def cleanup(table: str) -> None:
    """Takes the proxy's rules out of the kernel; it is fine when there are none."""
    nftables.run("\n".join(f"add table {f} {table}\ndelete table {f} {table}" for f in ("ip", "ip6")))
