"""Services and the pods behind them: what Endpoints and EndpointSlices have in common.

Source: k8s.io/endpointslice util, pkg/controller/util/endpoint.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from berg.client.informer import Informer
from berg.controllers.context import APIController, Context
from berg.controllers.pods import is_finished, is_ready, phase
from berg.machinery import meta
from berg.machinery.labels import Selector
from berg.machinery.status import Obj

HEADLESS_LABEL = "service.kubernetes.io/headless"


def has_cluster_ip(service: Obj) -> bool:
    return (service["spec"].get("clusterIP") or "None") != "None"


def find_port(pod: Obj, port: Obj) -> int | None:
    """The number of a service's target port in `pod`: by name it may differ from pod to pod."""
    target = port.get("targetPort") or port.get("port")
    if not isinstance(target, str):
        return target
    containers = list(pod["spec"].get("containers") or ())
    containers += [c for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in containers:
        for p in container.get("ports") or ():
            if p.get("name") == target and p.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(p["containerPort"])
    return None


def belongs(pod: Obj, *, terminating: bool) -> bool:
    """Whether the pod can be an endpoint at all. `terminating`: whether one that is being deleted can."""
    if is_finished(pod) or not pod_ips(pod):
        return False
    return terminating or not meta.is_deleting(pod)


def pod_ips(pod: Obj) -> list[str]:
    status = pod.get("status") or {}
    ips = [p["ip"] for p in status.get("podIPs") or () if p.get("ip")]
    return ips or ([status["podIP"]] if status.get("podIP") else [])


def family(ip: str) -> str:
    return "IPv6" if ":" in ip else "IPv4"


@lru_cache(maxsize=16384)
def canonical_ip(ip: str) -> str:
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError:
        return ip


def shows_hostname(pod: Obj, service: Obj) -> bool:
    spec = pod["spec"]
    return bool(spec.get("hostname")) and spec.get("subdomain") == service["metadata"]["name"]


def _signature(pod: Obj) -> tuple[Any, ...]:
    """What of a pod an endpoint shows."""
    spec = pod["spec"]
    return (
        is_ready(pod),
        phase(pod) in ("Succeeded", "Failed"),
        meta.is_deleting(pod),
        pod_ips(pod),
        spec.get("nodeName"),
        spec.get("hostname"),
        spec.get("subdomain"),
    )


class ServiceController(APIController):
    """Reconciles services; a pod's change is a change of the services that select it."""

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.services: Informer = ctx.informer("services")
        self.pods: Informer = ctx.informer("pods")
        self.follow(self.services)
        self.pods.add_handler(self._pod, self._pod_changed, self._pod)

    def _pod(self, pod: Obj) -> None:
        self._enqueue_selecting(pod["metadata"]["namespace"], meta.labels(pod))

    def _pod_changed(self, old: Obj, new: Obj) -> None:
        moved = meta.labels(old) != meta.labels(new)
        if moved:
            self._pod(old)
        if moved or _signature(old) != _signature(new):
            self._pod(new)

    def _enqueue_selecting(self, namespace: str, labels: dict[str, str]) -> None:
        pairs = labels.items()
        for service in self.services.lister.list(namespace):
            selector = service["spec"].get("selector")
            if selector and selector.items() <= pairs:
                self.pods_changed(service)

    def pods_changed(self, service: Obj) -> None:
        self.enqueue(service)

    def selected(self, service: Obj) -> list[Obj]:
        selector = Selector.of_map(service["spec"]["selector"])
        return self.pods.lister.list(service["metadata"]["namespace"], selector)
