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
    cert_dir: str = ""
    """where keys and certificates are made when none are given; empty: `pki` in `data_dir`"""
    tls_sni_cert_key: list[str] = field(default_factory=list)
    """`CERT,KEY[:PATTERN,PATTERN]` each"""
    tls_min_version: str = ""
    tls_cipher_suites: list[str] = field(default_factory=list)
    tls_curve_preferences: list[str] = field(default_factory=list)
    permit_port_sharing: bool = False
    disable_http2_serving: bool = False
    http2_max_streams_per_connection: int = 0
    """0: as upstream's HTTP/2 library has it, 100"""
    goaway_chance: float = 0.0
    """how many requests end an HTTP/2 connection, so that its client may find another server"""
    cors_allowed_origins: list[str] = field(default_factory=list)
    strict_transport_security_directives: list[str] = field(default_factory=list)
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
    etcd_compaction_interval_s: float = 300.0
    """0: history is never compacted by this server"""
    etcd_servers_overrides: list[str] = field(default_factory=list)
    """`GROUP/RESOURCE#SERVER;SERVER` each"""
    etcd_healthcheck_timeout_s: float = 2.0
    etcd_readycheck_timeout_s: float = 2.0
    storage_media_type: str = "application/json"
    encryption_provider_config: str = ""
    encryption_provider_config_automatic_reload: bool = False
    # who may come in
    authorization_mode: list[str] | None = None
    """None: Node and RBAC. (Upstream lets everybody in, when nobody says.)"""
    authorization_config: str = ""
    authorization_policy_file: str = ""
    authorization_webhook_config_file: str = ""
    authorization_webhook_version: str = "v1beta1"
    authorization_webhook_cache_authorized_ttl_s: float = 300.0
    authorization_webhook_cache_unauthorized_ttl_s: float = 30.0
    anonymous_auth: bool | None = None
    """None: yes, unless `authentication_config` says otherwise"""
    authentication_config: str = ""
    authentication_token_webhook_config_file: str = ""
    authentication_token_webhook_version: str = "v1beta1"
    authentication_token_webhook_cache_ttl_s: float = 120.0
    oidc_issuer_url: str = ""
    oidc_client_id: str = ""
    oidc_ca_file: str = ""
    oidc_username_claim: str = "sub"
    oidc_username_prefix: str = ""
    oidc_groups_claim: str = ""
    oidc_groups_prefix: str = ""
    oidc_required_claim: dict[str, str] = field(default_factory=dict)
    oidc_signing_algs: list[str] = field(default_factory=lambda: ["RS256"])
    token_auth_file: str = ""
    enable_bootstrap_token_auth: bool = True
    requestheader_client_ca_file: str = ""
    requestheader_allowed_names: list[str] = field(default_factory=list)
    requestheader_username_headers: list[str] = field(default_factory=lambda: ["X-Remote-User"])
    requestheader_uid_headers: list[str] = field(default_factory=lambda: ["X-Remote-Uid"])
    requestheader_group_headers: list[str] = field(default_factory=lambda: ["X-Remote-Group"])
    requestheader_extra_headers_prefix: list[str] = field(default_factory=lambda: ["X-Remote-Extra-"])
    proxy_client_cert_file: str = ""
    proxy_client_key_file: str = ""
    service_account_key_file: list[str] = field(default_factory=list)
    service_account_signing_key_file: str = ""
    service_account_signing_endpoint: str = ""
    service_account_issuer: list[str] = field(default_factory=lambda: ["https://kubernetes.default.svc.cluster.local"])
    service_account_jwks_uri: str = ""
    api_audiences: list[str] = field(default_factory=list)
    service_account_max_token_expiration_s: int = 0
    service_account_extend_token_expiration: bool = True
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
    default_not_ready_toleration_seconds: int = 300
    default_unreachable_toleration_seconds: int = 300
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
    audit_log_format: str = "json"
    audit_log_version: str = "audit.k8s.io/v1"
    audit_log_maxsize: int = 100
    audit_log_maxbackup: int = 100
    audit_log_maxage: int = 366
    audit_log_compress: bool = False
    audit_log_mode: str = "blocking"
    audit_log_batch_buffer_size: int = 10_000
    audit_log_batch_max_size: int = 1
    audit_log_batch_max_wait_s: float = 0.0
    audit_log_batch_throttle_enable: bool = False
    audit_log_batch_throttle_qps: float = 0.0
    audit_log_batch_throttle_burst: int = 0
    audit_log_truncate_enabled: bool = False
    audit_log_truncate_max_batch_size: int = 10 << 20
    audit_log_truncate_max_event_size: int = 100 << 10
    audit_webhook_config_file: str = ""
    audit_webhook_version: str = "audit.k8s.io/v1"
    audit_webhook_initial_backoff_s: float = 10.0
    audit_webhook_mode: str = "batch"
    audit_webhook_batch_buffer_size: int = 10_000
    audit_webhook_batch_max_size: int = 400
    audit_webhook_batch_max_wait_s: float = 30.0
    audit_webhook_batch_throttle_enable: bool = True
    audit_webhook_batch_throttle_qps: float = 10.0
    audit_webhook_batch_throttle_burst: int = 15
    audit_webhook_truncate_enabled: bool = False
    audit_webhook_truncate_max_batch_size: int = 10 << 20
    audit_webhook_truncate_max_event_size: int = 100 << 10
    profiling: bool = True
    disabled_metrics: list[str] = field(default_factory=list)
    egress_selector_config_file: str = ""
    """may only say that connections are made directly"""
    tracing_config_file: str = ""
    event_ttl_s: int = 3600
    shutdown_delay_duration_s: float = 0.0
    shutdown_send_retry_after: bool = False
    logging_format: str = "text"
    """of `berg apiserver`: text or json"""
    enable_aggregator_routing: bool = False
    coordinated_leadership_lease_duration_s: float = 15.0
    coordinated_leadership_renew_deadline_s: float = 10.0
    coordinated_leadership_retry_period_s: float = 2.0
    component_ports: dict[str, int] = field(default_factory=lambda: {"scheduler": 10259, "controller-manager": 10257})
    """where on this machine `componentstatuses` asks"""
    clock: Clock = field(default_factory=RealClock)
    store: Any = None
    """an opened Store, for tests; overrides `etcd_servers`"""
