"""What an API server can be told: one dataclass, fields named as upstream's flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from berg.machinery.clock import Clock, RealClock


@dataclass(slots=True)
class Config:
    # where it listens
    bind_address: str = "0.0.0.0"
    secure_port: int = 6443
    """0: any free port; the server's `port` says which. -1: none, `handle()` only."""
    advertise_address: str = ""
    external_hostname: str = ""
    tls_cert_file: str = ""
    tls_private_key_file: str = ""
    client_ca_file: str = ""
    # the store
    data_dir: str = ""
    """where generated keys and the embedded store are"""
    etcd_servers: list[str] = field(default_factory=list)
    """`memory:`, a path of the embedded store, or etcd endpoints; empty: the embedded store in `data_dir`"""
    etcd_cafile: str = ""
    etcd_certfile: str = ""
    etcd_keyfile: str = ""
    etcd_prefix: str = "/registry"
    storage_media_type: str = "application/json"
    encryption_provider_config: str = ""
    # who may come in
    authorization_mode: list[str] = field(default_factory=lambda: ["Node", "RBAC"])
    anonymous_auth: bool = True
    token_auth_file: str = ""
    enable_bootstrap_token_auth: bool = True
    requestheader_client_ca_file: str = ""
    requestheader_allowed_names: list[str] = field(default_factory=list)
    requestheader_username_headers: list[str] = field(default_factory=lambda: ["X-Remote-User"])
    requestheader_group_headers: list[str] = field(default_factory=lambda: ["X-Remote-Group"])
    requestheader_extra_headers_prefix: list[str] = field(default_factory=lambda: ["X-Remote-Extra-"])
    proxy_client_cert_file: str = ""
    proxy_client_key_file: str = ""
    service_account_key_file: list[str] = field(default_factory=list)
    service_account_signing_key_file: str = ""
    service_account_issuer: list[str] = field(default_factory=lambda: ["https://kubernetes.default.svc.cluster.local"])
    service_account_jwks_uri: str = ""
    api_audiences: list[str] = field(default_factory=list)
    service_account_max_token_expiration_s: int = 0
    service_account_lookup: bool = True
    # the kubelet
    kubelet_certificate_authority: str = ""
    kubelet_client_certificate: str = ""
    kubelet_client_key: str = ""
    kubelet_preferred_address_types: list[str] = field(
        default_factory=lambda: ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"]
    )
    # the cluster
    service_cluster_ip_range: list[str] = field(default_factory=lambda: ["10.96.0.0/12"])
    service_node_port_range: tuple[int, int] = (30000, 32767)
    allow_privileged: bool = True
    # admission
    enable_admission_plugins: list[str] = field(default_factory=list)
    disable_admission_plugins: list[str] = field(default_factory=list)
    admission_control_config_file: str = ""
    runtime_config: dict[str, str] = field(default_factory=dict)
    feature_gates: dict[str, bool] = field(default_factory=dict)
    # operations
    max_requests_inflight: int = 400
    max_mutating_requests_inflight: int = 200
    enable_priority_and_fairness: bool = True
    request_timeout_s: float = 60.0
    min_request_timeout_s: int = 1800
    max_request_body_bytes: int = 3 << 20
    audit_policy_file: str = ""
    audit_log_path: str = ""
    audit_log_maxsize: int = 0
    audit_log_maxbackup: int = 0
    audit_log_maxage: int = 0
    audit_webhook_config_file: str = ""
    profiling: bool = True
    tracing_config_file: str = ""
    event_ttl_s: int = 3600
    shutdown_delay_duration_s: float = 0.0
    enable_aggregator_routing: bool = False
    clock: Clock = field(default_factory=RealClock)
    store: Any = None
    """an opened Store, for tests; overrides `etcd_servers`"""
