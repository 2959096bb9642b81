"""This node in the API: registration, status, and the Lease that says it is alive.

The status is written at once when something that matters changed, and otherwise every `nodeStatusReportFrequency`
as a sign of life; nothing is claimed that has not been looked at. The Lease is renewed every quarter of its
duration.

Source: pkg/kubelet/kubelet_node_status.go, nodestatus/setters.go; component-helpers apimachinery/lease.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from berg.client.rest import Client
from berg.kubelet.config import KubeletConfig
from berg.kubelet.machine import Machine, disk
from berg.kubelet.runtime_state import RuntimeState, aggregate
from berg.machinery import quantity
from berg.machinery.clock import Clock, rfc3339, rfc3339_micro
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj
from berg.machinery.tasks import end
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, CRIError

log = logging.getLogger(__name__)

VERSION = "v1.37.0"
ATTACH_ANNOTATION = "volumes.kubernetes.io/controller-managed-attach-detach"
LEASE_NAMESPACE = "kube-node-lease"
_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(slots=True)
class NodeFacts:
    machine: Machine
    ips: list[str]
    pressure: Callable[[str], bool] = lambda type: False
    shutdown: Callable[[], str | None] = lambda: None
    server_port: Callable[[], int] = lambda: 10250
    hostname: str = ""
    features: list[str] = field(default_factory=list)


class NodeStatus:
    def __init__(
        self,
        client: Client,
        cri: CRI,
        clock: Clock,
        config: KubeletConfig,
        runtime: RuntimeState,
        facts: NodeFacts,
        event: Callable[[Obj, str, str, str], None],
    ) -> None:
        self._client = client
        self._cri = cri
        self._clock = clock
        self._config = config
        self._runtime = runtime
        self._facts = facts
        self._event = event
        self._node: Obj | None = None
        self._allocatable: dict[str, str] | None = None
        self._reported = float("-inf")
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.registered = asyncio.Event()

    @property
    def node(self) -> Obj | None:
        return self._node

    @property
    def reference(self) -> Obj:
        name = self._config.node_name
        return {"kind": "Node", "apiVersion": "v1", "name": name, "uid": name}

    def update(self, node: Obj) -> None:
        """The API has a new version of the node."""
        self._node = node

    def poke(self) -> None:
        """Something that the status shows may have changed."""
        self._wake.set()

    # -- what there is

    def capacity(self) -> dict[str, str]:
        m, c = self._facts.machine, self._config
        storage = disk(c.root_dir)
        found = {
            "cpu": str(m.cpus),
            "memory": f"{m.memory_bytes // 1024}Ki",
            "pods": str(c.max_pods),
            "ephemeral-storage": f"{storage.capacity_bytes // 1024}Ki",
        }
        found.update({f"hugepages-{size}": str(quantity.from_value(n, "BinarySI")) for size, n in m.hugepages.items()})
        return found

    def allocatable(self) -> dict[str, str]:
        """Capacity without what is reserved for the system and for eviction, as of the last status. Shared: never
        change it. Source: node-allocatable."""
        if self._allocatable is None:
            self._allocatable = self._compute_allocatable(self.capacity())
        return self._allocatable

    def _compute_allocatable(self, found: dict[str, str]) -> dict[str, str]:
        for name, text in list(found.items()):
            left = quantity.milli(text)
            for reserved in (self._config.system_reserved, self._config.kube_reserved):
                left -= quantity.milli(reserved.get(name, "0"))
            if name in ("memory", "ephemeral-storage"):
                left -= 1000 * self._threshold(name, quantity.value(text))
            if name == "cpu":
                found[name] = str(quantity.from_milli(max(left, 0)))
            elif name == "memory":
                left -= sum(1000 * n for n in self._facts.machine.hugepages.values())
                found[name] = f"{max(left, 0) // 1000 // 1024}Ki"
            else:
                found[name] = str(max(left, 0) // 1000)
        return found

    def _threshold(self, name: str, capacity: int) -> int:
        signal = {"memory": "memory.available", "ephemeral-storage": "nodefs.available"}[name]
        text = self._config.eviction_hard.get(signal, "0")
        return int(capacity * float(text[:-1]) / 100) if text.endswith("%") else quantity.value(text)

    def memory_allocatable(self) -> int:
        return quantity.value(self.allocatable()["memory"])

    # -- the object

    def initial(self) -> Obj:
        m, c = self._facts.machine, self._config
        labels = {
            "beta.kubernetes.io/arch": m.architecture,
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": m.architecture,
            "kubernetes.io/hostname": self._facts.hostname or c.node_name,
            "kubernetes.io/os": "linux",
            **c.node_labels,
        }
        node: Obj = {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {"name": c.node_name, "labels": labels, "annotations": {ATTACH_ANNOTATION: "true"}},
            "spec": {},
        }
        if c.register_with_taints:
            node["spec"]["taints"] = copy.deepcopy(c.register_with_taints)
        if c.provider_id:
            node["spec"]["providerID"] = c.provider_id
        return node

    async def status(self, old: Obj) -> Obj:
        """The node's status now, over what was said before. Only the heartbeat times always change."""
        m, now = self._facts.machine, rfc3339(self._clock.now())
        status = copy.deepcopy(old)
        status["addresses"] = [{"type": "InternalIP", "address": ip} for ip in self._facts.ips] + [
            {"type": "Hostname", "address": self._facts.hostname or self._config.node_name}
        ]
        capacity = self.capacity()
        self._allocatable = self._compute_allocatable(dict(capacity))
        allocatable = dict(self._allocatable)
        for name in old.get("capacity") or {}:  # extended resources are others' to set
            if "/" in name:
                capacity[name] = old["capacity"][name]
                allocatable[name] = (old.get("allocatable") or {}).get(name, old["capacity"][name])
        status["capacity"], status["allocatable"] = capacity, allocatable
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": self._facts.server_port()}}
        status["nodeInfo"] = {
            "machineID": m.machine_id,
            "systemUUID": m.system_uuid,
            "bootID": m.boot_id,
            "kernelVersion": m.kernel,
            "osImage": m.os_image,
            "containerRuntimeVersion": f"{self._runtime.name}://{self._runtime.version}",
            "kubeletVersion": VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": m.architecture,
        }
        if m.swap_bytes:
            status["nodeInfo"]["swap"] = {"capacity": m.swap_bytes}
        if (images := await self._images()) is not None:
            status["images"] = images
        self._handlers(status)
        conditions = [c for c in status.get("conditions") or () if c["type"] not in (*_PRESSURES, "Ready")]
        before = {c["type"]: c for c in old.get("conditions") or ()}
        for type in _PRESSURES:
            conditions.append(self._pressure(type, before.get(type), now))
        conditions.append(self._ready(capacity, before.get("Ready"), now))
        status["conditions"] = conditions
        return status

    async def _images(self) -> list[Obj] | None:
        try:
            answer = await self._cri.list_images(pb.ListImagesRequest())
        except CRIError:
            return None
        images = sorted(answer.images, key=lambda i: i.size, reverse=True)
        limit = self._config.node_status_max_images
        shown = images if limit < 0 else images[:limit]
        # The scheduler reads at most five names of each.
        return [
            {"names": [*i.repo_digests, *i.repo_tags][:5], "sizeBytes": i.size}
            for i in shown
            if i.repo_digests or i.repo_tags
        ]

    def _handlers(self, status: Obj) -> None:
        handlers = []
        for h in self._runtime.handlers:
            one: Obj = {"name": h.name}
            features: Obj = {}
            if h.HasField("features"):
                features = {
                    "recursiveReadOnlyMounts": bool(h.features.recursive_read_only_mounts),
                    "userNamespaces": bool(h.features.user_namespaces),
                }
            if features:
                one["features"] = features
            handlers.append(one)
        if handlers:
            status["runtimeHandlers"] = handlers
        if self._runtime.features is not None:
            policy = bool(self._runtime.features.supplemental_groups_policy)
            status["features"] = {"supplementalGroupsPolicy": policy}

    def _condition(self, type: str, ok: bool, reason: str, message: str, was: Obj | None, now: str) -> Obj:
        value = "True" if ok else "False"
        same = was is not None and was.get("status") == value
        return {
            "type": type,
            "status": value,
            "lastHeartbeatTime": now,
            "lastTransitionTime": was["lastTransitionTime"] if same and was else now,
            "reason": reason,
            "message": message,
        }

    def _pressure(self, type: str, was: Obj | None, now: str) -> Obj:
        under = self._facts.pressure(type)
        if type == "DiskPressure":
            words = (
                ("KubeletHasDiskPressure", "kubelet has disk pressure")
                if under
                else (
                    "KubeletHasNoDiskPressure",
                    "kubelet has no disk pressure",
                )
            )
            event = "NodeHasDiskPressure" if under else "NodeHasNoDiskPressure"
        else:
            what = "memory" if type == "MemoryPressure" else "PID"
            amount = "insufficient" if under else "sufficient"
            name = ("Insufficient" if under else "Sufficient") + ("Memory" if what == "memory" else "PID")
            words = (f"KubeletHas{name}", f"kubelet has {amount} {what} available")
            event = f"NodeHas{name}"
        if was is None or was.get("status") != ("True" if under else "False"):
            self._event(self.reference, "Normal", event, f"Node {self._config.node_name} status is now: {event}")
        return self._condition(type, under, *words, was, now)

    def _ready(self, capacity: dict[str, str], was: Obj | None, now: str) -> Obj:
        errors = [e for e in (self._runtime.runtime_error, self._runtime.network_error, self._facts.shutdown()) if e]
        if missing := [r for r in ("cpu", "memory", "pods", "ephemeral-storage") if r not in capacity]:
            errors.append(f"missing node capacity for resources: {', '.join(missing)}")
        problem = aggregate(errors)
        if problem is None:
            answer = self._condition("Ready", True, "KubeletReady", "kubelet is posting ready status", was, now)
        else:
            answer = self._condition("Ready", False, "KubeletNotReady", problem, was, now)
        if was is None or was.get("status") != answer["status"]:
            event = "NodeReady" if problem is None else "NodeNotReady"
            self._event(self.reference, "Normal", event, f"Node {self._config.node_name} status is now: {event}")
        return answer

    # -- telling the API

    async def start(self) -> None:
        self._tasks = [asyncio.ensure_future(self._run()), asyncio.ensure_future(self._renew())]

    async def stop(self) -> None:
        await end(*self._tasks)

    async def _run(self) -> None:
        delay = 0.1
        while not self.registered.is_set():
            try:
                await self._register()
                self.registered.set()
            except ApiError as e:
                log.info("unable to register the node: %s", e.message)
                await self._clock.sleep(delay)
                delay = min(delay * 2, 7.0)
        while True:
            self._wake.clear()
            try:
                await self._report()
            except ApiError as e:
                log.info("node status: %s", e.message)
                await self._clock.sleep(1.0)
                continue
            await self._pause(self._config.node_status_update_frequency)

    async def _pause(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for w in waits:
                w.cancel()

    async def _register(self) -> None:
        nodes, name = resource("nodes"), self._config.node_name
        wanted = self.initial()
        if self._config.register_node:
            try:
                first = {**wanted, "status": await self.status({})}
                self._node = await self._client.create(nodes, first)
                return
            except ApiError as e:
                if e.reason != "AlreadyExists":
                    raise
        node = await self._client.get(nodes, None, name)
        have = node["metadata"].get("labels") or {}
        labels = {k: v for k, v in wanted["metadata"]["labels"].items() if have.get(k) != v}
        annotated = (node["metadata"].get("annotations") or {}).get(ATTACH_ANNOTATION) == "true"
        if labels or not annotated:
            patch = {"metadata": {"labels": labels, "annotations": {ATTACH_ANNOTATION: "true"}}}
            node = await self._client.patch(nodes, None, name, patch)
        self._node = node

    async def _report(self) -> None:
        nodes, name = resource("nodes"), self._config.node_name
        node = self._node
        if node is None:
            node = self._node = await self._client.get(nodes, None, name)
        old = node.get("status") or {}
        new = await self.status(old)
        late = self._clock.monotonic() - self._reported >= self._config.node_status_report_frequency
        if not late and _without_heartbeats(old) == _without_heartbeats(new):
            return
        patch: Obj = {k: v for k, v in new.items() if k == "conditions" or v != old.get(k)}
        if "addresses" in patch:
            patch["addresses"] = [*patch["addresses"], {"$patch": "replace"}]
        try:
            self._node = await self._client.patch(
                nodes, None, name, {"status": patch}, type="strategic", subresource="status"
            )
        except ApiError as e:
            if e.code == 404 and self._config.register_node:
                self._node = None
                await self._register()
            raise
        self._reported = self._clock.monotonic()

    async def _renew(self) -> None:
        duration = self._config.node_lease_duration_seconds
        leases, lease = resource("leases.coordination.k8s.io"), None
        await self.registered.wait()
        while True:
            try:
                lease = await self._renew_once(leases, lease, duration)
                pause = duration * 0.25
            except ApiError as e:
                log.info("node lease: %s", e.message)
                lease, pause = None, 0.2 if e.code == 409 else 1.0
            await self._clock.sleep(pause)

    async def _renew_once(self, leases: Any, lease: Obj | None, duration: int) -> Obj:
        name, now = self._config.node_name, rfc3339_micro(self._clock.now())
        if lease is None:
            try:
                lease = await self._client.get(leases, LEASE_NAMESPACE, name)
            except ApiError as e:
                if e.code != 404:
                    raise
                return await self._client.create(leases, self._lease(duration, now), LEASE_NAMESPACE)
        spec = {**lease["spec"], "holderIdentity": name, "leaseDurationSeconds": duration, "renewTime": now}
        return await self._client.update(leases, {**lease, "spec": spec})

    def _lease(self, duration: int, now: str) -> Obj:
        name = self._config.node_name
        lease: Obj = {
            "kind": "Lease",
            "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": name, "namespace": LEASE_NAMESPACE},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": duration, "renewTime": now},
        }
        if self._node is not None:
            uid = self._node["metadata"]["uid"]
            lease["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]
        return lease


def _without_heartbeats(status: Obj) -> Obj:
    conditions = [{k: v for k, v in c.items() if k != "lastHeartbeatTime"} for c in status.get("conditions") or ()]
    return {**status, "conditions": sorted(conditions, key=lambda c: c["type"])}
