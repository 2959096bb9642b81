"""What a simulated node says of itself: a Node object and a Lease. Everything marks it as simulated."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from berg.machinery.clock import rfc3339, rfc3339_micro

Obj = dict[str, Any]

SIMULATED = "berg.dev/simulated"
"""label on every simulated node, `true`"""


@dataclass(slots=True)
class SimConfig:
    """How simulated nodes look and behave."""

    prefix: str = "sim-"
    cpu: str = "32"
    memory: str = "256Gi"
    ephemeral_storage: str = "1Ti"
    pods: int = 110
    more_resources: dict[str, str] = field(default_factory=dict)
    """extended resources"""
    zones: int = 0
    """spread over that many zones (`zone-0`, …) by the topology label"""
    labels: dict[str, str] = field(default_factory=dict)
    taint: bool = False
    """with the taint berg.dev/simulated=true:NoSchedule, so that only pods that tolerate it come"""
    lease_duration_s: int = 40
    renew_s: float = 0
    """how often each Lease is renewed; 0: every 10 s, every 20 s beyond a thousand nodes"""
    job_run_s: float = 0
    """how long a Job's pods run, unless they say"""
    requests: int = 64
    """how many requests are under way at once"""


def node(name: str, index: int, config: SimConfig, now: datetime) -> Obj:
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": "amd64",
        SIMULATED: "true",
        **config.labels,
    }
    if config.zones:
        labels["topology.kubernetes.io/zone"] = f"zone-{index % config.zones}"
    spec: Obj = {}
    if config.taint:
        spec["taints"] = [{"key": SIMULATED, "value": "true", "effect": "NoSchedule"}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {SIMULATED: "nothing runs here; pods' statuses are played"},
        },
        "spec": spec,
        "status": status(name, index, config, now),
    }


def status(name: str, index: int, config: SimConfig, now: datetime) -> Obj:
    time = rfc3339(now)
    amounts = {
        "cpu": config.cpu,
        "memory": config.memory,
        "ephemeral-storage": config.ephemeral_storage,
        "pods": str(config.pods),
        **config.more_resources,
    }

    def condition(type: str, value: bool, reason: str, message: str) -> Obj:
        return {
            "type": type,
            "status": str(value),
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": time,
            "lastTransitionTime": time,
        }

    return {
        "capacity": amounts,
        "allocatable": amounts,
        "addresses": [{"type": "InternalIP", "address": address(index)}, {"type": "Hostname", "address": name}],
        "conditions": [
            condition("MemoryPressure", False, "Simulated", "simulated node has sufficient memory"),
            condition("DiskPressure", False, "Simulated", "simulated node has no disk pressure"),
            condition("PIDPressure", False, "Simulated", "simulated node has sufficient PID available"),
            condition("Ready", True, "Simulated", "simulated node is ready; nothing runs on it"),
        ],
        "nodeInfo": {
            "architecture": "amd64",
            "operatingSystem": "linux",
            "osImage": "simulated",
            "kernelVersion": "simulated",
            "containerRuntimeVersion": "sim://1",
            "kubeletVersion": "v1.37.0",
            "kubeProxyVersion": "",
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
        },
    }


def address(index: int) -> str:
    """In 198.18.0.0/15, which is set aside for benchmarks: no such machine can be meant."""
    return f"198.{18 + (index >> 16 & 1)}.{index >> 8 & 255}.{index & 255}"


def pod_address(index: int, number: int) -> str:
    """One of a node's pod addresses, when the node has no podCIDR: in 100.64.0.0/10 (shared address space)."""
    n = (index * 256 + number % 254 + 1) & 0x3FFFFF
    return f"100.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"


def lease(name: str, config: SimConfig, now: datetime, owner_uid: str) -> Obj:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner_uid}],
        },
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": config.lease_duration_s,
            "renewTime": rfc3339_micro(now),
        },
    }
