"""`berg etcd`: the embedded engine, served as etcd.

port ─► Mux ─┬─ HTTP/2 ─► gRPC ──┐
             └─ HTTP/1 ─► Web ───┴─► the services (one table of methods) ─► EmbeddedStore
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from berg.etcd.auth import AuthService
from berg.etcd.bridge import Bridge
from berg.etcd.cluster import ClusterService
from berg.etcd.concurrency import Concurrency
from berg.etcd.grpc_server import GrpcServer
from berg.etcd.health import Health
from berg.etcd.kv import KV
from berg.etcd.lease import LeaseService
from berg.etcd.maintenance import Maintenance
from berg.etcd.member import Member
from berg.etcd.mux import Mux
from berg.etcd.rpc import Method
from berg.etcd.tokens import open_tokens
from berg.etcd.users import Users
from berg.etcd.watch import WatchService
from berg.etcd.web import Web
from berg.machinery import duration
from berg.machinery.clock import Clock
from berg.machinery.http2.connection import Connection
from berg.storage.embedded import AutoCompaction, EmbeddedStore


@dataclass(slots=True)
class Config:
    """Fields are etcd's flags. `store`: an engine that is already open, and that others use too."""

    data_dir: str = "default.etcd"
    name: str = "default"
    listen_client_urls: list[str] = field(default_factory=lambda: ["http://localhost:2379"])
    advertise_client_urls: list[str] = field(default_factory=list)
    listen_metrics_urls: list[str] = field(default_factory=list)
    initial_advertise_peer_urls: list[str] = field(default_factory=list)
    cert_file: str = ""
    key_file: str = ""
    trusted_ca_file: str = ""
    client_cert_auth: bool = False
    quota_backend_bytes: int = 2 << 30
    max_txn_ops: int = 128
    max_request_bytes: int = 1536 * 1024
    auto_compaction_mode: str = "periodic"
    auto_compaction_retention: str = "0"
    enable_v2: bool = True
    watch_progress_notify_interval_s: float = 600.0
    auth_token: str = "simple"
    auth_token_ttl_s: float = 300.0
    bcrypt_cost: int = 10
    store: EmbeddedStore | None = None
    clock: Clock | None = None


class EtcdServer:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.store = config.store or EmbeddedStore(
            Path(config.data_dir) / "store.db",
            clock=config.clock,
            quota_bytes=config.quota_backend_bytes,
            auto_compaction=auto_compaction(config.auto_compaction_mode, config.auto_compaction_retention),
        )
        self.store.progress_interval_s = config.watch_progress_notify_interval_s
        self.member = Member(self.store, config.name)
        if config.initial_advertise_peer_urls:
            self.member.peer_urls = config.initial_advertise_peer_urls
        self.ports: list[int] = []
        self.metrics_ports: list[int] = []
        self._private = tempfile.TemporaryDirectory(prefix="berg-etcd-")
        self._web: Web | None = None
        self._grpc: GrpcServer | None = None
        self._bare: Web | None = None
        self._mux: Mux | None = None
        self._metrics: list[asyncio.Server] = []
        self._behind: asyncio.Server | None = None

    async def start(self) -> None:
        """Returns when it serves. Raises Corrupt, Unavailable, OSError."""
        config = self.config
        if config.store is None:
            await self.store.start()
        self.store.pending.max_txn_ops = config.max_txn_ops
        self.store.pending.max_request_bytes = config.max_request_bytes
        await self.member.load()
        users = Users(
            self.store,
            open_tokens(config.auth_token, self.store.clock, config.auth_token_ttl_s),
            by_certificate=config.client_cert_auth,
            bcrypt_cost=config.bcrypt_cost,
        )
        users.load()
        methods = self._methods(users)
        private = Path(self._private.name) / "http.sock"
        web = self._web = Web(
            self.member,
            users,
            methods,
            enable_v2=config.enable_v2,
            by_certificate=config.client_cert_auth,
            data_dir=Path(config.data_dir) if config.store is None else None,
        )
        await web.start()
        self._behind = await asyncio.get_running_loop().create_unix_server(web.protocol, str(private))
        grpc = self._grpc = GrpcServer(
            methods, lambda: users.enabled, config.max_request_bytes, lambda *request: Bridge(private, *request)
        )
        web.counts = grpc.counts
        self._mux = Mux(web.protocol, lambda name: Connection(grpc.handler(name)))
        for url in config.listen_client_urls:
            tls = self._tls(["h2", "http/1.1"]) if url.startswith("https:") else None
            self.ports.append(await self._mux.listen(*_address(url), tls))
        await self._listen_for_metrics(users)
        self.member.client_urls = config.advertise_client_urls or [
            f"{urlsplit(url).scheme}://{urlsplit(url).hostname}:{port}"
            for url, port in zip(config.listen_client_urls, self.ports, strict=True)
        ]

    async def _listen_for_metrics(self, users: Users) -> None:
        """These listeners have neither keys nor HTTP/2: whoever may see the figures may not see the data."""
        if not self.config.listen_metrics_urls:
            return
        bare = self._bare = Web(self.member, users, [], enable_v2=False)
        await bare.start()
        if self._web is not None and self._grpc is not None:
            bare.counts, bare.methods = self._grpc.counts, self._web.methods
        for url in self.config.listen_metrics_urls:
            tls = self._tls(["http/1.1"]) if url.startswith("https:") else None
            server = await asyncio.get_running_loop().create_server(bare.protocol, *_address(url), ssl=tls)
            self._metrics.append(server)
            self.metrics_ports.append(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._grpc is not None:
            await self._grpc.stop()
        if self._mux is not None:
            await self._mux.close()
        for server in self._metrics:
            server.close()
        if self._behind is not None:
            self._behind.close()
        for web in (self._web, self._bare):
            if web is not None:
                await web.stop()
        if self.config.store is None:
            await self.store.close()
        await asyncio.to_thread(self._private.cleanup)

    def _methods(self, users: Users) -> list[Method]:
        services = (KV, WatchService, LeaseService, ClusterService, Maintenance, AuthService, Concurrency, Health)
        return [method for service in services for method in service(self.member, users).methods()]

    def _tls(self, protocols: list[str]) -> ssl.SSLContext:
        config = self.config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(config.cert_file, config.key_file or None)
        context.set_alpn_protocols(protocols)
        if config.trusted_ca_file:
            context.load_verify_locations(config.trusted_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED if config.client_cert_auth else ssl.CERT_OPTIONAL
        return context


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "localhost", 2379 if parts.port is None else parts.port


def auto_compaction(mode: str, retention: str) -> AutoCompaction | None:
    """Of etcd's two flags: `periodic` takes hours or a duration (`1`, `30m`, `1h`), `revision` a number."""
    if retention in ("", "0"):
        return None
    if mode == "revision":
        return AutoCompaction("revision", retention_revisions=int(retention), check_s=300)
    if mode != "periodic":
        raise ValueError(f"unsupported compaction mode {mode}")
    return AutoCompaction("periodic", retention_s=seconds(retention))


def seconds(text: str) -> float:
    """Of a Go duration, or of whole hours. Raises ValueError."""
    return int(text) * 3600.0 if text.isdigit() else duration.seconds(text)
