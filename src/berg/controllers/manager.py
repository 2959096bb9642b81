"""The controller manager: chooses the controllers, gives them one set of informers, starts and stops them.

Controllers are imported by one table, before there is anything to wait for; `--controllers` uses upstream's names.
With leader election they run only while the lease is held, and losing it stops the whole manager: another one acts now.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterable
from importlib import import_module

from berg.client.controller import Controller
from berg.client.events import EventRecorder
from berg.client.informer import Informer
from berg.client.leaderelection import LeaderElector
from berg.client.leasecandidate import LeaseCandidate
from berg.client.rest import Client
from berg.client.serving import Serving
from berg.client.workqueue import SECONDS, WorkQueue
from berg.controllers.config import Config
from berg.controllers.context import Context
from berg.machinery import features, process, version
from berg.machinery.clock import Clock, RealClock
from berg.machinery.features import FeatureGates
from berg.machinery.metrics import Cell, Labels, Registry, Samples
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
MANAGER = "kube-controller-manager"

CONTROLLERS: dict[str, str] = {
    "node-ipam-controller": "nodeipam:NodeIpamController",  # first: a new node waits for its addresses
    "serviceaccount-token-controller": "serviceaccount_tokens:TokenController",
    "endpoints-controller": "endpoints:EndpointsController",
    "endpointslice-controller": "endpointslice:EndpointSliceController",
    "endpointslice-mirroring-controller": "endpointslicemirroring:EndpointSliceMirroringController",
    "replicationcontroller-controller": "replicaset:ReplicationControllerController",
    "pod-garbage-collector-controller": "podgc:PodGarbageCollector",
    "namespace-controller": "namespace:NamespaceController",
    "serviceaccount-controller": "serviceaccount:ServiceAccountController",
    "garbage-collector-controller": "garbagecollector:GarbageCollector",
    "horizontal-pod-autoscaler-controller": "hpa:HorizontalPodAutoscalerController",
    "resourceclaim-controller": "resourceclaim:ResourceClaimController",
    "disruption-controller": "disruption:DisruptionController",
    "resourcequota-controller": "resourcequota:ResourceQuotaController",
    "clusterrole-aggregation-controller": "clusterrole:ClusterRoleAggregationController",
    "ttl-controller": "ttl:TTLController",
    "certificatesigningrequest-signing-controller": "csr:Signer",
    "certificatesigningrequest-approving-controller": "csr:Approver",
    "certificatesigningrequest-cleaner-controller": "csr:Cleaner",
    "bootstrap-signer-controller": "bootstrap:BootstrapSigner",
    "token-cleaner-controller": "bootstrap:TokenCleaner",
    "persistentvolume-binder-controller": "pvbinder:PersistentVolumeBinder",
    "persistentvolume-expander-controller": "volumeexpand:VolumeExpandController",
    "persistentvolume-attach-detach-controller": "attachdetach:AttachDetachController",
    "persistentvolume-protection-controller": "volumeprotection:VolumeProtection",
    "persistentvolumeclaim-protection-controller": "volumeprotection:ClaimProtection",
    "volumeattributesclass-protection-controller": "volumeprotection:AttributesClassProtection",
    "ephemeral-volume-controller": "ephemeralvolume:EphemeralVolumeController",
    "service-cidr-controller": "servicecidr:ServiceCIDRController",
    "validatingadmissionpolicy-status-controller": "vapstatus:ValidatingAdmissionPolicyStatusController",
    "daemonset-controller": "daemonset:DaemonSetController",
    "statefulset-controller": "statefulset:StatefulSetController",
    "cronjob-controller": "cronjob:CronJobController",
    "job-controller": "job:JobController",
    "ttl-after-finished-controller": "ttlafterfinished:TTLAfterFinishedController",
    "deployment-controller": "deployment:DeploymentController",
    "replicaset-controller": "replicaset:ReplicaSetController",
    "node-lifecycle-controller": "nodelifecycle:NodeLifecycleController",
    "taint-eviction-controller": "tainteviction:TaintEvictionController",
    "root-ca-certificate-publisher-controller": "rootca:RootCAPublisher",
    "legacy-serviceaccount-token-cleaner-controller": "serviceaccount_tokens:LegacyTokenCleaner",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller": "trustbundles:ServingTrustBundlePublisher",
    "podcertificaterequest-cleaner-controller": "podcertificates:PodCertificateRequestCleaner",
    "storage-version-migrator-controller": "storageversionmigrator:StorageVersionMigrator",
    "storageversion-garbage-collector-controller": "storageversiongc:StorageVersionGC",
}
GATES = {
    "kube-apiserver-serving-clustertrustbundle-publisher-controller": "ClusterTrustBundle",
    "podcertificaterequest-cleaner-controller": "PodCertificateRequest",
    "storage-version-migrator-controller": "StorageVersionMigrator",
    "storageversion-garbage-collector-controller": "StorageVersionAPI",
}
"""controller → the feature gate without which it does not run"""
DISABLED_BY_DEFAULT = frozenset({"bootstrap-signer-controller", "token-cleaner-controller"})

NOT_HERE = frozenset(
    {
        "cloud-node-lifecycle-controller",
        "device-taint-eviction-controller",
        "node-route-controller",
        "podgroup-protection-controller",
        "resourcepoolstatusrequest-controller",
        "selinux-warning-controller",
        "service-ca-certificate-publisher-controller",
        "service-lb-controller",
    }
)
"""names that upstream knows: of clouds, or of APIs that are off by default. Naming one runs nothing."""


class UnknownController(ValueError):
    """`--controllers` names one that does not exist."""


def chosen(controllers: list[str]) -> list[str]:
    """The names to start. Source: controller-manager app/helper.go, IsControllerEnabled."""
    for c in controllers:
        name = c.removeprefix("-")
        if name in NOT_HERE and not c.startswith("-"):
            log.warning("%s is not part of Berg: it does not run", name)
        if c != "*" and name not in CONTROLLERS and name not in NOT_HERE:
            raise UnknownController(f'"{name}" is not in the list of known controllers')
    found = []
    for name in CONTROLLERS:
        if name in controllers:
            found.append(name)
        elif f"-{name}" in controllers:
            continue
        elif "*" in controllers and name not in DISABLED_BY_DEFAULT:
            found.append(name)
    return found


def _class(name: str) -> Callable[[Context], Controller]:
    module, _, cls = CONTROLLERS[name].partition(":")
    found: Callable[[Context], Controller] = getattr(import_module(f"berg.controllers.{module}"), cls)
    return found


class ControllerManager:
    def __init__(
        self,
        client: Client,
        config: Config | None = None,
        *,
        clock: Clock | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.client, self.config = client, config or Config()
        self.clock: Clock = clock or RealClock()
        self.features = FeatureGates(self.config.feature_gates)
        on = self.features.enabled
        self.names = [n for n in chosen(self.config.controllers) if n not in GATES or on(GATES[n])]
        self._classes = {name: _class(name) for name in self.names}
        self.controllers: dict[str, Controller] = {}
        self.metrics = Registry()
        self._describe()
        self._serving: Serving | None = None
        self._on_lost = on_lost
        self._stopping = False
        self._starting: list[asyncio.Future[None]] = []
        self._ctx: Context | None = None
        self._elector: LeaderElector | None = None
        self._candidate: LeaseCandidate | None = None

    async def start(self) -> None:
        """Returns when the informers are synced and every controller runs; with leader election, at once."""
        if self.config.secure_port:
            self._serving = Serving(
                self.client,
                MANAGER,
                lambda: self.metrics.text().encode(),
                address=self.config.bind_address,
                port=max(self.config.secure_port, 0),
                certificate=self.config.tls_cert_file,
                key=self.config.tls_private_key_file,
            )
            await self._serving.start()
        if not self.config.leader_elect:
            await self._run()
            return
        identity = self.config.leader_elect_identity or f"{socket.gethostname()}_{uuid.uuid4()}"
        self._elector = LeaderElector(
            self.client,
            self.config.leader_elect_resource_name,
            identity,
            on_started=self._run,
            on_stopped=self._lose,
            namespace=self.config.leader_elect_resource_namespace,
            clock=self.clock,
            lease_duration_s=self.config.leader_elect_lease_duration_s,
            renew_deadline_s=self.config.leader_elect_renew_deadline_s,
            retry_period_s=self.config.leader_elect_retry_period_s,
            recorder=EventRecorder(self.client, MANAGER, clock=self.clock),
            coordinated=self.features.enabled("CoordinatedLeaderElection"),
        )
        if self.features.enabled("CoordinatedLeaderElection"):
            name, namespace = self.config.leader_elect_resource_name, self.config.leader_elect_resource_namespace
            self._candidate = LeaseCandidate(self.client, identity, name, namespace=namespace, clock=self.clock)
            self._candidate.start()
        self._elector.start()

    async def stop(self) -> None:
        self._stopping = True
        if self._elector is not None:
            await self._elector.stop()
        if self._candidate is not None:
            await self._candidate.stop()
        await self._halt()
        if self._serving is not None:
            await self._serving.stop()

    def _describe(self) -> None:
        def queues(read: Callable[[WorkQueue[str]], float]) -> Callable[[], Samples]:
            def samples() -> Samples:
                for name, controller in self.controllers.items():
                    for i, loop in enumerate(controller.loops):
                        yield (f"{name}-{i}" if i else name,), read(loop.queue)

            return samples

        def cells(read: Callable[[WorkQueue[str]], Cell]) -> Callable[[], Iterable[tuple[Labels, Cell]]]:
            def found() -> Iterable[tuple[Labels, Cell]]:
                for name, controller in self.controllers.items():
                    for i, loop in enumerate(controller.loops):
                        yield (f"{name}-{i}" if i else name,), read(loop.queue)

            return found

        label = ("name",)
        process.describe(self.metrics, version.info(), MANAGER)
        self.metrics.gauge(features.METRIC, features.HELP, ("name", "stage"), self.features.samples)
        self.metrics.gauge("workqueue_depth", "[BETA] Keys that wait for a worker", label, queues(len))
        self.metrics.total("workqueue_adds_total", "[BETA] Keys put into the queue", label, queues(lambda q: q.adds))
        self.metrics.total("workqueue_retries_total", "[BETA] Keys put back", label, queues(lambda q: q.retried))
        for what, help, of_queue in (
            ("unfinished_work_seconds", "How long keys have been in process, together", lambda q: sum(q.ages_s())),
            ("longest_running_processor_seconds", "The longest of these", lambda q: max(q.ages_s(), default=0.0)),
        ):
            self.metrics.gauge(f"workqueue_{what}", f"[BETA] {help}", label, queues(of_queue))
        for what, help, of_keys in (
            ("queue_duration_seconds", "How long keys waited", lambda q: q.waited),
            ("work_duration_seconds", "How long keys were in process", lambda q: q.worked),
        ):
            self.metrics.distribution(f"workqueue_{what}", f"[BETA] {help}", SECONDS, label, cells(of_keys))
        self.metrics.gauge(
            "running_managed_controllers",
            "[BETA] Controllers that run in this process",
            ("manager", "name"),
            lambda: [((MANAGER, name), 1.0) for name in self.controllers],
        )
        self.metrics.gauge(
            "leader_election_master_status",
            "[ALPHA] Whether this process holds the lease",
            label,
            lambda: [((MANAGER,), float(self._elector.leading))] if self._elector is not None else [],
        )

    async def _run(self) -> None:
        ctx = self._ctx = Context(self.client, self.config, self.clock, self.metrics)
        needs: dict[str, list[Informer]] = {}
        for name in self.names:
            ctx.asked = needs[name] = []
            ctx.client = ctx.credentials.client(name)
            self.controllers[name] = self._classes[name](ctx)
        ctx.asked, ctx.client = [], self.client
        ctx.informers.start_new()
        # Each starts when what it reads is there: one resource that cannot be watched holds up only its own.
        self._starting = [asyncio.ensure_future(self._start_one(name, needs[name])) for name in self.names]
        _, late = await asyncio.wait(self._starting, timeout=PATIENCE_S)
        if late:
            missing = {i.resource.group_resource for n in self.names for i in needs[n] if not i.synced.is_set()}
            log.warning("not synced yet: %s; their controllers start when they are", ", ".join(sorted(missing)))
        for task in self._starting:
            if task.done():
                task.result()
        log.info("controllers started (pid %d)", os.getpid())

    async def _start_one(self, name: str, needs: list[Informer]) -> None:
        for informer in needs:
            await informer.synced.wait()
        await self.controllers[name].start()

    async def _halt(self) -> None:
        await end(*self._starting)
        await asyncio.gather(*(c.stop() for c in self.controllers.values()))
        self.controllers.clear()
        if self._ctx is not None:
            ctx, self._ctx = self._ctx, None
            await ctx.stop()

    async def _lose(self) -> None:
        await self._halt()
        if self._on_lost is not None and not self._stopping:
            self._on_lost()
