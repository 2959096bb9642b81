"""`/metrics` under etcd's names: what dashboards and alerts for etcd ask for, as far as it has a meaning here."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator

from berg.etcd.grpc_server import Counts
from berg.etcd.member import CLUSTER_VERSION, VERSION, Member
from berg.etcd.rpc import Method

_STARTED = time.time()


_CODES = (
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
    *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"),
    *("Internal", "Unavailable", "DataLoss", "Unauthenticated"),
)


def render(member: Member, counts: Counts | None, methods: dict[str, Method]) -> str:
    store = member.store
    usage = resource.getrusage(resource.RUSAGE_SELF)
    values: list[tuple[str, str, float]] = [
        ("etcd_server_has_leader", "gauge", 1),
        ("etcd_server_is_leader", "gauge", 1),
        ("etcd_server_is_learner", "gauge", 0),
        ("etcd_server_leader_changes_seen_total", "counter", 1),
        ("etcd_server_proposals_committed_total", "gauge", member.raft_index),
        ("etcd_server_proposals_applied_total", "gauge", member.raft_index),
        ("etcd_server_proposals_pending", "gauge", len(store.pending.overlay)),
        ("etcd_server_proposals_failed_total", "counter", 0),
        ("etcd_server_quota_backend_bytes", "gauge", store.quota_bytes),
        ("etcd_mvcc_db_total_size_in_bytes", "gauge", store.size_bytes),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", store.in_use_bytes),
        ("etcd_debugging_mvcc_keys_total", "gauge", len(store.index.current)),
        ("etcd_debugging_mvcc_current_revision", "gauge", store.revision),
        ("etcd_debugging_mvcc_compact_revision", "gauge", store.compact_revision),
        ("etcd_debugging_mvcc_watcher_total", "gauge", len(store.watches.all())),
        ("etcd_debugging_lease_granted_total", "counter", len(store.held)),
        ("process_resident_memory_bytes", "gauge", _resident_bytes()),
        ("process_cpu_seconds_total", "counter", usage.ru_utime + usage.ru_stime),
        ("process_start_time_seconds", "gauge", _STARTED),
        ("process_open_fds", "gauge", len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0),
        ("process_max_fds", "gauge", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ]
    if counts is not None:
        values.append(("etcd_network_client_grpc_received_bytes_total", "counter", counts.received_bytes))
        values.append(("etcd_network_client_grpc_sent_bytes_total", "counter", counts.sent_bytes))
    lines = [f"# TYPE {name} {kind}\n{name} {value:.17g}\n" for name, kind, value in values]
    lines.append(f'# TYPE etcd_server_version gauge\netcd_server_version{{server_version="{VERSION}"}} 1\n')
    lines.append(f'# TYPE etcd_cluster_version gauge\netcd_cluster_version{{cluster_version="{CLUSTER_VERSION}"}} 1\n')
    lines.append(f'# TYPE etcd_server_id gauge\netcd_server_id{{server_id="{member.id:x}"}} 1\n')
    if counts is not None:
        lines += _calls(counts, methods)
    return "".join(lines)


def _calls(counts: Counts, methods: dict[str, Method]) -> Iterator[str]:
    def labels(path: str) -> str:
        method = methods[path]
        kind = "unary" if method.unary is not None else "bidi_stream" if method.client_streams else "server_stream"
        service, name = path[1:].split("/")
        return f'grpc_method="{name}",grpc_service="{service}",grpc_type="{kind}"'

    yield "# TYPE grpc_server_started_total counter\n"
    for path in sorted(methods):
        yield f"grpc_server_started_total{{{labels(path)}}} {counts.started[path]}\n"
    yield "# TYPE grpc_server_handled_total counter\n"
    for (path, code), count in sorted(counts.handled.items()):
        yield f'grpc_server_handled_total{{grpc_code="{_CODES[code]}",{labels(path)}}} {count}\n'


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
