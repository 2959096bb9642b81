"""A pod as CRI's PodSandboxConfig.

Source: pkg/kubelet/kuberuntime/kuberuntime_sandbox.go, kuberuntime_sandbox_linux.go.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from berg.kubelet import container_resources, dns, security
from berg.kubelet import pod as p
from berg.kubelet.config import KubeletConfig
from berg.kubelet.logs import pod_log_dir
from berg.machinery import quantity
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb

PROTOCOLS = {"TCP": pb.TCP, "UDP": pb.UDP, "SCTP": pb.SCTP}


def make(pod: Obj, attempt: int, config: KubeletConfig, dns_config: dns.DNSConfig, cgroup_parent: str) -> Any:
    """Raises ValueError when the host name cannot be."""
    answer = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=p.name(pod), namespace=p.namespace(pod), uid=p.uid(pod), attempt=attempt),
        labels={
            **p.labels(pod),
            p.LABEL_POD_NAME: p.name(pod),
            p.LABEL_POD_NAMESPACE: p.namespace(pod),
            p.LABEL_POD_UID: p.uid(pod),
        },
        annotations=p.annotations(pod),
        dns_config=pb.DNSConfig(servers=dns_config.servers, searches=dns_config.searches, options=dns_config.options),
        log_directory=str(pod_log_dir(config.pod_logs_dir, p.namespace(pod), p.name(pod), p.uid(pod))),
    )
    if not p.host_network(pod):
        answer.hostname = dns.sandbox_hostname(pod, config.cluster_domain)
    for c in p.containers(pod) + [c for c in p.init_containers(pod) if p.is_sidecar(c)]:
        for port in c.get("ports") or ():
            answer.port_mappings.add(
                host_ip=port.get("hostIP") or "",
                host_port=port.get("hostPort") or 0,
                container_port=port["containerPort"],
                protocol=PROTOCOLS.get(port.get("protocol") or "TCP", pb.TCP),
            )
    linux = answer.linux
    linux.cgroup_parent = cgroup_parent
    linux.security_context.CopyFrom(security.sandbox(pod, seccomp_root=Path(config.root_dir) / "seccomp"))
    for sysctl in (pod["spec"].get("securityContext") or {}).get("sysctls") or ():
        linux.sysctls[sysctl["name"].replace("/", ".")] = sysctl["value"]
    _resources(pod, linux)
    return answer


def _resources(pod: Obj, linux: Any) -> None:
    """Of the whole pod, for runtimes that size a virtual machine by it."""
    cpu, memory = container_resources.pod_requests(pod, "cpu"), container_resources.pod_limits(pod, "memory")
    limit = container_resources.pod_limits(pod, "cpu")
    linux.resources.cpu_shares = container_resources.shares(cpu)
    linux.resources.cpu_period = container_resources.QUOTA_PERIOD_US
    linux.resources.cpu_quota = container_resources.quota(limit)
    linux.resources.memory_limit_in_bytes = memory // 1000
    for name, value in (pod["spec"].get("overhead") or {}).items():
        if name == "cpu":
            linux.overhead.cpu_shares = container_resources.shares(quantity.milli(value))
        elif name == "memory":
            linux.overhead.memory_limit_in_bytes = quantity.value(value)
