"""The DNS component: UDP and TCP in, the zone or a resolver asked, an answer out.

It also publishes itself: an EndpointSlice of the Service `kube-system/kube-dns` for each node's server, so that the
cluster's DNS address leads here like any other service.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import cast

from berg.client.informer import InformerFactory
from berg.client.rest import Client
from berg.dns import wire
from berg.dns.forward import Forwarder, system_resolvers
from berg.dns.zone import SOA, Answer, Record, Source, Zone
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)

_SERVICE_NAME = "kubernetes.io/service-name"
_MOST_QUERIES = 1000
"""forwarded at one time; beyond it the answer is SERVFAIL, as CoreDNS' max_concurrent"""
_IDLE_S = 10.0
_MOST_ALIASES = 8


@dataclass(slots=True)
class Config:
    node_name: str = ""
    listen_address: str = "0.0.0.0"
    port: int = 53
    """0: any free one"""
    domain: str = "cluster.local"
    resolv_conf: str = "/etc/resolv.conf"
    publish_address: str = ""
    """where other nodes and pods reach this server; empty: it is not published"""
    service: str = "kube-system/kube-dns"


class DNSServer:
    def __init__(self, client: Client, config: Config) -> None:
        self._client, self._config = client, config
        self._informers = InformerFactory(client)
        self._services = self._informers.informer(resource("services"))
        self._slices = self._informers.informer(resource("endpointslices.discovery.k8s.io"))
        self._namespaces = self._informers.informer(resource("namespaces"))
        self._slices.add_index("service", _service_key)
        self._slices.add_index("address", lambda s: [a for e in s.get("endpoints") or () for a in e["addresses"]])
        self._services.add_index("address", lambda s: [a for a in s["spec"].get("clusterIPs") or () if a != "None"])
        services, slices = self._services.lister, self._slices.lister
        self.zone = Zone(
            Source(
                service=services.get,
                slices=lambda namespace, name: slices.by_index("service", f"{namespace}/{name}"),
                namespace=lambda name: self._namespaces.lister.get(None, name) is not None,
                services_by_ip=lambda address: services.by_index("address", address),
                endpoints_by_ip=lambda address: slices.by_index("address", address),
            ),
            config.domain,
        )
        self._forwarder = Forwarder(system_resolvers(config.resolv_conf))
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._forwarding: set[asyncio.Task[None]] = set()
        self.port = config.port

    async def start(self) -> None:
        self._services.add_handler(self._service, lambda _, new: self._service(new), self._service)
        self._slices.add_handler(self._slice, lambda _, new: self._slice(new), self._slice)
        await self._informers.start()
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._stream, self._config.listen_address, self._config.port)
        self.port = self._tcp.sockets[0].getsockname()[1]
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(self._config.listen_address, self.port)
        )
        self._udp = transport
        if self._config.publish_address:
            await self._publish()

    async def stop(self) -> None:
        if self._config.publish_address:
            with contextlib.suppress(ApiError, OSError, TimeoutError):
                await asyncio.wait_for(self._unpublish(), 2)
        if self._udp:
            self._udp.close()
        if self._tcp:
            self._tcp.close()
        for task in self._forwarding:
            task.cancel()
        await self._informers.stop()
        await self._client.close()

    def _service(self, service: Obj) -> None:
        self.zone.changed(meta.key(service))

    def _slice(self, piece: Obj) -> None:
        for key in _service_key(piece):
            self.zone.changed(key)

    # -- answering

    def answer(self, data: bytes, *, tcp: bool) -> bytes | wire.Query | None:
        """The reply at once, None for what deserves none, or the query when it must be asked elsewhere."""
        try:
            query = wire.parse(data)
        except wire.WireError:
            return wire.failure(data, wire.FORMERR)
        if query.opcode != 0:
            return wire.failure(data, wire.NOTIMP)
        found = self.zone.lookup(query.name, query.type)
        if found is None or found.alias:
            return self._own(query, found, tcp=tcp) if found and self.zone.owns(found.alias) else query
        return self._own(query, found, tcp=tcp)

    def _own(self, query: wire.Query, found: Answer, *, tcp: bool) -> bytes:
        records, additional, exists = list(found.records), list(found.additional), found.exists
        alias = found.alias
        for _ in range(_MOST_ALIASES):
            if not alias or not self.zone.owns(alias):
                break
            following = self.zone.lookup(alias, query.type) or Answer()
            records += following.records
            alias = following.alias
        authority = () if records else (self._soa(),)
        code = wire.NOERROR if exists else wire.NXDOMAIN
        limit = 65535 if tcp else query.udp_size
        return wire.answer(query, code, records, authority, additional, limit=limit)

    def _soa(self) -> Record:
        domain = self._config.domain
        return Record(domain, SOA, f"ns.dns.{domain} hostmaster.{domain} 1 7200 1800 86400 30")

    async def forward(self, query: wire.Query, data: bytes, *, tcp: bool) -> bytes:
        if len(self._forwarding) > _MOST_QUERIES:
            return wire.answer(query, wire.SERVFAIL, authoritative=False)
        found = self.zone.lookup(query.name, query.type)
        if found is not None and found.alias:
            return await self._follow(query, found, tcp=tcp)
        reply = await self._forwarder.ask(data, tcp=tcp)
        return reply or wire.answer(query, wire.SERVFAIL, authoritative=False)

    async def _follow(self, query: wire.Query, found: Answer, *, tcp: bool) -> bytes:
        """An ExternalName outside the cluster: the alias, and what the resolvers say its target is."""
        from dnslib import DNSRecord

        records = list(found.records)
        asked = DNSRecord.question(found.alias, {1: "A", 28: "AAAA"}.get(query.type, "A"))
        if query.type in (1, 28) and (reply := await self._forwarder.ask(asked.pack(), tcp=tcp)):
            for rr in DNSRecord.parse(reply).rr:
                if rr.rtype in (1, 5, 28):
                    records.append(Record(str(rr.rname).rstrip("."), rr.rtype, str(rr.rdata).rstrip("."), rr.ttl))
        return wire.answer(query, wire.NOERROR, records, limit=65535 if tcp else query.udp_size)

    def spawn(self, work: asyncio.Task[None]) -> None:
        self._forwarding.add(work)
        work.add_done_callback(self._forwarding.discard)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP client, any number of queries, each with its length before it."""
        try:
            while True:
                size = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), _IDLE_S), "big")
                data = await asyncio.wait_for(reader.readexactly(size), _IDLE_S)
                reply = self.answer(data, tcp=True)
                if isinstance(reply, wire.Query):
                    reply = await self.forward(reply, data, tcp=True)
                if reply is None:
                    return
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    # -- being found

    def _slice_name(self) -> str:
        return f"{self._config.service.partition('/')[2]}-{self._config.node_name}"

    async def _publish(self) -> None:
        namespace, _, service = self._config.service.partition("/")
        address = self._config.publish_address
        piece: Obj = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": self._slice_name(),
                "namespace": namespace,
                "labels": {_SERVICE_NAME: service, "endpointslice.kubernetes.io/managed-by": "dns.berg"},
            },
            "addressType": "IPv6" if ":" in address else "IPv4",
            "endpoints": [
                {
                    "addresses": [address],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "nodeName": self._config.node_name,
                }
            ],
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": self.port},
                {"name": "dns-tcp", "protocol": "TCP", "port": self.port},
            ],
        }
        r = resource("endpointslices.discovery.k8s.io")
        await self._client.patch(
            r, namespace, self._slice_name(), piece, type="apply", field_manager="berg-dns", force=True
        )

    async def _unpublish(self) -> None:
        namespace = self._config.service.partition("/")[0]
        await self._client.delete(resource("endpointslices.discovery.k8s.io"), namespace, self._slice_name())


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DNSServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._server.answer(data, tcp=False)
        if isinstance(reply, wire.Query):
            self._server.spawn(asyncio.get_running_loop().create_task(self._forward(reply, data, addr)))
        elif reply is not None and self._transport:
            self._transport.sendto(reply, addr)

    async def _forward(self, query: wire.Query, data: bytes, addr: tuple[str, int]) -> None:
        reply = await self._server.forward(query, data, tcp=False)
        if self._transport:
            self._transport.sendto(reply, addr)


def _service_key(piece: Obj) -> list[str]:
    name = meta.labels(piece).get(_SERVICE_NAME)
    return [f"{meta.namespace(piece)}/{name}"] if name else []
