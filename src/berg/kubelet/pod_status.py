"""The status of a pod as the API shows it: everything put together from its parts. Pure.

Data flows in one direction: runtime + spec + what was said before + probe results → status. Times of conditions
are set by the status manager, which knows when something really changed.

Source: pkg/kubelet/kubelet_pods.go generateAPIPodStatus; prober_manager.go UpdatePodStatus.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

from berg.kubelet import container_statuses, pod_conditions, pod_phase
from berg.kubelet import pod as p
from berg.kubelet.runtime_status import PodStatus
from berg.kubelet.start_errors import StartError
from berg.machinery.status import Obj


@dataclass(slots=True)
class Inputs:
    """What of the kubelet itself goes into a status."""

    runtime_name: str
    node_ips: list[str]
    reason: Callable[[str, str], StartError | None] = lambda uid, name: None
    probe: Callable[[str, str], bool | None] = lambda type, id: None
    extra_conditions: list[Obj] = field(default_factory=list)


def generate(pod: Obj, runtime: PodStatus, old: Obj, inputs: Inputs, *, terminal: bool = False) -> Obj:
    """`old` is the status said last (or the API's). `terminal`: nothing runs and nothing will."""
    uid = p.uid(pod)
    status: Obj = {}
    if generation := p.generation(pod):
        status["observedGeneration"] = generation
    ips = _sorted_ips(runtime.ips or _old_ips(old), inputs.node_ips)
    parts = {
        "containerStatuses": (p.containers(pod), False),
        "initContainerStatuses": (p.init_containers(pod), True),
        "ephemeralContainerStatuses": (p.ephemeral_containers(pod), False),
    }
    for key, (specs, init) in parts.items():
        if specs:
            status[key] = container_statuses.generate(
                pod,
                runtime,
                old.get(key) or [],
                specs,
                inputs.runtime_name,
                lambda name: inputs.reason(uid, name),
                init=init,
            )
    _probed(pod, status, inputs)
    everything = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
    started = any(
        (s := runtime.find(c["name"])) is not None and s.started_at and s.state in ("running", "exited")
        for c in p.containers(pod)
    )
    phase = pod_phase.phase(pod, everything, terminal=terminal, initialized=started)
    api_phase = (pod.get("status") or {}).get("phase") or ""
    for said in (old.get("phase") or "", api_phase):  # a terminal phase is final, whoever said it
        if p.is_terminal_phase(said):
            phase = said
    status["phase"] = phase
    if phase == (old.get("phase") or ""):
        for key in ("reason", "message"):
            if text := old.get(key) or (pod.get("status") or {}).get(key):
                status[key] = text
    others = [c for c in (pod.get("status") or {}).get("conditions") or () if c["type"] not in pod_conditions.OWNED]
    own = pod_conditions.generate(pod, runtime, phase, everything, others)
    if disruption := next((c for c in old.get("conditions") or () if c["type"] == "DisruptionTarget"), None):
        others = [c for c in others if c["type"] != "DisruptionTarget"] + [disruption]
    status["conditions"] = others + inputs.extra_conditions + own
    _addresses(pod, status, ips, inputs.node_ips)
    if start := (pod.get("status") or {}).get("startTime") or old.get("startTime"):
        status["startTime"] = start
    status["qosClass"] = p.qos_class(pod)
    return status


def _old_ips(old: Obj) -> list[str]:
    # A stopped sandbox has no address any more; the pod keeps showing the one it had.
    return [x["ip"] for x in old.get("podIPs") or ()]


def _sorted_ips(ips: list[str], node_ips: list[str]) -> list[str]:
    """One address of each family, the node's primary family first."""
    primary = ipaddress.ip_address(node_ips[0]).version if node_ips else 4
    found: dict[int, str] = {}
    for text in ips:
        address = ipaddress.ip_address(text)
        found.setdefault(address.version, str(address))
    return [found[v] for v in sorted(found, key=lambda v: v != primary)]


def _addresses(pod: Obj, status: Obj, ips: list[str], node_ips: list[str]) -> None:
    if node_ips:
        status["hostIP"] = node_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in node_ips[:2]]
        if p.host_network(pod):
            ips = ips or node_ips[:2]
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]


def _probed(pod: Obj, status: Obj, inputs: Inputs) -> None:
    """`started` and `ready` of each container."""
    for c in p.containers(pod) + [c for c in p.init_containers(pod) if p.is_sidecar(c)]:
        for key in ("containerStatuses", "initContainerStatuses"):
            for s in status.get(key) or ():
                if s["name"] != c["name"]:
                    continue
                running = "running" in s["state"]
                id = (s.get("containerID") or "").partition("://")[2]
                if not running:
                    s["started"] = s["ready"] = False
                    continue
                if c.get("startupProbe"):
                    s["started"] = inputs.probe("startup", id) is True
                else:
                    s["started"] = True
                if not s["started"]:
                    s["ready"] = False
                elif c.get("readinessProbe"):
                    s["ready"] = inputs.probe("readiness", id) is True
                else:
                    s["ready"] = True
    specs = {c["name"]: c for c in p.init_containers(pod)}
    for s in status.get("initContainerStatuses") or ():
        if not p.is_sidecar(specs[s["name"]]):
            ended = s["state"].get("terminated")
            s["ready"] = ended is not None and ended.get("exitCode") == 0
            s["started"] = "running" in s["state"]
