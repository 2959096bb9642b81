"""Endpoints: the older record of the pods behind a service, one object each, at most 1,000 addresses.

Source: pkg/controller/endpoint/endpoints_controller.go, pkg/api/v1/endpoints.
"""

from __future__ import annotations

from typing import Any

from berg.controllers.context import Context
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

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
CAPACITY = 1000
NAME = "endpoint-controller"
BATCH_S = 0.0005
BATCH_MAX_S = 1.0


class EndpointsController(ServiceController):
    name = "endpoints-controller"
    component = NAME
    max_retries = 15

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("endpoints")
        self.endpoints = ctx.informer("endpoints")
        self.endpoints.add_handler(None, None, self.enqueue)
        self._sizes: dict[str, int] = {}

    def pods_changed(self, service: Obj) -> None:
        """All addresses are in one object: the more there are, the longer changes are collected for one write."""
        key = meta.key(service)
        self.queue.add_after(key, min(BATCH_MAX_S, self._sizes.get(key, 0) * BATCH_S))

    async def reconcile(self, key: str) -> None:
        service = self.services.lister.get_key(key)
        current = self.endpoints.lister.get_key(key)
        if service is None:
            self._sizes.pop(key, None)
            if current is not None:
                await self._delete(current)
            return
        if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
            return  # whoever made the service keeps its endpoints
        pods = self.selected(service)
        self._sizes[key] = len(pods)
        subsets = pack(service, pods)
        truncated = truncate(subsets)
        labels = {k: v for k, v in meta.labels(service).items() if k != HEADLESS_LABEL}
        labels[MANAGED_BY] = NAME
        if not has_cluster_ip(service):
            labels[HEADLESS_LABEL] = ""
        annotations = {k: v for k, v in meta.annotations(current or service).items() if k != OVER_CAPACITY}
        if current is None:
            annotations = {}
        if truncated:
            annotations[OVER_CAPACITY] = "truncated"
        if current is None:
            await self._write(service, {"labels": labels, "annotations": annotations}, subsets, None)
        elif (
            (current.get("subsets") or []) != subsets
            or meta.labels(current) != labels
            or meta.annotations(current) != annotations
        ):
            await self._write(service, {"labels": labels, "annotations": annotations}, subsets, current)

    async def _write(self, service: Obj, md: Obj, subsets: list[Obj], current: Obj | None) -> None:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        new: Obj
        try:
            if current is None:
                new = {"metadata": {"name": name, "namespace": namespace, **md}, "subsets": subsets}
                await self.client.create(self.resource, new)
            else:
                new = {**current, "metadata": {**current["metadata"], **md}, "subsets": subsets}
                await self.client.update(self.resource, new)
        except ApiError as e:
            if current is None and e.reason in ("Forbidden", "AlreadyExists"):
                if e.reason == "Forbidden":
                    return  # the namespace is going away
                raise
            if e.reason != "Conflict":
                if current is None:
                    text = f"Failed to create endpoint for service {namespace}/{name}: {e.message}"
                    self.event(service, "Warning", "FailedToCreateEndpoint", text)
                else:
                    text = f"Failed to update endpoint {namespace}/{name}: {e.message}"
                    self.event(current, "Warning", "FailedToUpdateEndpoint", text)
            raise

    async def _delete(self, current: Obj) -> None:
        md = current["metadata"]
        try:
            await self.client.delete(self.resource, md["namespace"], md["name"])
        except ApiError as e:
            if e.code != 404:
                raise


def pack(service: Obj, pods: list[Obj]) -> list[Obj]:
    """The subsets: addresses with the same ports stand together, all in one canonical order."""
    wanted = (service["spec"].get("ipFamilies") or [None])[0]
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    ports = service["spec"].get("ports") or []
    if not ports and has_cluster_ip(service):
        return []
    by_address: dict[tuple[Any, ...], tuple[Obj, bool, list[Obj]]] = {}
    for pod in pods:
        if not belongs(pod, terminating=publish):
            continue
        ip = next((i for i in pod_ips(pod) if wanted is None or family(i) == wanted), None)
        if ip is None:
            continue
        numbers = [(p, n) for p in ports if (n := find_port(pod, p)) is not None]
        if ports and not numbers:
            continue
        address: Obj = {"ip": canonical_ip(ip)}
        if shows_hostname(pod, service):
            address["hostname"] = pod["spec"]["hostname"]
        if node := pod["spec"].get("nodeName"):
            address["nodeName"] = node
        md = pod["metadata"]
        address["targetRef"] = {"kind": "Pod", "namespace": md["namespace"], "name": md["name"], "uid": md["uid"]}
        ready = publish or is_ready(pod)
        by_address[ip, md["uid"], ready] = (address, ready, [_port(p, n) for p, n in numbers])
    groups: dict[str, tuple[list[Obj], list[Obj], list[Obj]]] = {}
    for address, ready, listed in by_address.values():
        listed.sort(key=lambda p: (p.get("name", ""), p.get("protocol", ""), p["port"]))
        group = groups.setdefault(repr(listed), (listed, [], []))
        group[1 if ready else 2].append(address)
    subsets: list[Obj] = []
    for signature in sorted(groups):
        listed, ready_ones, others = groups[signature]
        subset: Obj = {}
        if ready_ones:
            subset["addresses"] = sorted(ready_ones, key=_address_order)
        if others:
            subset["notReadyAddresses"] = sorted(others, key=_address_order)
        if listed:
            subset["ports"] = listed
        subsets.append(subset)
    return subsets


def _port(port: Obj, number: int) -> Obj:
    found: Obj = {}
    if port.get("name"):
        found["name"] = port["name"]
    found["port"] = number
    found["protocol"] = port.get("protocol", "TCP")
    if port.get("appProtocol"):
        found["appProtocol"] = port["appProtocol"]
    return found


def _address_order(address: Obj) -> tuple[str, str]:
    return address["ip"], address["targetRef"]["uid"]


def truncate(subsets: list[Obj]) -> bool:
    """Cuts to the capacity, ready addresses going before others. Whether anything was cut."""
    total = sum(len(s.get("addresses", ())) + len(s.get("notReadyAddresses", ())) for s in subsets)
    if total <= CAPACITY:
        return False
    left = CAPACITY
    for field in ("addresses", "notReadyAddresses"):
        for s in subsets:
            if field in s:
                s[field] = s[field][:left]
                left -= len(s[field])
                if not s[field]:
                    del s[field]
    subsets[:] = [s for s in subsets if "addresses" in s or "notReadyAddresses" in s]
    return True
