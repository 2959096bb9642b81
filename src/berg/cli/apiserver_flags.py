"""Flags of kube-apiserver that `berg apiserver` takes and that change nothing: flag → (a switch?, why)."""

from __future__ import annotations

_GO = "a matter of the Go runtime"
_WATCH_CACHE = "every resource is in the watch cache, which grows and shrinks by itself"
_ETCD = "counts and sizes are taken when the metrics are asked for; nothing is polled"
_LOGGING = "lines are written at once, all to one stream"
_METRICS = "all metrics are shown under their names and with their labels"
_PEERS = "requests are not sent on to other API servers"
_EMULATION = "one version is served: v1.37"

ACCEPTED: dict[str, tuple[bool, str]] = {
    # connections
    "permit-address-sharing": (True, "addresses in TIME_WAIT are always used again"),
    "max-connection-bytes-per-sec": (False, "connections are not throttled"),
    # start and end
    "livez-grace-period": (False, "the server is live from the first request on"),
    "send-retry-after-while-not-ready-once": (True, "nothing is listened to before the server is ready"),
    "shutdown-watch-termination-grace-period": (False, "watches end at once; clients resume them elsewhere"),
    "storage-initialization-timeout": (False, "the server is not ready before all resources are read"),
    "emulated-version": (False, _EMULATION),
    "emulation-forward-compatible": (True, _EMULATION),
    "min-compatibility-version": (False, _EMULATION),
    "runtime-config-emulation-forward-compatible": (True, _EMULATION),
    # the store
    "storage-backend": (False, "the store is told apart by --etcd-servers"),
    "etcd-count-metric-poll-period": (False, _ETCD),
    "etcd-db-metric-poll-interval": (False, _ETCD),
    "lease-reuse-duration-seconds": (False, "what expires together shares a lease by itself"),
    "watch-cache": (True, _WATCH_CACHE),
    "watch-cache-sizes": (False, _WATCH_CACHE),
    "delete-collection-workers": (False, "a collection is deleted as fast as the store takes it"),
    "enable-garbage-collector": (True, "dependents are deleted by the controller manager's garbage collector"),
    # logs and metrics
    "log-flush-frequency": (False, _LOGGING),
    "log-json-info-buffer-size": (False, _LOGGING),
    "log-json-split-stream": (True, _LOGGING),
    "log-text-info-buffer-size": (False, _LOGGING),
    "log-text-split-stream": (True, _LOGGING),
    "vmodule": (False, "-v counts for all modules"),
    "enable-logs-handler": (True, "deprecated: /logs is not served"),
    "allow-metric-labels": (False, _METRICS),
    "allow-metric-labels-manifest": (False, _METRICS),
    "show-hidden-metrics-for-version": (False, _METRICS),
    "contention-profiling": (True, _GO),
    "debug-socket-path": (False, _GO),
    # the rest
    "admission-control": (False, "deprecated: use --enable-admission-plugins and --disable-admission-plugins"),
    "aggregator-reject-forwarding-redirect": (True, "answers of aggregated servers are passed on as they are"),
    "endpoint-reconciler-type": (False, "each server writes the endpoints of the kubernetes service when it starts"),
    "kubelet-timeout": (False, "kubelets are given ten seconds to answer"),
    "kubernetes-service-node-port": (False, "the kubernetes service has no node port"),
    "peer-advertise-ip": (False, _PEERS),
    "peer-advertise-port": (False, _PEERS),
    "peer-ca-file": (False, _PEERS),
}
