"""The API server: its parts put together, started in order, stopped in the reverse one."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from berg.apiserver import files, gauges, identity, milestones, zpages
from berg.apiserver.aggregation.aggregator import Aggregator
from berg.apiserver.aggregation.local import LocalServices
from berg.apiserver.auth import escalation
from berg.apiserver.auth.authorizers import Authorizers
from berg.apiserver.auth.escalation import EscalationCheck
from berg.apiserver.auth.legacy_tokens import note_use
from berg.apiserver.auth.methods import Methods
from berg.apiserver.auth.rbac import GROUP, RBACAuthorizer
from berg.apiserver.auth.reviews import Reviews
from berg.apiserver.chain import Chain
from berg.apiserver.component_status import ComponentStatuses
from berg.apiserver.config import Config
from berg.apiserver.crd.serving import CustomResources
from berg.apiserver.discovery import Discovery
from berg.apiserver.flowcontrol.control import FlowControl
from berg.apiserver.health import Health
from berg.apiserver.http import listening
from berg.apiserver.http.message import Handler, Request, Response
from berg.apiserver.http.server import HTTPServer
from berg.apiserver.metrics import Metrics
from berg.apiserver.openapi.publish import OpenAPI
from berg.apiserver.paths import Paths
from berg.apiserver.registry.negotiation import CBOR_OFFERED
from berg.apiserver.registry.services import Services
from berg.apiserver.reloads import Reloads
from berg.apiserver.rest import Resources
from berg.apiserver.served import served_by
from berg.apiserver.stores import Stores
from berg.machinery.resources import Resource, resource
from berg.machinery.status import Obj

log = logging.getLogger(__name__)

Hook = Callable[[Services], Awaitable[None]]

HOOKS = (
    ("start-system-namespaces-controller", "namespaces", ""),
    ("start-kube-apiserver-identity-lease-controller", "identity_lease", "APIServerIdentity"),
    ("built-in-resources-storage-version-updater", "storage_versions", "StorageVersionAPI"),
    ("rbac/bootstrap-roles", "rbac", ""),
    ("scheduling/bootstrap-system-priority-classes", "priority_classes", ""),
    ("priority-and-fairness-config-producer", "flow_control", ""),
    ("bootstrap-controller", "kubernetes_service", ""),
    ("start-cluster-authentication-info-controller", "authentication_info", ""),
    ("start-kube-apiserver-coordinated-leader-election-controller", "leader_election", "CoordinatedLeaderElection"),
    ("start-legacy-token-tracking-controller", "legacy_token_tracking", ""),
    ("start-kube-apiserver-identity-lease-garbage-collector", "identity_lease_gc", "APIServerIdentity"),
)
"""post-start hooks: upstream's name, module in `hooks/`, the feature gate it waits for"""
_STORAGE_VERSIONS = "built-in-resources-storage-version-updater"


class APIServer:
    read_only = False
    """nothing is written of its own accord either: it serves what somebody else left"""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.services: Services
        self.resources: Resources
        self.chain: Chain
        self.health = Health()
        self.port = config.secure_port
        self._http: HTTPServer | None = None
        self.stores = Stores(config)
        self._tasks: set[asyncio.Task[None]] = set()
        self._hooks_left: dict[str, str] = {}
        self._listed: asyncio.Event | None = None
        self._stopping = False
        self._encryption_reloads: Reloads | None = None

    # ---- life

    async def start(self) -> None:
        """Listening and ready: every post-start hook has run."""
        config = self.config
        if config.secure_port >= 0 or config.data_dir:
            from berg.apiserver import pki

            pki.ensure(config)
        await self.stores.open()
        import berg.apiserver.kinds as kinds

        import_module("berg.apiserver.crd.definition")
        for room in kinds.ROOMS:
            import_module(f"berg.apiserver.kinds.{room}")
        from berg.apiserver.kinds.core.pod_spec import security

        security.Capabilities.allow_privileged = config.allow_privileged
        self.services = Services(config, self.stores.main)
        compare = self.services.features.enabled("TaintTolerationComparisonOperators")
        security.Capabilities.compare_taints = compare
        self.services.store_of = self.stores.of
        self.services.spawn = self.spawn
        if config.egress_selector_config_file:
            from berg.apiserver import egress

            egress.check(config.egress_selector_config_file)
        if config.tracing_config_file:
            from berg.machinery.tracing import needed

            needed()
            from berg.apiserver import tracing

            tracing.install(self.services)
        if config.encryption_provider_config:
            await self._start_encryption(config.encryption_provider_config)
        self.resources = Resources(self.services)
        self._install(served_by(config.runtime_config))
        # All built-in resources: authentication, authorization and admission read them without waiting.
        await self.services.open(*self.resources.table.values())
        self._build()
        self.milestones.reached(milestones.CACHES)
        self.milestones.reached(milestones.ALLOCATION)
        self.custom_resources = CustomResources(self)
        self.openapi.custom = self._custom_schemas
        self.openapi.definition = self.custom_resources.definition_of
        self.aggregator = self.chain.aggregator = Aggregator(self)
        self.local_services = LocalServices(self.services)
        await self.custom_resources.start()
        self.milestones.reached(milestones.CUSTOM)
        await self.aggregator.start()
        self.milestones.reached(milestones.AGGREGATOR)
        if _STORAGE_VERSIONS in self._hooks_left:  # what is written must have been told before
            await self._run_hooks(until=_STORAGE_VERSIONS)
        if config.secure_port >= 0:
            await self._listen()
            self.services.secure_port = self.port
        await self._run_hooks()

    async def _start_encryption(self, path: str) -> None:
        from berg.storage import encryption

        config = self.config
        reloaded = config.encryption_provider_config_automatic_reload
        found = (
            encryption.Reloading(Path(path), config.clock) if reloaded else encryption.load(Path(path), config.clock)
        )
        self.services.encryption = found
        await found.start()
        encryption.describe(self.services.metrics)
        found.on_rotated(self.services.rotated)
        if reloaded or found.uses_plugins():
            self.health.add("kms-providers", lambda: "; ".join(found.problems()) or None, paths=("/healthz", "/readyz"))
        if isinstance(found, encryption.Reloading):
            self._encryption_reloads = Reloads("encryption", self.services.instance, path)
            self.spawn(files.follow([path], partial(self._reload_encryption, found), config.clock))

    async def _reload_encryption(self, encryption: Any) -> None:
        assert self._encryption_reloads is not None
        try:
            await encryption.reload()
        except Exception:
            self._encryption_reloads.done(well=False)
            raise
        self.services.rotated()
        self._encryption_reloads.done(well=True)

    def _install(self, resources: list[Resource]) -> None:
        self.services.install(resources)
        for r in resources:
            self.resources.table[r.group, r.version, r.plural] = r
        from berg.apiserver import subresources

        self.resources.rooms.update(subresources.ROOMS)

    def _build(self) -> None:
        """The request chain and everything it asks."""
        from berg.apiserver.admission import configuration
        from berg.apiserver.admission.chain import AdmissionChain
        from berg.apiserver.kinds.core.service_allocation import ServiceAllocation

        config, services = self.config, self.services
        services.service_allocation = ServiceAllocation(
            services, config.service_cluster_ip_range, config.service_node_port_range
        )
        services.admission = AdmissionChain(
            services,
            enable=config.enable_admission_plugins,
            disable=config.disable_admission_plugins,
            config=configuration.load(config.admission_control_config_file)
            | {
                "DefaultTolerationSeconds": {
                    "notReady": config.default_not_ready_toleration_seconds,
                    "unreachable": config.default_unreachable_toleration_seconds,
                }
            },
        )
        self.rbac = RBACAuthorizer(self._rbac_objects)
        self.authorizers = Authorizers(services, self.rbac, self.spawn, services.instance)
        services.authorizer = self.authorizers.union
        self._watch_rbac()
        guard = EscalationCheck(services.authorizer, self.rbac)
        for plural in (*escalation.ROLES, *escalation.BINDINGS):
            services.registries[GROUP, plural].guard = guard.check
        self.discovery = Discovery(lambda: list(self.resources.table.values()), self._address)
        self.paths = Paths(self.discovery, self.health)
        self.openapi = OpenAPI(lambda: list(self.resources.table.values()), cbor=services.cbor)
        self.paths.prefixes["/openapi/"] = self.openapi.handle
        self.methods = Methods(config, self._lookup, self.spawn, services.instance, services.metrics)
        self.authentication, services.tokens = self.methods.authentication, self.methods.tokens
        services.tokens.used = partial(note_use, services)
        chain: type[Chain] = Chain
        if services.tracing is not None:
            from berg.apiserver.tracing import TracedAdmission, TracedChain

            chain = TracedChain
            services.admission = TracedAdmission(services.admission, services.tracing)
        self.chain = chain(
            authentication=self.authentication,
            authorizer=services.authorizer,
            resources=self.resources,
            paths=self.paths.handle,
        )
        self.chain.constrained_impersonation = services.features.enabled("ConstrainedImpersonation")
        self.metrics = self.chain.metrics = Metrics(services.metrics)
        for part in (self.chain.attempts, self.methods, self.authorizers, services.admission, self._encryption_reloads):
            if part is not None:
                part.describe(services.metrics)
        gauges.describe(self)
        self.paths.answers["/metrics"] = self.metrics.handle
        self.paths.answers["/metrics/slis"] = self.health.slis
        self.paths.answers.update(identity.answers(config, services.tokens, self._address))
        self.paths.answers.update(zpages.answers(config))
        if config.profiling:
            self.paths.answers["/debug/flags/v"] = zpages.verbosity
            self.paths.prefixes["/debug/pprof"] = _profiles
        if config.audit_policy_file:
            from berg.apiserver.audit import setup
            from berg.apiserver.audit.policy import Policy
            from berg.apiserver.audit.recorder import Recorder

            policy = Policy.read(config.audit_policy_file)
            recorder = self.chain.audit = Recorder(config.clock, policy, setup.backends(config))
            recorder.describe(services.metrics)
            self.spawn(recorder.run())
        if config.enable_priority_and_fairness:
            flow_control = self.chain.flow_control = FlowControl(services, self.metrics.traffic)
            flow_control.start(self.spawn)
            self.paths.answers.update(flow_control.debug())
        reviews = Reviews(services, self.authorizers.union, self.methods.bearer)
        for name in reviews.resources:
            self.resources.actions[name] = reviews.handle
        self.resources.actions["", "bindings"] = self._bind
        components = ComponentStatuses(services, self.stores.fault)
        self.resources.actions["", "componentstatuses"] = components.handle
        self.health.add("ping", lambda: None)
        self.health.add("log", lambda: None)
        self.stores.checked(self.health)
        self.health.add("shutdown", lambda: "shutting down" if self._stopping else None, paths=("/readyz",))
        self.milestones = milestones.Milestones(self.health)
        on = services.features.enabled
        self._hooks_left = {name: module for name, module, gate in HOOKS if not gate or on(gate)}
        for hook in self._hooks_left:
            self.health.add(f"poststarthook/{hook}", partial(self._hook_fault, hook))

    def _hook_fault(self, name: str) -> str | None:
        return "not finished" if name in self._hooks_left else None

    async def _bind(self, request: Request, r: Resource) -> Response:
        from berg.apiserver.subresources import binding

        return await binding.handle(request, self.services.registry(resource("pods")), r)

    def surface_changed(self) -> None:
        """What is served has changed: discovery and OpenAPI are written anew."""
        self.discovery.changed()
        self.openapi.changed()
        if self._listed is not None:
            self._listed.set()

    async def _list_api_services(self, first: asyncio.Event) -> None:
        """Keeps the APIServices of local groups in step with what is served. Sets `first` after the first time."""
        self._listed = asyncio.Event()
        self._listed.set()
        while True:
            await self._listed.wait()
            self._listed.clear()
            served = list(self.resources.table.values())
            custom = frozenset((r.group, r.version) for r in served if self.custom_resources.definition_of(r))
            try:
                await self.local_services.sync(served, custom)
                self.milestones.reached(milestones.REGISTERED)
            except Exception:
                log.exception("listing APIServices")
            first.set()

    def _custom_schemas(self, r: Resource, v2: bool) -> tuple[Obj, Obj] | None:
        from berg.apiserver.crd.openapi import openapi_schemas

        spec = self.custom_resources.definition_of(r)
        return None if spec is None else openapi_schemas(spec, r, v2=v2)

    def _address(self) -> str:
        return f"{self.config.advertise_address or '127.0.0.1'}:{self.port}"

    # ---- who, and what they may do

    def _lookup(self, plural: str, namespace: str, name: str) -> Obj | None:
        return self.services.get(resource(plural), namespace, name)

    def _rbac_objects(self, plural: str) -> list[Obj]:
        return self.services.list(resource(f"{plural}.rbac.authorization.k8s.io"))

    def _watch_rbac(self) -> None:
        for plural in ("roles", "rolebindings", "clusterroles", "clusterrolebindings"):
            registry = self.services.registry(resource(f"{plural}.rbac.authorization.k8s.io"))
            registry.subscribe(lambda _: self.rbac.changed())

    # ---- running

    async def _listen(self) -> None:
        config = self.config
        tls = listening.context(config)
        handler: Handler = self.handle
        if config.cors_allowed_origins or config.strict_transport_security_directives:
            from berg.apiserver.http import browsers

            handler = browsers.around(
                self.handle,
                origins=config.cors_allowed_origins,
                transport_security=config.strict_transport_security_directives,
            )
        self._http = HTTPServer(
            handler,
            host=config.bind_address,
            port=config.secure_port,
            tls=tls,
            share_port=config.permit_port_sharing,
            list_headers=[*config.requestheader_group_headers, *config.requestheader_extra_headers_prefix],
            max_body_bytes=config.max_request_body_bytes,
            http2_max_streams=config.http2_max_streams_per_connection,
            goaway_chance=listening.goaway_chance(config),
        )
        await self._http.start()
        self.port = self._http.port
        watched = [
            f for f in (*listening.files(config), config.client_ca_file, config.requestheader_client_ca_file) if f
        ]
        self.spawn(files.follow(watched, partial(self._reload_certificates, tls), config.clock))
        log.info("serving on https://%s:%d", config.bind_address, self.port)

    async def _reload_certificates(self, tls: ssl.SSLContext) -> None:
        """Connections that come from now on see the new ones, and extension servers are told."""
        from berg.apiserver.hooks import authentication_info

        tls.load_cert_chain(self.config.tls_cert_file, self.config.tls_private_key_file)
        self.methods.reload_authorities()
        await authentication_info.run(self.services)

    async def _run_hooks(self, until: str = "") -> None:
        for name, module in list(self._hooks_left.items()):
            run: Hook = import_module(f"berg.apiserver.hooks.{module}").run
            await run(self.services)
            del self._hooks_left[name]
            if name == until:
                return
        listed = asyncio.Event()
        self.spawn(self._list_api_services(listed))
        await listed.wait()

    async def handle(self, request: Request) -> Response:
        if self.services.cbor:
            request.attributes[CBOR_OFFERED] = True
        return await self.chain.handle(request)

    async def _refuse(self, request: Request) -> Response:
        """While the last requests are finished: come back later, at another server perhaps."""
        if request.path.startswith(("/healthz", "/livez", "/readyz")):
            return await self.handle(request)
        body = b"The apiserver is shutting down, please try again later.\n"
        headers = {"Retry-After": "5", "Connection": "close", "X-Content-Type-Options": "nosniff"}
        return Response(429, body, "text/plain; charset=utf-8", headers)

    def spawn(self, coroutine: Any) -> None:
        """Runs beside the server until it stops."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Not ready any more, from now on; after the delay for those who balance load, no more requests, and what
        is under way is finished."""
        self._stopping = True
        if self._http is not None:
            config = self.config
            if config.shutdown_delay_duration_s:
                await config.clock.sleep(config.shutdown_delay_duration_s)
            if config.shutdown_send_retry_after:
                self._http.handler = self._refuse
                await self._http.drain(config.request_timeout_s)
            await self._http.stop(config.request_timeout_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "chain"):
            self.chain.deadlines.stop()
            if self.chain.audit is not None:
                await self.chain.audit.close()
        if hasattr(self, "methods"):
            await self.methods.close()
            await self.authorizers.close()
        if hasattr(self, "services"):
            if self.services.admission is not None:
                await self.services.admission.close()
            await self.services.close()
            if self.services.encryption is not None:
                await self.services.encryption.close()
            if self.services.tracing is not None:
                await self.services.tracing.close()
        await self.stores.close()


def _profiles(request: Request) -> Awaitable[Response | None]:
    from berg.apiserver import profiles

    return profiles.handle(request)
