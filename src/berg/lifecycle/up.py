"""`berg up`: from nothing, or from what was stopped, to a cluster whose node is Ready and whose DNS answers.

    plan      → what the cluster is: kept from its spec, or made from the options
    start     → certificates, then a supervisor
    wait      → API ready, node Ready, DNS answers

Each step says what it does through `Progress`; every failure is a LifecycleError with the way out.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from berg.lifecycle import host, hostnet
from berg.lifecycle.errors import BadDataDir, LifecycleError, NameInUse, PortTaken
from berg.lifecycle.layout import Layout
from berg.lifecycle.probe import Probe
from berg.lifecycle.registry import keep_index, supervisor_of, take_index
from berg.lifecycle.spec import ClusterSpec, NodeSpec
from berg.lifecycle.supervisor import read_pid, spawn

_API_PORT = 6443
_LEAST_FREE_BYTES = 64 << 20


class Progress(Protocol):
    def step(self, text: str) -> None:
        """A step begins; the one before it is done."""
        ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Options:
    name: str = "default"
    nodes: int = 1
    runtime: str = "auto"
    data_dir: str | None = None
    api_port: int | None = None
    wait_s: float = 60.0
    sim_nodes: int = 0
    containerd_socket: str = "/run/containerd/containerd.sock"
    feature_gates: dict[str, bool] = field(default_factory=dict)
    runtime_config: dict[str, str] = field(default_factory=dict)
    registry_mirrors: dict[str, list[str]] = field(default_factory=dict)


def plan(layout: Layout, options: Options, progress: Progress) -> ClusterSpec:
    """The cluster's spec, on disk. A cluster that was stopped keeps what it was made with."""
    running = supervisor_of(layout.root)
    if running and not layout.spec.exists():
        raise BadDataDir(
            f"the data of cluster {options.name!r} was deleted while it runs (process {running})",
            "End it with: berg down --purge. Then start anew.",
        )
    if layout.spec.exists():
        spec = ClusterSpec.read(layout.spec)
        if running and options.api_port not in (None, spec.api_port):
            raise NameInUse(
                f"cluster {options.name!r} is up on port {spec.api_port}",
                f"Stop it first (berg down --name {options.name}), or take another --name.",
            )
        for wanted in ("feature_gates", "runtime_config", "registry_mirrors"):
            if running and not getattr(options, wanted).items() <= getattr(spec, wanted).items():
                raise NameInUse(
                    f"cluster {options.name!r} is up with other {wanted.replace('_', ' ')}",
                    f"Stop it first (berg down --name {options.name}), or take another --name.",
                )
        if not running:
            spec.api_port = _port(options, spec.api_port)
            spec.sim_nodes = options.sim_nodes or spec.sim_nodes
            spec.feature_gates.update(options.feature_gates)
            spec.runtime_config.update(options.runtime_config)
            spec.registry_mirrors.update(options.registry_mirrors)
            _component_ports(spec)
            for node in spec.nodes:
                if not node.netns:  # another cluster may have taken the port meanwhile
                    node.kubelet_port = host.free_port(node.kubelet_port)
            address = host.address()
            own = not spec.nodes or spec.nodes[0].address == spec.advertise_address == address
            if len(spec.nodes) < 2 and address != host.LOOPBACK and not own:
                progress.note(f"The machine's address is now {address} (was {spec.advertise_address})")
                spec.advertise_address = address
                for node in spec.nodes:
                    node.address = address
            spec.write(layout.spec)
        keep_index(layout.root, spec.index)
        return spec
    if layout.store.is_dir() and any(layout.store.glob("*")):
        raise BadDataDir(
            f"{layout.root} has data but no spec.json",
            "Put the file back from a copy, or start anew with: berg down --purge",
        )
    runtime = host.choose_runtime(options.runtime, options.containerd_socket, progress.note)
    address, port = host.address(), _port(options, _API_PORT)
    spec = ClusterSpec(
        name=options.name,
        index=take_index(layout.root),
        api_port=port,
        advertise_address=address,
        runtime=runtime,
        sim_nodes=options.sim_nodes if runtime != "sim" else max(1, options.sim_nodes, options.nodes),
        containerd_socket=options.containerd_socket,
        feature_gates=dict(options.feature_gates),
        runtime_config=dict(options.runtime_config),
        registry_mirrors=dict(options.registry_mirrors),
    )
    _component_ports(spec)
    if runtime != "sim":
        spec.nodes = _nodes_wanted(spec, options.nodes)
        spec.advertise_address = spec.nodes[0].address
    layout.make()
    spec.write(layout.spec)
    return spec


def _component_ports(spec: ClusterSpec) -> None:
    spec.controllers_port = host.free_port(spec.controllers_port)
    spec.scheduler_port = host.free_port(spec.scheduler_port, {spec.controllers_port})


def _nodes_wanted(spec: ClusterSpec, count: int) -> list[NodeSpec]:
    """The machine itself, and network namespaces for the rest."""
    first = host.hostname()
    if count == 1 and spec.advertise_address == host.LOOPBACK:
        # Pods can't reach loopback; the bridge's address is one they can.
        return [NodeSpec(first, hostnet.address(spec.index, 1), kubelet_port=host.free_port(10250))]
    if count == 1:
        return [NodeSpec(first, spec.advertise_address, kubelet_port=host.free_port(10250))]
    if spec.runtime == "containerd":
        raise LifecycleError("one containerd serves one node", "Use --runtime berg for more, or --sim-nodes.")
    nodes = [NodeSpec(first, hostnet.address(spec.index, 1), kubelet_port=host.free_port(10250))]
    for number in range(2, count + 1):
        name = f"{first}-{number}"
        nodes.append(NodeSpec(name, hostnet.address(spec.index, number), netns=f"berg-{spec.unique}-{number}"))
    return nodes


def _port(options: Options, preferred: int) -> int:
    if options.api_port is None:
        return host.free_port(preferred)
    if not host.port_free(options.api_port):
        raise PortTaken(
            f"port {options.api_port} is taken by another program",
            "Free it, or choose another with --api-port (without it Berg finds one).",
        )
    return options.api_port


def start(layout: Layout, spec: ClusterSpec) -> bool:
    """Certificates and a supervisor; False when one was running already."""
    from berg.lifecycle import certs

    layout.make()
    free = shutil.disk_usage(layout.root).free
    if free < _LEAST_FREE_BYTES:
        raise LifecycleError(
            f"only {free >> 20} MiB are free under {layout.root}", "Make room, or choose another place with --data-dir."
        )
    certs.ensure(layout, spec)
    hostnet.ensure(spec)
    if running := supervisor_of(layout.root):
        if read_pid(layout.run / "supervisor.pid") is None:
            os.kill(running, signal.SIGHUP)  # somebody has cleared its directory
        return False
    spawn(layout.root, spec.roles)
    return True


def wait(layout: Layout, spec: ClusterSpec, wait_s: float, progress: Progress) -> None:
    """Until the API is ready, the first node Ready and DNS answers. Raises LifecycleError with the reason."""
    deadline = time.monotonic() + wait_s
    probe = Probe(layout.kubeconfig("admin"))
    progress.step("Waiting for the API")
    while not probe.ready():
        _check(deadline, layout, "apiserver", lambda: "the API did not become ready")
        time.sleep(0.01)
    progress.step("Waiting for the node")
    ready = _await_nodes(probe, len(spec.nodes) or 1, deadline, layout)
    progress.note(f"Ready: {', '.join(ready[:10])}")
    if spec.runtime != "sim":
        progress.step("Waiting for DNS")
        while not dns_answers(spec.dns_address):
            _check(deadline, layout, "dns", lambda: f"DNS does not answer at {spec.dns_address}")
            time.sleep(0.02)


def _await_nodes(probe: Probe, wanted: int, deadline: float, layout: Layout) -> list[str]:
    """The names of the nodes that are Ready, once there are as many as `wanted`."""
    seen: dict[str, dict[str, Any]] = {}
    ready: list[str] = []
    while len(ready) < wanted:
        _check(deadline, layout, "node", lambda: _why_not_ready(list(seen.values())))
        seen.clear()
        try:
            for event in probe.watch("/api/v1/nodes?watch=true", max(0.1, deadline - time.monotonic())):
                seen[event["object"]["metadata"]["name"]] = event["object"]
                ready = [name for name, node in seen.items() if _ready_condition(node).get("status") == "True"]
                if len(ready) >= wanted:
                    break
        except OSError:  # silence until the deadline, or a server that starts again
            time.sleep(0.05)
    return ready


def _ready_condition(node: dict[str, Any]) -> dict[str, Any]:
    conditions = node.get("status", {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == "Ready"), {})


def _why_not_ready(nodes: list[dict[str, Any]]) -> str:
    for node in nodes:
        if condition := _ready_condition(node):
            return f"node {node['metadata']['name']} is not Ready: {condition.get('message', '')}"
    return "no node registered"


def _check(deadline: float, layout: Layout, component: str, why: Callable[[], str]) -> None:
    if time.monotonic() > deadline:
        tail = _last_line(layout.logs, component)
        raise LifecycleError(
            f"{why()}{f' ({tail})' if tail else ''}",
            f"Look at: berg logs {component}. The cluster's processes go on; berg up waits again, berg down ends them.",
        )


def _last_line(logs: Path, component: str) -> str:
    newest = ""
    for path in sorted(logs.glob(f"{component}*.err")):
        lines = path.read_text(errors="replace").strip().splitlines()
        newest = lines[-1] if lines else newest
    return newest[:300]


def dns_answers(server: str, name: str = "kubernetes.default.svc.cluster.local", timeout_s: float = 0.3) -> bool:
    """Asks for the A record of `name`; True when an answer with at least one record comes."""
    labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
    query = os.urandom(2) + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(timeout_s)
        try:
            s.sendto(query, (server, 53))
            answer = s.recv(512)
        except OSError:
            return False
    return answer[:2] == query[:2] and answer[6:8] != b"\0\0"
