"""The controller manager's settings, named as upstream's flags; defaults are upstream's."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Config:
    controllers: list[str] = field(default_factory=lambda: ["*"])
    """`*` all that are on by default, `foo` this one, `-foo` not this one."""

    leader_elect: bool = False
    leader_elect_identity: str = ""
    leader_elect_lease_duration_s: float = 15
    leader_elect_renew_deadline_s: float = 10
    leader_elect_retry_period_s: float = 2
    leader_elect_resource_name: str = "kube-controller-manager"
    leader_elect_resource_namespace: str = "kube-system"

    secure_port: int = 0
    """where it serves its health and metrics; 0: nowhere"""
    bind_address: str = "0.0.0.0"
    tls_cert_file: str = ""
    tls_private_key_file: str = ""

    use_service_account_credentials: bool = False
    """each controller acts as a service account of its own"""

    cluster_name: str = "kubernetes"
    allocate_node_cidrs: bool | None = None
    """None: when there is a cluster_cidr"""
    cluster_cidr: str = ""
    service_cluster_ip_range: str = ""
    node_cidr_mask_size_ipv4: int = 24
    node_cidr_mask_size_ipv6: int = 64

    node_monitor_period_s: float = 5
    node_monitor_grace_period_s: float = 50
    node_startup_grace_period_s: float = 60
    node_eviction_rate: float = 0.1
    secondary_node_eviction_rate: float = 0.01
    large_cluster_size_threshold: int = 50
    unhealthy_zone_threshold: float = 0.55

    root_ca_file: str = ""
    root_ca_data: bytes = b""
    service_account_private_key_file: str = ""
    cluster_signing_cert_file: str = ""
    cluster_signing_key_file: str = ""
    cluster_signing_duration_s: float = 365 * 24 * 3600
    legacy_service_account_token_clean_up_period_s: float = 365 * 24 * 3600

    terminated_pod_gc_threshold: int = 12500
    resource_quota_sync_period_s: float = 300
    namespace_sync_period_s: float = 300
    attach_detach_reconcile_sync_period_s: float = 60
    pvclaimbinder_sync_period_s: float = 15

    horizontal_pod_autoscaler_sync_period_s: float = 15
    horizontal_pod_autoscaler_tolerance: float = 0.1
    horizontal_pod_autoscaler_downscale_stabilization_s: float = 300
    horizontal_pod_autoscaler_cpu_initialization_period_s: float = 300
    horizontal_pod_autoscaler_initial_readiness_delay_s: float = 30

    feature_gates: dict[str, bool] = field(default_factory=dict)

    concurrent_syncs: dict[str, int] = field(default_factory=dict)
    """workers by the controller's name, where it is not the controller's own number"""

    def root_ca(self) -> bytes:
        """The certificates by which pods know the API server, empty when none are given."""
        if self.root_ca_data or not self.root_ca_file:
            return self.root_ca_data
        with open(self.root_ca_file, "rb") as f:
            return f.read()
