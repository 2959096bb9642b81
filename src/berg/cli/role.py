"""One process of a cluster: `python -m berg.cli.role ROLE DATA_DIR`, started by the supervisor.

    apiserver       the API server with the embedded store
    controllers     controller manager and scheduler
    node-NAME       kubelet, runtime, network, proxy and DNS of one node
    sim             simulated nodes

A role builds its components, starts them in order, waits for SIGTERM and stops them in the reverse order. Each
role also watches its supervisor and starts a new one if that is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from berg.cli.gate import ApiGate, Together
from berg.lifecycle.host import port_if_free
from berg.lifecycle.layout import Layout
from berg.lifecycle.spec import ClusterSpec
from berg.machinery import collector

log = logging.getLogger("berg.cli.role")


class Component(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


Build = Callable[[Layout, ClusterSpec], list[Any]]


def apiserver(layout: Layout, spec: ClusterSpec) -> list[Component]:
    from berg.apiserver.config import Config
    from berg.apiserver.server import APIServer

    pki = layout.pki
    config = Config(
        secure_port=spec.api_port,
        advertise_address=spec.advertise_address,
        data_dir=str(layout.store),
        tls_cert_file=str(pki / "apiserver.crt"),
        tls_private_key_file=str(pki / "apiserver.key"),
        client_ca_file=str(pki / "ca.crt"),
        requestheader_client_ca_file=str(pki / "front-proxy-ca.crt"),
        requestheader_allowed_names=["front-proxy-client"],
        proxy_client_cert_file=str(pki / "front-proxy-client.crt"),
        proxy_client_key_file=str(pki / "front-proxy-client.key"),
        service_account_key_file=[str(pki / "sa.pub")],
        service_account_signing_key_file=str(pki / "sa.key"),
        kubelet_certificate_authority=str(pki / "ca.crt"),
        kubelet_client_certificate=str(pki / "apiserver-kubelet-client.crt"),
        kubelet_client_key=str(pki / "apiserver-kubelet-client.key"),
        kubelet_preferred_address_types=["InternalIP", "Hostname"],
        service_cluster_ip_range=[spec.service_cidr],
        component_ports={"scheduler": spec.scheduler_port, "controller-manager": spec.controllers_port},
        feature_gates=spec.feature_gates,
        runtime_config=spec.runtime_config,
    )
    return [APIServer(config)]


def controllers(layout: Layout, spec: ClusterSpec) -> list[Component]:
    from berg.client.rest import Client
    from berg.client.serving import Serving
    from berg.controllers.config import Config as ManagerConfig
    from berg.controllers.manager import ControllerManager
    from berg.lifecycle.addons import Addons
    from berg.scheduler.config import SchedulerConfig
    from berg.scheduler.metrics import Metrics
    from berg.scheduler.scheduler import Scheduler

    manager = ManagerConfig(
        allocate_node_cidrs=True,
        cluster_cidr=spec.pod_cidr,
        service_cluster_ip_range=spec.service_cidr,
        cluster_signing_cert_file=str(layout.pki / "ca.crt"),
        cluster_signing_key_file=str(layout.pki / "ca.key"),
        root_ca_file=str(layout.pki / "ca.crt"),
        service_account_private_key_file=str(layout.pki / "sa.key"),
        use_service_account_credentials=True,
        leader_elect=False,
        bind_address="127.0.0.1",
        secure_port=port_if_free(spec.controllers_port),
        tls_cert_file=str(layout.pki / "controller-manager-serving.crt"),
        tls_private_key_file=str(layout.pki / "controller-manager-serving.key"),
        feature_gates=spec.feature_gates,
    )
    scheduler = Scheduler(
        Client.from_kubeconfig(str(layout.kubeconfig("scheduler"))), SchedulerConfig(feature_gates=spec.feature_gates)
    )
    scheduler.metrics = Metrics(scheduler.queue.counts, spec.feature_gates)
    scheduler_port = Serving(
        scheduler.client,
        "kube-scheduler",
        scheduler.metrics.text,
        address="127.0.0.1",
        port=port_if_free(spec.scheduler_port),
        certificate=str(layout.pki / "scheduler-serving.crt"),
        key=str(layout.pki / "scheduler-serving.key"),
        more={"/metrics/resources": scheduler.pod_resources},
    )
    return [
        ApiGate(layout, spec),
        Addons(Client.from_kubeconfig(str(layout.kubeconfig("admin"))), spec),
        Together(
            ControllerManager(Client.from_kubeconfig(str(layout.kubeconfig("controller-manager"))), manager),
            scheduler,
            scheduler_port,
        ),
    ]


def node(name: str) -> Build:
    def build(layout: Layout, spec: ClusterSpec) -> list[Component]:
        from berg.cli.node import components

        return components(layout, spec, next(n for n in spec.nodes if n.name == name))

    return build


def sim(layout: Layout, spec: ClusterSpec) -> list[Component]:
    from berg.client.rest import Client
    from berg.testing.simnodes import SimNodes

    return [SimNodes(Client.from_kubeconfig(str(layout.kubeconfig("admin"))), spec.sim_nodes)]


ROLES: dict[str, Build] = {"apiserver": apiserver, "controllers": controllers, "sim": sim}

# logger below `berg` → log file; what is not named goes to the role's first file
LOGS = {
    "apiserver": {"apiserver": "apiserver", "storage": "apiserver"},
    "controllers": {"controllers": "controller-manager", "scheduler": "scheduler"},
    "node": {"kubelet": "kubelet", "runtime": "runtime", "network": "network", "proxy": "proxy", "dns": "dns"},
    "sim": {"testing": "sim"},
}


async def serve(build: Callable[[], list[Component]], root: Path, roles: list[str]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    guard = _Guard(root, roles)
    guard.watch()
    started: list[Component] = []
    starting = asyncio.ensure_future(_start(build(), started))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()  # a failure to start ends the process; the supervisor tries again
            collector.settled()
            await stopping
        else:
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
    finally:
        guard.close()
        stopping.cancel()
        for component in reversed(started):
            try:
                await asyncio.wait_for(component.stop(), 15)
            except Exception:
                log.exception("stopping %s", type(component).__name__)


async def _start(components: list[Component], started: list[Component]) -> None:
    for component in components:
        started.append(component)
        await component.start()
        log.info("%s started", type(component).__name__)


class _Guard:
    """Watches the supervisor; when it is gone without having asked us to stop, starts another."""

    def __init__(self, root: Path, roles: list[str]) -> None:
        self._root, self._roles = root, roles
        self._fd = -1

    def watch(self) -> None:
        from berg.lifecycle.registry import supervisor_of

        pid = supervisor_of(self._root)
        if pid is None:
            return  # run by hand
        with contextlib.suppress(ProcessLookupError):
            self._fd = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(self._fd, self._gone)

    def _gone(self) -> None:
        from berg.lifecycle.supervisor import spawn

        self.close()
        run = self._root / "run"
        if (run / "supervisor.pid").exists() or not run.exists():  # it removes that file when it means to end
            log.warning("the supervisor is gone; starting another")
            spawn(self._root, self._roles)
            asyncio.get_running_loop().call_later(1, self.watch)

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def main() -> int:
    import uvloop

    from berg.cli.logsetup import to_files

    role, root = sys.argv[1], Path(sys.argv[2])
    gc.disable()  # until everything has started
    layout = Layout(root)
    spec = ClusterSpec.read(layout.spec)
    kind, _, name = role.partition("-")
    table = LOGS[kind]
    suffix = f"-{name}" if kind == "node" and name != spec.nodes[0].name else ""
    to_files(layout.logs, {k: v + suffix for k, v in table.items()}, next(iter(table.values())) + suffix)
    if netns := next((n.netns for n in spec.nodes if kind == "node" and n.name == name), ""):
        from berg.lifecycle import hostnet

        hostnet.enter(netns)
    build = ROLES[role] if role in ROLES else node(name)
    try:
        uvloop.run(serve(lambda: build(layout, spec), root, spec.roles))
    except Exception:
        log.exception("%s failed", role)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
