"""`berg apiserver` knows every flag of kube-apiserver, and reads each as upstream does."""

from __future__ import annotations

import dataclasses
import logging

import click
import pytest

from berg.apiserver.config import Config
from berg.cli.apiserver import command, configuration, flag_of
from berg.cli.apiserver_flags import ACCEPTED

FLAGS = """
admission-control admission-control-config-file advertise-address aggregator-reject-forwarding-redirect
allow-metric-labels allow-metric-labels-manifest allow-privileged anonymous-auth api-audiences
audit-log-batch-buffer-size audit-log-batch-max-size audit-log-batch-max-wait audit-log-batch-throttle-burst
audit-log-batch-throttle-enable audit-log-batch-throttle-qps audit-log-compress audit-log-format audit-log-maxage
audit-log-maxbackup audit-log-maxsize audit-log-mode audit-log-path audit-log-truncate-enabled
audit-log-truncate-max-batch-size audit-log-truncate-max-event-size audit-log-version audit-policy-file
audit-webhook-batch-buffer-size audit-webhook-batch-max-size audit-webhook-batch-max-wait
audit-webhook-batch-throttle-burst audit-webhook-batch-throttle-enable audit-webhook-batch-throttle-qps
audit-webhook-config-file audit-webhook-initial-backoff audit-webhook-mode audit-webhook-truncate-enabled
audit-webhook-truncate-max-batch-size audit-webhook-truncate-max-event-size audit-webhook-version
authentication-config authentication-token-webhook-cache-ttl authentication-token-webhook-config-file
authentication-token-webhook-version authorization-config authorization-mode authorization-policy-file
authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl
authorization-webhook-config-file authorization-webhook-version bind-address cert-dir client-ca-file
contention-profiling coordinated-leadership-lease-duration coordinated-leadership-renew-deadline
coordinated-leadership-retry-period cors-allowed-origins debug-socket-path default-not-ready-toleration-seconds
default-unreachable-toleration-seconds delete-collection-workers disable-admission-plugins disable-http2-serving
disabled-metrics egress-selector-config-file emulated-version emulation-forward-compatible enable-admission-plugins
enable-aggregator-routing enable-bootstrap-token-auth enable-garbage-collector enable-logs-handler
enable-priority-and-fairness encryption-provider-config encryption-provider-config-automatic-reload
endpoint-reconciler-type etcd-cafile etcd-certfile etcd-compaction-interval etcd-count-metric-poll-period
etcd-db-metric-poll-interval etcd-healthcheck-timeout etcd-keyfile etcd-prefix etcd-readycheck-timeout etcd-servers
etcd-servers-overrides event-ttl external-hostname feature-gates goaway-chance http2-max-streams-per-connection
kubelet-certificate-authority kubelet-client-certificate kubelet-client-key kubelet-preferred-address-types
kubelet-timeout kubernetes-service-node-port lease-reuse-duration-seconds livez-grace-period log-flush-frequency
log-json-info-buffer-size log-json-split-stream log-text-info-buffer-size log-text-split-stream logging-format
max-connection-bytes-per-sec max-mutating-requests-inflight max-requests-inflight min-compatibility-version
min-request-timeout oidc-ca-file oidc-client-id oidc-groups-claim oidc-groups-prefix oidc-issuer-url
oidc-required-claim oidc-signing-algs oidc-username-claim oidc-username-prefix peer-advertise-ip peer-advertise-port
peer-ca-file permit-address-sharing permit-port-sharing profiling proxy-client-cert-file proxy-client-key-file
request-timeout requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix
requestheader-group-headers requestheader-uid-headers requestheader-username-headers runtime-config
runtime-config-emulation-forward-compatible secure-port send-retry-after-while-not-ready-once
service-account-extend-token-expiration service-account-issuer service-account-jwks-uri service-account-key-file
service-account-lookup service-account-max-token-expiration service-account-signing-endpoint
service-account-signing-key-file service-cluster-ip-range service-node-port-range show-hidden-metrics-for-version
shutdown-delay-duration shutdown-send-retry-after shutdown-watch-termination-grace-period storage-backend
storage-initialization-timeout storage-media-type strict-transport-security-directives tls-cert-file
tls-cipher-suites tls-curve-preferences tls-min-version tls-private-key-file tls-sni-cert-key token-auth-file
tracing-config-file v version vmodule watch-cache watch-cache-sizes
""".split()  # noqa: SIM905 (a table to be read)


def _parsed(*arguments: str) -> Config:
    given = dict(command.make_context("apiserver", list(arguments)).params)
    given.pop("verbosity")
    return configuration(given)


def _known() -> set[str]:
    return {option.removeprefix("--") for p in command.params for option in p.opts}


def test_every_flag_of_kube_apiserver_is_known() -> None:
    assert [flag for flag in FLAGS if flag not in _known()] == []


def test_a_flag_is_either_followed_or_said_to_change_nothing() -> None:
    followed = {flag_of(f.name) for f in dataclasses.fields(Config)}
    assert not followed & set(ACCEPTED)
    assert set(ACCEPTED) <= set(FLAGS)


@pytest.mark.parametrize("flag", sorted(ACCEPTED))
def test_what_changes_nothing_is_taken_and_told(flag: str, caplog: pytest.LogCaptureFixture) -> None:
    switch, why = ACCEPTED[flag]
    with caplog.at_level(logging.WARNING):
        config = _parsed(f"--{flag}" if switch else f"--{flag}=1")
    assert f"--{flag}: {why}" in caplog.text
    assert dataclasses.replace(config, clock=None) == dataclasses.replace(Config(), clock=None)  # type: ignore[arg-type]


def test_values_are_read_as_upstream_reads_them() -> None:
    config = _parsed(
        "--allow-privileged",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--authorization-mode=Webhook",
        "--authorization-webhook-cache-authorized-ttl=1m30s",
        "--oidc-required-claim=hd=a,b",
        "--oidc-required-claim=role=x",
        "--service-account-issuer=https://a",
        "--service-account-issuer=https://b",
        "--event-ttl=2h",
        "--min-request-timeout=90",
        "--service-node-port-range=20000-20010",
        "--feature-gates=kube:StorageVersionAPI=true,kube:WatchList=false",
        "--tls-sni-cert-key=a.crt,a.key:*.x.org,x.org",
        "--audit-webhook-batch-throttle-qps=2.5",
    )
    assert config.allow_privileged is True
    assert config.anonymous_auth is False
    assert config.authorization_mode == ["Node", "RBAC", "Webhook"]
    assert config.authorization_webhook_cache_authorized_ttl_s == 90
    assert config.oidc_required_claim == {"hd": "a,b", "role": "x"}
    assert config.service_account_issuer == ["https://a", "https://b"]
    assert config.event_ttl_s == 7200
    assert config.min_request_timeout_s == 90
    assert config.service_node_port_range == (20000, 20010)
    assert config.feature_gates == {"StorageVersionAPI": True, "WatchList": False}
    assert config.tls_sni_cert_key == ["a.crt,a.key:*.x.org,x.org"]
    assert config.audit_webhook_batch_throttle_qps == 2.5


def test_a_wrong_duration_is_told() -> None:
    with pytest.raises(click.BadParameter, match='"soon" is no duration'):
        _parsed("--event-ttl=soon")
