"""EndpointSlices: the pods behind a service, at most a hundred in a slice, so that one pod's change is small.

Slices are made per address family and per set of port numbers (named ports may differ between pods). What an
existing slice holds stays in it where it still holds; the rest is packed by endpointslice_packing.py.

Source: pkg/controller/endpointslice, k8s.io/endpointslice.
"""

from __future__ import annotations

import asyncio

from berg.client.expectations import Expectations
from berg.controllers.context import Context
from berg.controllers.endpointslice_figures import Figures
from berg.controllers.endpointslice_packing import Desired, Plan, plan
from berg.controllers.objects import namespace_is_terminating
from berg.controllers.ownership import api_ref
from berg.controllers.pods import is_ready
from berg.controllers.service_pods import (
    HEADLESS_LABEL,
    ServiceController,
    belongs,
    canonical_ip,
    family,
    find_port,
    has_cluster_ip,
    pod_ips,
    shows_hostname,
)
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
NAME = "endpointslice-controller.k8s.io"
RESERVED = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS_LABEL})
ZONE = "topology.kubernetes.io/zone"
BY_SERVICE = "service"


def index_by_service(ctx: Context) -> None:
    ctx.informer("endpointslices.discovery.k8s.io").add_index(
        BY_SERVICE,
        lambda s: (f"{meta.labels(s).get(MANAGED_BY)}/{meta.namespace(s)}/{meta.labels(s).get(SERVICE_NAME)}",),
    )


class NodeMissing(Exception):
    """A pod's node is not known yet."""


class EndpointSliceController(ServiceController):
    name = "endpointslice-controller"
    component = "endpoint-slice-controller"
    max_retries = 15

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("endpointslices.discovery.k8s.io")
        self.slices = ctx.informer("endpointslices.discovery.k8s.io")
        self.nodes = ctx.informer("nodes")
        index_by_service(ctx)
        self.expectations = Expectations(ctx.clock)
        self.figures = Figures(
            ctx.metrics,
            lambda: (s for s in self.slices.lister.list() if meta.labels(s).get(MANAGED_BY) == NAME),
            self.services.lister.list,
        )
        self.slices.add_handler(self._slice_added, self._slice_changed, self._slice_gone)
        self.nodes.add_handler(self._node_added, self._node_changed, None)

    # -- events

    def _key(self, s: Obj) -> str | None:
        labels = meta.labels(s)
        if labels.get(MANAGED_BY) != NAME or not labels.get(SERVICE_NAME):
            return None
        return f"{meta.namespace(s)}/{labels[SERVICE_NAME]}"

    def _slice_added(self, s: Obj) -> None:
        if (key := self._key(s)) is not None:
            self.expectations.added(key)
            self.queue.add(key)

    def _slice_changed(self, old: Obj, new: Obj) -> None:
        for key in {self._key(old), self._key(new)} - {None}:
            assert key is not None
            self.queue.add(key)

    def _slice_gone(self, s: Obj) -> None:
        if (key := self._key(s)) is not None:
            self.queue.add(key)

    def _node_added(self, node: Obj) -> None:
        for pod in self.pods.lister:
            if pod["spec"].get("nodeName") == node["metadata"]["name"]:
                self._pod(pod)

    def _node_changed(self, old: Obj, new: Obj) -> None:
        if meta.labels(old).get(ZONE) != meta.labels(new).get(ZONE):
            self._node_added(new)

    # -- the loop

    async def reconcile(self, key: str) -> None:
        service = self.services.lister.get_key(key)
        if service is None:
            self.expectations.forget(key)
            self.figures.gone(key)
            return  # the slices are the service's dependents: the garbage collector takes them
        if not service["spec"].get("selector") or meta.is_deleting(service):
            return
        if service["spec"].get("type") == "ExternalName":
            return
        if not self.expectations.satisfied(key):
            return  # slices made here are not in the informer yet; seeing them brings the key back
        existing = self.slices.lister.by_index(BY_SERVICE, f"{NAME}/{key}")
        pods = [p for p in self.selected(service) if belongs(p, terminating=True)]
        families = service["spec"].get("ipFamilies") or ["IPv4"]
        labels = self._labels(service)
        total = Plan()
        missing: set[str] = set()
        groups: list[list[Obj]] = []
        for address_type in families:
            desired, unknown = self._desired(service, pods, address_type)
            missing |= unknown
            groups += [d.endpoints for d in desired]
            mine = [s for s in existing if s["addressType"] == address_type]
            owned = [s for s in mine if any(o["uid"] == service["metadata"]["uid"] for o in _owners(s))]
            total.delete += [s for s in mine if s not in owned]
            total.extend(plan(address_type, owned, desired, labels))
        total.delete += [s for s in existing if s["addressType"] not in families]
        await self._apply(key, service, labels, total)
        self.figures.synced(key, existing, groups)
        if missing:
            raise NodeMissing(f"skipping pods of {key} on unknown nodes {', '.join(sorted(missing))}")

    def _desired(self, service: Obj, pods: list[Obj], address_type: str) -> tuple[list[Desired], set[str]]:
        found: dict[str, Desired] = {}
        missing: set[str] = set()
        publish = bool(service["spec"].get("publishNotReadyAddresses"))
        distribution = service["spec"].get("trafficDistribution")
        for pod in pods:
            ports = endpoint_ports(service, pod)
            entry = found.setdefault(repr(ports), Desired(ports))
            name = pod["spec"].get("nodeName") or ""
            node = self.nodes.lister.get(None, name)
            if node is None and not publish:
                missing.add(name)
                continue
            if (endpoint := endpoint_of(pod, node, service, address_type)) is not None:
                add_hints(endpoint, distribution)
                entry.endpoints.append(endpoint)
        return list(found.values()), missing

    def _labels(self, service: Obj) -> dict[str, str]:
        labels = {k: v for k, v in meta.labels(service).items() if k not in RESERVED}
        if not has_cluster_ip(service):
            labels[HEADLESS_LABEL] = ""
        return {**labels, SERVICE_NAME: service["metadata"]["name"], MANAGED_BY: NAME}

    async def _apply(self, key: str, service: Obj, labels: dict[str, str], todo: Plan) -> None:
        namespace = service["metadata"]["namespace"]
        md = {
            "generateName": f"{service['metadata']['name']}-",
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [api_ref(service, resource("services"))],
        }
        if todo.create:
            self.expectations.expect(key, adds=len(todo.create))

        async def create(s: Obj) -> None:
            try:
                await self.client.create(self.resource, {**s, "metadata": md})
            except ApiError as e:
                self.expectations.added(key)
                if not namespace_is_terminating(e):
                    raise

        async def delete(s: Obj) -> None:
            try:
                await self.client.delete(self.resource, namespace, s["metadata"]["name"])
            except ApiError as e:
                if e.code != 404:
                    raise

        work = [create(s) for s in todo.create]
        work += [self._update(s) for s in todo.update]
        work += [delete(s) for s in todo.delete]
        for r in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(r, ApiError):
                if r.reason != "Conflict":
                    text = f"Error updating Endpoint Slices for Service {key}: {r.message}"
                    self.event(service, "Warning", "FailedToUpdateEndpointSlices", text)
                raise r
            if isinstance(r, BaseException):
                raise r

    async def _update(self, s: Obj) -> None:
        await self.client.update(self.resource, s)


def _owners(obj: Obj) -> list[Obj]:
    return obj["metadata"].get("ownerReferences") or []


def endpoint_ports(service: Obj, pod: Obj) -> list[Obj]:
    found: list[Obj] = []
    for port in service["spec"].get("ports") or ():
        if (number := find_port(pod, port)) is not None:
            entry: Obj = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
            if port.get("appProtocol"):
                entry["appProtocol"] = port["appProtocol"]
            found.append(entry)
    return found


def endpoint_of(pod: Obj, node: Obj | None, service: Obj, address_type: str) -> Obj | None:
    """The endpoint a pod makes; None when it has no address of this family."""
    addresses = [canonical_ip(ip) for ip in pod_ips(pod) if family(ip) == address_type]
    if not addresses:
        return None
    serving, terminating = is_ready(pod), meta.is_deleting(pod)
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    md = pod["metadata"]
    endpoint: Obj = {
        "addresses": addresses,
        "conditions": {
            "ready": publish or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
    }
    if shows_hostname(pod, service):
        endpoint["hostname"] = pod["spec"]["hostname"]
    endpoint["targetRef"] = {"kind": "Pod", "namespace": md["namespace"], "name": md["name"], "uid": md["uid"]}
    if name := pod["spec"].get("nodeName"):
        endpoint["nodeName"] = name
    if node is not None and (zone := meta.labels(node).get(ZONE)):
        endpoint["zone"] = zone
    return endpoint


def add_hints(endpoint: Obj, distribution: str | None) -> None:
    """`spec.trafficDistribution`: an endpoint is for its own zone, or its own node first."""
    hints: Obj = {}
    if distribution in ("PreferClose", "PreferSameZone", "PreferSameNode") and "zone" in endpoint:
        hints["forZones"] = [{"name": endpoint["zone"]}]
    if distribution == "PreferSameNode" and "nodeName" in endpoint:
        hints["forNodes"] = [{"name": endpoint["nodeName"]}]
    if hints and endpoint["conditions"]["ready"]:
        endpoint["hints"] = hints
