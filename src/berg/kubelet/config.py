"""The kubelet's configuration: KubeletConfiguration v1beta1, upstream's defaults, and the few flags beside it.

`KubeletConfig` has one attribute for each setting that Berg acts on, in snake_case; `load` reads a
KubeletConfiguration file (camelCase names, durations as Go writes them) over the defaults. What a file sets and
Berg does not know is kept in `other`, so that /configz shows it and nothing is silently lost.

Source: k8s.io/kubelet/config/v1beta1 types.go and its defaults.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from berg.machinery.status import Obj

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str | int | float) -> float:
    """A Go duration (`1m30s`) in seconds. Raises ValueError on anything else."""
    if isinstance(text, (int, float)):
        return float(text)
    if text in ("0", ""):
        return 0.0
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text)
    parts = _DURATION.findall(body)
    if not parts or "".join(n + u for n, u in parts) != body:
        raise ValueError(f"time: invalid duration {text!r}")
    return sign * sum(float(n) * _UNIT_S[u] for n, u in parts)


@dataclass
class KubeletConfig:
    # Flags that are no part of the file.
    node_name: str = field(default_factory=lambda: socket.gethostname().lower())
    node_ip: str = ""
    root_dir: str = "/var/lib/kubelet"
    pod_logs_dir: str = "/var/log/pods"
    container_log_links_dir: str = "/var/log/containers"
    node_labels: dict[str, str] = field(default_factory=dict)
    cert_dir: str = ""
    provider_id: str = ""

    # KubeletConfiguration.
    address: str = "0.0.0.0"
    port: int = 10250
    read_only_port: int = 0
    tls_cert_file: str = ""
    tls_private_key_file: str = ""
    client_ca_file: str = ""
    anonymous_auth: bool = False
    webhook_authentication: bool = True
    authorization_mode: str = "Webhook"
    static_pod_path: str = ""
    static_pod_url: str = ""
    http_check_frequency: float = 20.0
    register_node: bool = True
    register_with_taints: list[Obj] = field(default_factory=list)
    cluster_dns: list[str] = field(default_factory=list)
    cluster_domain: str = ""
    resolv_conf: str = "/etc/resolv.conf"
    node_status_update_frequency: float = 10.0
    node_status_report_frequency: float = 300.0
    node_lease_duration_seconds: int = 40
    max_pods: int = 110
    pod_pids_limit: int = -1
    cgroups_per_qos: bool = True
    cgroup_driver: str = "cgroupfs"
    cgroup_root: str = ""
    cpu_cfs_quota: bool = True
    cpu_cfs_quota_period: float = 0.1
    system_reserved: dict[str, str] = field(default_factory=dict)
    kube_reserved: dict[str, str] = field(default_factory=dict)
    enforce_node_allocatable: list[str] = field(default_factory=lambda: ["pods"])
    eviction_hard: dict[str, str] = field(
        default_factory=lambda: {
            "memory.available": "100Mi",
            "nodefs.available": "10%",
            "nodefs.inodesFree": "5%",
            "imagefs.available": "15%",
            "imagefs.inodesFree": "5%",
        }
    )
    eviction_soft: dict[str, str] = field(default_factory=dict)
    eviction_soft_grace_period: dict[str, str] = field(default_factory=dict)
    eviction_pressure_transition_period: float = 300.0
    eviction_max_pod_grace_period: int = 0
    eviction_minimum_reclaim: dict[str, str] = field(default_factory=dict)
    image_gc_high_threshold_percent: int = 85
    image_gc_low_threshold_percent: int = 80
    image_minimum_gc_age: float = 120.0
    image_maximum_gc_age: float = 0.0
    container_log_max_size: str = "10Mi"
    container_log_max_files: int = 5
    container_log_monitor_interval: float = 10.0
    serialize_image_pulls: bool = True
    max_parallel_image_pulls: int = 0
    runtime_request_timeout: float = 120.0
    streaming_connection_idle_timeout: float = 4 * 3600.0
    enable_debugging_handlers: bool = True
    enable_server: bool = True
    event_record_qps: int = 50
    event_burst: int = 100
    node_status_max_images: int = 50
    allowed_unsafe_sysctls: list[str] = field(default_factory=list)
    fail_swap_on: bool = True
    crash_loop_back_off_max: float = 300.0
    shutdown_grace_period: float = 0.0
    shutdown_grace_period_critical_pods: float = 0.0
    fail_cgroup_v1: bool = False
    seccomp_default: bool = False
    server_tls_bootstrap: bool = False
    rotate_certificates: bool = False
    healthz_bind_address: str = "127.0.0.1"
    healthz_port: int = 10248
    feature_gates: dict[str, bool] = field(default_factory=dict)
    tracing: Obj = field(default_factory=dict)
    """`endpoint`, `samplingRatePerMillion`; empty: no spans"""

    other: Obj = field(default_factory=dict)
    """What a configuration file sets that nothing here reads."""

    @property
    def pods_dir(self) -> Path:
        return Path(self.root_dir) / "pods"

    def pod_dir(self, uid: str) -> Path:
        return self.pods_dir / uid


# Names in the file that are not simply the camelCase of an attribute: dotted paths.
_NESTED = {
    "authentication.anonymous.enabled": "anonymous_auth",
    "authentication.webhook.enabled": "webhook_authentication",
    "authentication.x509.clientCAFile": "client_ca_file",
    "authorization.mode": "authorization_mode",
    "crashLoopBackOff.maxContainerRestartPeriod": "crash_loop_back_off_max",
}
_IRREGULAR = {
    "cluster_dns": "clusterDNS",
    "static_pod_url": "staticPodURL",
    "http_check_frequency": "httpCheckFrequency",
    "resolv_conf": "resolvConf",
    "cgroups_per_qos": "cgroupsPerQOS",
    "cpu_cfs_quota": "cpuCFSQuota",
    "cpu_cfs_quota_period": "cpuCFSQuotaPeriod",
    "provider_id": "providerID",
    "image_gc_high_threshold_percent": "imageGCHighThresholdPercent",
    "image_gc_low_threshold_percent": "imageGCLowThresholdPercent",
    "image_minimum_gc_age": "imageMinimumGCAge",
    "image_maximum_gc_age": "imageMaximumGCAge",
    "event_record_qps": "eventRecordQPS",
    "server_tls_bootstrap": "serverTLSBootstrap",
    "fail_cgroup_v1": "failCgroupV1",
    "register_with_taints": "registerWithTaints",
}
_FLAGS_ONLY = {
    "node_name",
    "node_ip",
    "root_dir",
    "container_log_links_dir",
    "node_labels",
    "cert_dir",
    "other",
    *_NESTED.values(),
}


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(t.capitalize() for t in tail)


FILE_NAMES: dict[str, str] = {
    _IRREGULAR.get(f.name, _camel(f.name)): f.name for f in fields(KubeletConfig) if f.name not in _FLAGS_ONLY
}
"""KubeletConfiguration field → attribute."""


def apply(config: KubeletConfig, document: Obj) -> None:
    """Sets what `document`, a KubeletConfiguration, says. Raises ValueError on a wrong kind or a wrong type."""
    if document.get("kind") != "KubeletConfiguration":
        raise ValueError(f'no kind "KubeletConfiguration" in the kubelet configuration: {document.get("kind")!r}')
    rest: Obj = {k: v for k, v in document.items() if k not in ("kind", "apiVersion", "metadata")}
    for path, attribute in _NESTED.items():
        at: Any = rest
        for part in path.split("."):
            at = at.get(part) if isinstance(at, dict) else None
        if at is not None:
            _set(config, attribute, at)
    for group in ("authentication", "authorization", "crashLoopBackOff"):
        rest.pop(group, None)
    for name in list(rest):
        if name in FILE_NAMES:
            value = rest.pop(name)
            if value is not None:
                _set(config, FILE_NAMES[name], value)
    config.other.update(rest)


def _set(config: KubeletConfig, attribute: str, value: Any) -> None:
    now = getattr(config, attribute)
    if isinstance(now, bool):
        ok = isinstance(value, bool)
    elif isinstance(now, float):
        value, ok = duration_s(value), True
    elif isinstance(now, int):
        ok = isinstance(value, int)
    else:
        ok = isinstance(value, type(now))
    if not ok:
        raise ValueError(f"kubelet configuration: {attribute} has the wrong type: {value!r}")
    setattr(config, attribute, value)


def load(path: str | Path, config: KubeletConfig | None = None) -> KubeletConfig:
    """The configuration in `path` over `config` (or upstream's defaults)."""
    import yaml

    config = config or KubeletConfig()
    document = yaml.safe_load(Path(path).read_text())
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a KubeletConfiguration")
    apply(config, document)
    return config


def to_document(config: KubeletConfig) -> Obj:
    """What /configz shows."""
    document: Obj = {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
    for name, attribute in FILE_NAMES.items():
        value = getattr(config, attribute)
        document[name] = f"{value:g}s" if isinstance(value, float) else value
    for path, attribute in _NESTED.items():
        at = document
        *parents, leaf = path.split(".")
        for part in parents:
            at = at.setdefault(part, {})
        value = getattr(config, attribute)
        at[leaf] = f"{value:g}s" if isinstance(value, float) else value
    document.update(config.other)
    return document
