"""The kubelet: runs the pods that are bound to its node, and tells the API about them and about the node.

This file is the wiring and the dispatch; the work is in the rooms:

    sources ──pods──► Kubelet ──► workers ──► syncer ──► volumes, kuberuntime ──CRI──► runtime
                         ▲                       │
    pleg, probes, objects┘ (wake a pod)          └──► status_manager ──► API

Everything is driven by events; only the node's own signs of life have a period. At start it adopts what the
runtime already runs; at stop it lets go and leaves everything running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, cast

from berg.client.events import EventRecorder
from berg.client.informer import InformerFactory, without_managed_fields
from berg.client.rest import Client
from berg.kubelet import admission, leftovers, machine, node_pressure, node_status
from berg.kubelet import pod as p
from berg.kubelet.allocation import Allocation
from berg.kubelet.cgroups import CgroupManager
from berg.kubelet.config import KubeletConfig
from berg.kubelet.dns import Configurer
from berg.kubelet.downward import PodFacts
from berg.kubelet.env import make as make_env
from berg.kubelet.eviction import EvictionManager, is_critical
from berg.kubelet.image_gc import ImageGC
from berg.kubelet.images import ImageManager
from berg.kubelet.kuberuntime import RuntimeManager, Surroundings
from berg.kubelet.log_rotation import LogRotation
from berg.kubelet.mirror import Mirrors
from berg.kubelet.objects import ObjectCache
from berg.kubelet.pleg import PLEG
from berg.kubelet.probes.manager import ProbeManager
from berg.kubelet.runtime_state import RuntimeState
from berg.kubelet.sources import Changes, FileSource, PodSet
from berg.kubelet.status_manager import StatusManager
from berg.kubelet.syncer import Parts, PodSyncer
from berg.kubelet.volumes.certificates import PodCertificates
from berg.kubelet.volumes.content import Context
from berg.kubelet.volumes.manager import Hooks, VolumeManager
from berg.kubelet.volumes.persistent import NFSVolumes, PersistentVolumes
from berg.kubelet.volumes.tokens import TokenManager
from berg.kubelet.volumes.trust import TrustBundles
from berg.kubelet.workers import Kill, PodWorkers
from berg.machinery.clock import Clock, RealClock
from berg.machinery.features import FeatureGates
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj
from berg.runtime.cri import CRI, CRIError

log = logging.getLogger(__name__)

CONNECT_RETRY_S = 0.1
CLEAN_UP_RETRY_S = 5.0


class Kubelet:
    """`await start()` returns when the runtime has been adopted and the server listens; registration with the API
    goes on by itself, for static pods must run without one."""

    def __init__(self, client: Client, runtime: CRI, config: KubeletConfig, clock: Clock | None = None) -> None:
        self.client = client
        self.tracing: Any = None
        if config.tracing:
            from berg.machinery.tracing import needed

            needed()
            from berg.kubelet.tracing import TracedCRI, Tracing

            self.tracing = Tracing.of(config.tracing, config.node_name)
            runtime = cast(CRI, TracedCRI(runtime, self.tracing.tracer))
        self.cri = runtime
        self.config = config
        self.features = FeatureGates(config.feature_gates)
        self.clock: Clock = clock or RealClock()
        self.pods = PodSet()
        self.machine = machine.machine()
        self.node_ips = machine.node_ips(config.node_ip)
        self.recorder = EventRecorder(client, "kubelet", clock=self.clock, host=config.node_name)
        self.informers = InformerFactory(client, self.clock, transform=without_managed_fields)
        self.state = RuntimeState(runtime, self.clock, self._runtime_state_changed)
        self.facts = node_status.NodeFacts(self.machine, self.node_ips)
        self.node = node_status.NodeStatus(
            client, runtime, self.clock, config, self.state, self.facts, self.recorder.event
        )
        self.cgroups = CgroupManager(
            driver=config.cgroup_driver,
            cgroup_root=config.cgroup_root,
            enabled=config.cgroups_per_qos,
            pids_limit=config.pod_pids_limit,
        )
        self.objects = ObjectCache(client, self.clock)
        self.tokens = TokenManager(client, self.clock)
        self.images = ImageManager(
            runtime,
            self.clock,
            self.recorder.event,
            serialize=config.serialize_image_pulls,
            parallel=config.max_parallel_image_pulls,
        )
        self.probes = ProbeManager(runtime, self.clock, self.recorder.event, self._wake)
        self.dns = Configurer(config.cluster_dns, config.cluster_domain, config.resolv_conf, self.recorder.event)
        self.runtime = RuntimeManager(
            runtime,
            self.clock,
            config,
            self.images,
            self.dns,
            self.recorder.event,
            Surroundings(
                environment=self._environment,
                probe=self.probes.result,
                cgroup_parent=self.cgroups.parent,
                runtime_handler=self._runtime_handler,
                pod_limits=self.cgroups.resize,
                memory_capacity=self.machine.memory_bytes,
                cgroup_v2=self.cgroups.v2,
            ),
        )
        claims = PersistentVolumes(client, lambda: self.node.node)
        self.trust = TrustBundles(self.informers, self._trust_changed)
        self.certificates = PodCertificates(
            client, self.clock, self.informers, lambda: self.node.node, self.recorder.event, self._objects_changed
        )
        self.volumes = VolumeManager(
            config,
            self.clock,
            Hooks(
                context=self._volume_context,
                event=self.recorder.event,
                next_renewal=self._next_renewal,
                memory_allocatable=self.node.memory_allocatable(),
            ),
            {"persistentVolumeClaim": claims, "ephemeral": claims, "nfs": NFSVolumes()},
        )
        self.statuses = StatusManager(client, self.clock)
        self.syncer = PodSyncer(
            Parts(
                cri=runtime,
                clock=self.clock,
                config=config,
                state=self.state,
                runtime=self.runtime,
                statuses=self.statuses,
                probes=self.probes,
                volumes=self.volumes,
                objects=self.objects,
                tokens=self.tokens,
                cgroups=self.cgroups,
                event=self.recorder.event,
                node_ips=self.node_ips,
            )
        )
        self.workers = PodWorkers(self._turns(), self.clock)
        self.allocation = Allocation(self.recorder.event, self._wake)
        self.pleg = PLEG(runtime, self.clock, self._runtime_changed)
        self.image_gc = ImageGC(
            runtime, self.clock, config, lambda t, r, m: self.recorder.event(self.node.reference, t, r, m)
        )
        self.eviction = EvictionManager(
            config,
            self.clock,
            signals=lambda: node_pressure.signals(config, self.image_gc),
            pods=self._active_pods,
            usage=lambda: node_pressure.usage(runtime, config, self._active_pods()),
            reclaim=self._reclaim,
            evict=self._evict,
            over_limit=lambda: node_pressure.over_limit(runtime, config, self._active_pods()),
            changed=self.node.poke,
        )
        self.log_rotation = LogRotation(runtime, self.clock, config)
        self.mirrors = Mirrors(client, self.pods, self.node, self.statuses.mirror_changed, self._wake)
        self._connect_rooms()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sources_ready = False
        self._files: FileSource | None = None
        self._services = self.informers.informer(resource("services"))
        self._own_pods = self.informers.informer(resource("pods"), field_selector=f"spec.nodeName={config.node_name}")
        self._node = self.informers.informer(resource("nodes"), field_selector=f"metadata.name={config.node_name}")
        self.server: Any = None

    def _turns(self) -> Any:
        """What the pods' workers run."""
        if self.tracing is None:
            return self.syncer
        from berg.kubelet.tracing import TracedSyncer

        return TracedSyncer(self.syncer, self.tracing.tracer)

    def _connect_rooms(self) -> None:
        self.statuses.target = self.mirrors.target
        self.statuses.on_status = self.probes.status_changed
        self.objects.on_change = self._objects_changed
        self.syncer.mirror = self.mirrors.reconcile
        self.syncer.blocked_by_name = self._blocked_by_name
        self.syncer.wake = self._wake
        self.syncer.allocate = self._allocate
        self.syncer.settle = self._settle
        self.syncer.conditions = self.allocation.conditions
        self.workers.on_finished = self._worker_finished
        self.state.health.append(("PLEG", self.pleg.healthy))
        self.facts.pressure = self.eviction.under_pressure

    # -- start and stop

    async def start(self) -> None:
        if self.config.fail_swap_on and self.machine.swap_bytes:
            raise RuntimeError(
                "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
            )
        await self._connect_runtime()
        self.cgroups.start(self.node.memory_allocatable(), self.machine.cpus * 1000)
        await self.pleg.relist()
        self.syncer.in_runtime.update(self.pleg.known)
        self.pleg.start()
        self.state.start()
        changes = Changes(self._upsert, self._remove)
        if self.config.static_pod_path:
            self._files = FileSource(self.config.static_pod_path, self.config.node_name, self.clock, changes)
            self._files.start()
        if self.config.enable_server:
            from berg.kubelet.server.server import KubeletServer

            self.server = KubeletServer(self)
            await self.server.start()
            self.facts.server_port = lambda: self.server.port
        self._own_pods.add_handler(self._upsert, lambda old, new: self._upsert(new), self._remove)
        self._node.add_handler(self.node.update, lambda old, new: self.node.update(new))
        self._spawn(self._follow_api(), "kubelet informers")
        self.image_gc.start()
        self.eviction.start()
        self.log_rotation.start()
        await self.node.start()
        self.recorder.event(self.node.reference, "Normal", "Starting", "Starting kubelet.")

    async def _connect_runtime(self) -> None:
        """Waits for the runtime as long as it takes, and learns who it is."""
        while True:
            try:
                await self.state.identify()
                break
            except CRIError as e:
                log.warning("container runtime: %s", e)
                await self.clock.sleep(CONNECT_RETRY_S)
        await self.state.check()

    async def _follow_api(self) -> None:
        await self.informers.start()
        self._sources_ready = self.mirrors.complete = True
        for uid in list(self.pleg.known):  # what runs and is wanted by no one
            self._orphan(uid)
        wanted = self.pods.pods.keys() | self.pleg.known.keys() | {w.uid for w in self.workers}
        await leftovers.clean_up(leftovers.find(self.config, self.cgroups, wanted), self.syncer.clean_up)

    async def stop(self) -> None:
        if self._files is not None:
            await self._files.stop()
        if self.server is not None:
            await self.server.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.eviction.stop()
        await self.image_gc.stop()
        await self.log_rotation.stop()
        await self.mirrors.stop()
        await self.node.stop()
        await self.pleg.stop()
        await self.state.stop()
        await self.workers.stop()
        await self.syncer.stop()
        await self.probes.stop()
        await self.volumes.stop()
        await self.statuses.stop()
        await self.objects.stop()
        await self.images.stop()
        await self.informers.stop()
        if self.tracing is not None:
            await self.tracing.close()
        await self.recorder.stop()

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- pods come and go

    def _upsert(self, pod: Obj) -> None:
        if p.is_mirror(pod):
            self.mirrors.changed(pod)
            return
        uid = p.uid(pod)
        old = self.pods.pods.get(uid)
        new = old is None
        self.pods.pods[uid] = pod
        if old is not None and _shown_in_files(old) != _shown_in_files(pod) and self.volumes.mounted(uid):
            self._spawn(self.volumes.refresh(pod), "refresh volumes")
        self.statuses.seen(pod)
        if new and self.workers.get(uid) is None:
            if uid in self.pleg.known:
                self.probes.adopt(pod)
            elif not self._admitted(pod):
                return
        self.workers.update(pod)

    def _remove(self, pod: Obj) -> None:
        if p.is_mirror(pod):
            self.mirrors.gone(pod)
            return
        uid = p.uid(pod)
        self.pods.pods.pop(uid, None)
        worker = self.workers.get(uid)
        if worker is None:
            self.statuses.forget(uid)
        elif worker.finished:
            self._forget(uid)
        else:
            worker.remove()
        if p.is_static(pod):
            self.mirrors.delete(pod)

    def _admitted(self, pod: Obj) -> bool:
        if p.deletion_requested(pod) or p.is_terminal_phase(p.phase(pod)):
            return True
        node = self.node.node or {**self.node.initial(), "status": {"allocatable": self.node.allocatable()}}
        refusal = admission.admit(pod, node, self._active_pods(but=p.uid(pod)), self.config.allowed_unsafe_sysctls)
        if refusal is None and (pressure := self.eviction.refuses(pod)) is not None:
            refusal = admission.Refusal("Evicted", pressure)
        if refusal is None:
            return True
        self.recorder.event(pod, "Warning", refusal.reason, refusal.message)
        self.statuses.set(
            pod,
            {
                **(pod.get("status") or {}),
                "phase": "Failed",
                "reason": refusal.reason,
                "message": f"Pod was rejected: {refusal.message}",
            },
        )
        return False

    def _evict(self, pod: Obj, grace_s: int, message: str, condition: Obj | None) -> bool:
        worker = self.workers.get(p.uid(pod))
        if worker is None or worker.terminating or is_critical(pod):
            return False
        self.recorder.event(pod, "Warning", "Evicted", message)

        def change(status: Obj) -> Obj:
            conditions = [c for c in status.get("conditions") or () if c["type"] != "DisruptionTarget"]
            if condition is not None:
                conditions.append({**condition, "observedGeneration": p.generation(pod)})
            failed = {"phase": "Failed", "reason": "Evicted", "message": message}
            return {**status, **failed, "conditions": conditions}

        worker.kill(Kill(grace_s, change, evict=True))
        return True

    async def _reclaim(self, signal: str) -> None:
        await self.image_gc.free_all()

    def _active_pods(self, but: str = "") -> list[Obj]:
        active = []
        for uid, pod in self.pods.pods.items():
            worker = self.workers.get(uid)
            if uid != but and worker is not None and not worker.terminated:
                active.append(pod)
        return active

    def _allocate(self, pod: Obj) -> Obj:
        def others() -> list[Obj]:
            return [self.allocation.allocated(o) for o in self._active_pods(but=p.uid(pod))]

        return self.allocation.update(pod, self.node.allocatable, others)

    def _settle(self, pod: Obj, in_force: bool, error: str) -> None:
        if not in_force or error or self.allocation.conditions(pod):
            self.allocation.settle(pod, in_force, error)

    def _worker_finished(self, uid: str) -> None:
        worker = self.workers.get(uid)
        if worker is not None and (worker.deleted or uid not in self.pods.pods):
            self._forget(uid)
        self.allocation.room_was_made()
        for other in self.pods.pods.values():  # a static pod may wait for its predecessor's name
            if p.is_static(other):
                self.workers.wake(p.uid(other))

    def _forget(self, uid: str) -> None:
        """The pod has ended and its source no longer has it."""
        self.workers.drop(uid)
        self.statuses.forget(uid)
        self.probes.remove_pod(uid)
        self.allocation.forget(uid)
        self.certificates.forget(uid)
        self._spawn(self._clean_up(uid), f"clean up {uid}")

    async def _clean_up(self, uid: str) -> None:
        while True:
            try:
                await self.syncer.clean_up(uid)
                break
            except (CRIError, OSError) as e:
                log.warning("cleaning up pod %s: %s", uid, e)
                await self.clock.sleep(CLEAN_UP_RETRY_S)
        if (again := self.pods.pods.get(uid)) is not None:  # the same manifest has come back
            self.workers.update(again)

    def _orphan(self, uid: str) -> None:
        if self._sources_ready and uid not in self.pods.pods and self.workers.get(uid) is None:
            log.info("pod %s runs and is not wanted", uid)
            self.workers.orphan(uid)

    def _blocked_by_name(self, pod: Obj) -> bool:
        if not p.is_static(pod):
            return False
        name, uid = p.full_name(pod), p.uid(pod)
        return any(
            w.uid != uid and w.pod is not None and not w.finished and w.terminating and p.full_name(w.pod) == name
            for w in self.workers
        )

    # -- what wakes a pod

    def _wake(self, uid: str) -> None:
        self.workers.wake(uid)

    def _runtime_changed(self, uid: str) -> None:
        if self.workers.get(uid) is not None:
            self.syncer.runtime_changed(uid)
            self.workers.wake(uid)
        elif uid in self.syncer.in_runtime or uid in self.pleg.known:
            self.syncer.in_runtime.add(uid)
            if uid not in {t.get_name().removeprefix("clean up ") for t in self._tasks}:
                self._orphan(uid)

    def _runtime_state_changed(self) -> None:
        self.node.poke()
        if self.state.network_error is None:
            for worker in self.workers:
                worker.wake()

    def _objects_changed(self, uids: set[str]) -> None:
        for uid in uids:
            self.volumes.objects_changed(uid)
            pod = self.pods.pods.get(uid)
            if pod is not None and self.volumes.mounted(uid):
                self._spawn(self.volumes.refresh(pod), "refresh volumes")
            self._wake(uid)

    # -- what the rooms ask for

    def pod_facts(self, ips: list[str]) -> PodFacts:
        return PodFacts(tuple(ips), tuple(self.node_ips), self.config.node_name, self.node.allocatable())

    async def _environment(self, pod: Obj, c: Obj, ips: list[str]) -> dict[str, str]:
        if not p.is_static(pod):
            await self._services.synced.wait()
        ips = ips or (self.node_ips if p.host_network(pod) else [])
        uid = p.uid(pod)

        def path(name: str):  # type: ignore[no-untyped-def]
            mounted = self.volumes.mounted(uid).get(name)
            return mounted.path if mounted else None

        return await make_env(pod, c, self.pod_facts(ips), self.objects, self._services.lister, path)

    def _volume_context(self, pod: Obj) -> Context:
        status = self.statuses.get(p.uid(pod)) or pod.get("status") or {}
        ips = [x["ip"] for x in status.get("podIPs") or ()]
        facts = self.pod_facts(ips)
        return Context(pod, self.objects, self.tokens.get, self.trust.pem, facts, self.certificates.get)

    def _next_renewal(self, uid: str) -> float | None:
        times = (self.tokens.next_renewal(uid), self.certificates.next_renewal(uid))
        return min((t for t in times if t is not None), default=None)

    def _trust_changed(self) -> None:
        for uid, pod in self.pods.pods.items():
            sources = [
                s for v in pod["spec"].get("volumes") or () for s in (v.get("projected") or {}).get("sources") or ()
            ]
            if any(s.get("clusterTrustBundle") for s in sources):
                self._objects_changed({uid})

    async def _runtime_handler(self, pod: Obj) -> str:
        name, handler = pod["spec"].get("runtimeClassName"), ""
        if name:
            try:
                found = await self.client.get(resource("runtimeclasses.node.k8s.io"), None, name)
            except ApiError as e:
                raise ValueError(f"failed to get sandbox runtime: {e.message}") from e
            handler = found.get("handler") or ""
        if pod["spec"].get("hostUsers") is False:
            # No mappings of users are given out yet, so such a pod must not run without.
            raise ValueError(
                f'can\'t set `spec.hostUsers: false`, RuntimeClass handler "{handler}" does not support user namespaces'
            )
        return handler


def _shown_in_files(pod: Obj) -> tuple[Obj, Obj, Obj]:
    """What of a pod may change and stands in downward API volumes."""
    return p.labels(pod), p.annotations(pod), {c["name"]: c.get("resources") for c in p.containers(pod)}
