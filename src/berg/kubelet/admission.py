"""Whether this node takes a pod that was given to it: the last look before it runs. Pure.

A refused pod is Failed with upstream's reason and message and never started.

Source: pkg/kubelet/lifecycle/predicate.go; scheduler plugins noderesources, nodeaffinity, nodename, nodeports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from berg.kubelet import container_resources
from berg.kubelet import pod as p
from berg.machinery import quantity
from berg.machinery.status import Obj

SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str
    message: str


def admit(pod: Obj, node: Obj, others: Iterable[Obj], unsafe_sysctls: Sequence[str] = ()) -> Refusal | None:
    """`others` are the pods that this node already runs, without those that have ended; `unsafe_sysctls` patterns
    of sysctls that are allowed besides the safe ones."""
    wanted_os = (pod["spec"].get("os") or {}).get("name")
    if wanted_os and wanted_os != "linux":
        return Refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    os_label = (pod["spec"].get("nodeSelector") or {}).get("kubernetes.io/os")
    if os_label and os_label != "linux":
        return Refusal(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        )
    others = list(others)
    if (refusal := _sysctls(pod, unsafe_sysctls)) is not None:
        return refusal
    for check in (_resources, _affinity, _ports, _taints):
        if (refusal := check(pod, node, others)) is not None:
            return refusal
    return None


def _sysctls(pod: Obj, unsafe: Sequence[str]) -> Refusal | None:
    for sysctl in (pod["spec"].get("securityContext") or {}).get("sysctls") or ():
        name = sysctl["name"].replace("/", ".")
        why = ""
        if p.host_network(pod) and name.startswith("net."):
            why = f'"{name}" not allowed with host net enabled'
        elif pod["spec"].get("hostIPC") and name.startswith(("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")):
            why = f'"{name}" not allowed with host ipc enabled'
        elif name not in SAFE_SYSCTLS and not any(_sysctl_matches(name, pattern) for pattern in unsafe):
            why = f'"{name}" not allowlisted'
        if why:
            return Refusal("SysctlForbidden", f"forbidden sysctl: {why}")
    return None


def _sysctl_matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _resources(pod: Obj, node: Obj, others: list[Obj]) -> Refusal | None:
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    capacity = int(quantity.value(allocatable.get("pods", "110")))
    if len(others) + 1 > capacity:
        return _out_of("pods", 1, len(others), capacity)
    names = {"cpu", "memory", "ephemeral-storage"} | _requested_names(pod)
    for name in sorted(names, key=lambda n: (n not in ("cpu", "memory", "ephemeral-storage"), n)):
        wanted = container_resources.pod_requests(pod, name)
        if wanted == 0:
            continue
        have = quantity.milli(allocatable.get(name, "0"))
        used = sum(container_resources.pod_requests(o, name) for o in others)
        if wanted + used > have:
            unit = 1 if name == "cpu" else 1000
            return _out_of(name, wanted // unit, used // unit, have // unit)
    return None


def _requested_names(pod: Obj) -> set[str]:
    return {
        name
        for c in p.containers(pod) + p.init_containers(pod)
        for name in (c.get("resources") or {}).get("requests") or {}
    }


def _out_of(name: str, requested: int, used: int, capacity: int) -> Refusal:
    return Refusal(
        f"OutOf{name}",
        f"Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}",
    )


def _affinity(pod: Obj, node: Obj, others: list[Obj]) -> Refusal | None:
    if p.is_static(pod) or _matches(pod, node):
        return None
    return Refusal("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")


def _matches(pod: Obj, node: Obj) -> bool:
    labels = node["metadata"].get("labels") or {}
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(k) != v for k, v in selector.items()):
        return False
    required = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if required is None:
        return True
    return matches_terms(required, node)


def matches_terms(required: Obj, node: Obj) -> bool:
    """A NodeSelector: any of its terms, all of a term's requirements."""
    labels, fields = node["metadata"].get("labels") or {}, {"metadata.name": node["metadata"]["name"]}
    return any(
        (t.get("matchExpressions") or t.get("matchFields"))
        and all(_expression(e, labels) for e in t.get("matchExpressions") or ())
        and all(_expression(e, fields) for e in t.get("matchFields") or ())
        for t in required.get("nodeSelectorTerms") or ()
    )


def _expression(e: Obj, values: dict[str, str]) -> bool:
    have, wanted = values.get(e["key"]), e.get("values") or []
    match e["operator"]:
        case "In":
            return have in wanted
        case "NotIn":
            return have not in wanted
        case "Exists":
            return have is not None
        case "DoesNotExist":
            return have is None
        case "Gt" | "Lt" as operator:
            try:
                a, b = int(have or ""), int(wanted[0])
            except (ValueError, IndexError):
                return False
            return a > b if operator == "Gt" else a < b
    return False


def _host_ports(pod: Obj) -> set[tuple[str, int, str]]:
    sidecars = [c for c in p.init_containers(pod) if p.is_sidecar(c)]
    return {
        (port.get("protocol") or "TCP", port["hostPort"], port.get("hostIP") or "0.0.0.0")
        for c in p.containers(pod) + sidecars
        for port in c.get("ports") or ()
        if port.get("hostPort")
    }


def _ports(pod: Obj, node: Obj, others: list[Obj]) -> Refusal | None:
    mine = _host_ports(pod)
    taken = {port for o in others for port in _host_ports(o)} if mine else set()
    for protocol, port, ip in mine:
        for other_protocol, other_port, other_ip in taken:
            same_address = ip == other_ip or "0.0.0.0" in (ip, other_ip)
            if protocol == other_protocol and port == other_port and same_address:
                return Refusal(
                    "NodePorts",
                    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
                )
    return None


def _taints(pod: Obj, node: Obj, others: list[Obj]) -> Refusal | None:
    """Only NoExecute counts here, and not for static pods."""
    if p.is_static(pod):
        return None
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] == "NoExecute" and not any(
            _tolerates(t, taint) for t in pod["spec"].get("tolerations") or ()
        ):
            return Refusal(
                "TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
            )
    return None


def _tolerates(t: Obj, taint: Obj) -> bool:
    if t.get("effect") and t["effect"] != taint["effect"]:
        return False
    if t.get("key") and t["key"] != taint["key"]:
        return False
    if (t.get("operator") or "Equal") == "Exists":
        return True
    return bool(t.get("key")) and (t.get("value") or "") == (taint.get("value") or "")
