"""The kubelet's metrics: its own, cAdvisor's figures of containers, resource metrics, and probes. Prometheus text.

Nothing is counted in vain: figures of containers are asked of the runtime when someone scrapes.

Source: pkg/kubelet/metrics, server/metrics/resource_metrics.go, prober metrics, cAdvisor metrics/prometheus.go.
"""

from __future__ import annotations

import os
import resource as rlimit
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from berg.kubelet import machine
from berg.kubelet import pod as p
from berg.kubelet.node_status import VERSION
from berg.machinery import features
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRIError

if TYPE_CHECKING:
    from berg.kubelet.kubelet import Kubelet

Sample = tuple[Mapping[str, str], float]


class Text:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, kind: str, help: str, samples: Iterable[Sample]) -> None:
        self._lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
        for labels, value in samples:
            shown = ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())
            number = str(int(value)) if value == int(value) else repr(value)
            self._lines.append(f"{name}{{{shown}}} {number}" if shown else f"{name} {number}")

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


async def render(kubelet: Kubelet, which: str) -> str | None:
    """`which`: nothing, cadvisor, resource or probes; None for anything else."""
    text = Text()
    match which:
        case "":
            _own(kubelet, text)
        case "resource":
            await _resource(kubelet, text)
        case "cadvisor":
            await _cadvisor(kubelet, text)
        case "probes":
            _probes(kubelet, text)
        case _:
            return None
    return str(text)


def _own(kubelet: Kubelet, text: Text) -> None:
    states: dict[str, int] = {}
    running = 0
    for uid in kubelet.pods.pods:
        status = kubelet.statuses.get(uid) or {}
        running += status.get("phase") == "Running"
        for s in status.get("containerStatuses") or ():
            state = next(iter(s.get("state") or {"unknown": {}}))
            state = {"terminated": "exited", "waiting": "created"}.get(state, state)
            states[state] = states.get(state, 0) + 1
    text.add("kubelet_running_pods", "gauge", "[BETA] Number of pods that have a running pod sandbox", [({}, running)])
    text.add(
        "kubelet_running_containers",
        "gauge",
        "[BETA] Number of containers currently running",
        [({"container_state": k}, v) for k, v in sorted(states.items())],
    )
    text.add(
        "kubelet_podcertificate_states",
        "gauge",
        "[ALPHA] Sources of pod certificates in volumes, by signer and state.",
        [({"signer_name": s, "state": state}, n) for (s, state), n in sorted(kubelet.certificates.states().items())],
    )
    text.add(
        "kubelet_node_name",
        "gauge",
        "[ALPHA] The node's name. The count is always 1.",
        [({"node": kubelet.config.node_name}, 1)],
    )
    text.add(
        features.METRIC,
        "gauge",
        features.HELP,
        [({"name": name, "stage": stage}, on) for (name, stage), on in kubelet.features.samples()],
    )
    text.add(
        "kubernetes_build_info",
        "gauge",
        "[BETA] Build information.",
        [
            (
                {
                    "git_version": VERSION,
                    "major": "1",
                    "minor": "37",
                    "platform": f"linux/{kubelet.machine.architecture}",
                },
                1,
            )
        ],
    )
    usage = rlimit.getrusage(rlimit.RUSAGE_SELF)
    text.add(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        [({}, usage.ru_utime + usage.ru_stime)],
    )
    with open("/proc/self/statm") as f:
        pages = int(f.read().split()[1])
    text.add(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        [({}, pages * os.sysconf("SC_PAGE_SIZE"))],
    )


def _probes(kubelet: Kubelet, text: Text) -> None:
    samples: list[Sample] = []
    for (type, container, pod, namespace, outcome), count in sorted(kubelet.probes.counts.items()):
        found = kubelet.pods.by_name(namespace, pod)
        labels = {
            "container": container,
            "namespace": namespace,
            "pod": pod,
            "pod_uid": p.uid(found) if found else "",
            "probe_type": type,
            "result": outcome,
        }
        samples.append((labels, count))
    text.add(
        "prober_probe_total",
        "counter",
        "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
        samples,
    )


async def container_stats(kubelet: Kubelet) -> list[Any]:
    try:
        answer = await kubelet.cri.list_container_stats(pb.ListContainerStatsRequest())
    except CRIError:
        return []
    return list(answer.stats)


def _labels(s: Any) -> dict[str, str]:
    labels = s.attributes.labels
    return {
        "container": labels.get(p.LABEL_CONTAINER_NAME, ""),
        "namespace": labels.get(p.LABEL_POD_NAMESPACE, ""),
        "pod": labels.get(p.LABEL_POD_NAME, ""),
    }


async def _resource(kubelet: Kubelet, text: Text) -> None:
    stats = await container_stats(kubelet)
    cpu = [(_labels(s), s.cpu.usage_core_nano_seconds.value / 1e9) for s in stats if s.HasField("cpu")]
    memory = [(_labels(s), float(s.memory.working_set_bytes.value)) for s in stats if s.HasField("memory")]
    starts = []
    for uid, pod in kubelet.pods.pods.items():
        for c in (kubelet.statuses.get(uid) or {}).get("containerStatuses") or ():
            began = ((c.get("state") or {}).get("running") or {}).get("startedAt")
            if began:
                labels = {"container": c["name"], "namespace": p.namespace(pod), "pod": p.name(pod)}
                starts.append((labels, time.mktime(time.strptime(began, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone))
    used = machine.meminfo()
    text.add(
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        cpu,
    )
    text.add(
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
        memory,
    )
    text.add(
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
        starts,
    )
    text.add(
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        [({}, machine.cpu_seconds())],
    )
    text.add(
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
        [({}, float(used.get("MemTotal", 0) - used.get("MemAvailable", 0)))],
    )
    pods: dict[tuple[str, str], list[float]] = {}
    for s in stats:
        one = pods.setdefault((_labels(s)["namespace"], _labels(s)["pod"]), [0.0, 0.0])
        one[0] += s.cpu.usage_core_nano_seconds.value / 1e9
        one[1] += s.memory.working_set_bytes.value
    text.add(
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        [({"namespace": ns, "pod": name}, v[0]) for (ns, name), v in pods.items()],
    )
    text.add(
        "pod_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the pod in bytes",
        [({"namespace": ns, "pod": name}, v[1]) for (ns, name), v in pods.items()],
    )
    text.add(
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
        [({}, 0)],
    )


async def _cadvisor(kubelet: Kubelet, text: Text) -> None:
    stats = await container_stats(kubelet)
    rows = [({**_labels(s), "id": s.attributes.id, "name": s.attributes.id}, s) for s in stats]
    text.add(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
        [({**labels, "cpu": "total"}, s.cpu.usage_core_nano_seconds.value / 1e9) for labels, s in rows],
    )
    for name, field, help in (
        ("container_memory_working_set_bytes", "working_set_bytes", "Current working set in bytes."),
        ("container_memory_usage_bytes", "usage_bytes", "Current memory usage in bytes."),
        ("container_memory_rss", "rss_bytes", "Size of RSS in bytes."),
    ):
        text.add(name, "gauge", help, [(labels, float(getattr(s.memory, field).value)) for labels, s in rows])
    text.add(
        "container_fs_usage_bytes",
        "gauge",
        "Number of bytes that are consumed by the container on this filesystem.",
        [(labels, float(s.writable_layer.used_bytes.value)) for labels, s in rows],
    )
    text.add("machine_cpu_cores", "gauge", "Number of logical CPU cores.", [({}, kubelet.machine.cpus)])
    text.add(
        "machine_memory_bytes",
        "gauge",
        "Amount of memory installed on the machine.",
        [({}, kubelet.machine.memory_bytes)],
    )
