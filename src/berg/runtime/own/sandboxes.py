"""Pod sandboxes: the namespaces, the network and the files that the containers of a pod share.

No process belongs to a sandbox, unless the pod shares its PID namespace (`pause.py`). A sandbox is ready from the
moment its network is up until it is stopped, or the machine starts anew.

    ROOT/sandboxes/ID/    the record; `etc/hostname`, `etc/resolv.conf`
    STATE/ns/ID/          the pins (`namespaces.py`)
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from berg.runtime.cri import Code, CRIError
from berg.runtime.network import PodNetwork, PodNetworkError, PodNetworkRequest, PortMapping
from berg.runtime.own import cgroups, pause
from berg.runtime.own.launcher import Launcher
from berg.runtime.own.namespaces import Pins, SysctlError
from berg.runtime.own.processes import find_processes, is_alive, process_start
from berg.runtime.own.state import Records, Sandbox, SandboxState, boot_id, new_id

if TYPE_CHECKING:
    from berg.runtime.api import cri_pb2 as pb

log = logging.getLogger(__name__)

POD, CONTAINER, NODE, TARGET = range(4)
"""CRI's NamespaceMode."""

_PROTOCOLS = ("tcp", "udp", "sctp")


class Sandboxes:
    def __init__(
        self,
        records: Records[Sandbox],
        launcher: Launcher,
        network: PodNetwork | None,
        state_directory: str,
        default_cgroup_parent: str,
        on_event: Callable[[Sandbox, str], None],
    ) -> None:
        self.records = records
        self._launcher = launcher
        self._network = network
        self._state_directory = state_directory
        self._default_cgroup_parent = default_cgroup_parent
        self._on_event = on_event
        self._names: dict[tuple[str, str, str, int], str] = {}

    async def open(self) -> None:
        now_boot = boot_id()
        for sandbox in self.records.all.values():
            # Gone with a reboot, or with whoever cleared /run: without its namespaces a sandbox is none.
            lost = sandbox.state.network and not os.path.exists(os.path.join(self._state_directory, "ns", sandbox.id))
            if sandbox.state.ready and (lost or sandbox.state.boot_id != now_boot):
                sandbox.state.ready = False
                self.records.save(sandbox)
            self._names[_name(sandbox.config)] = sandbox.id
        if (gc := getattr(self._network, "gc", None)) is not None:
            try:
                await gc(self.records.all.keys())
            except PodNetworkError as error:
                log.warning("the pod network could not be tidied: %s", error)
        pins = os.path.join(self._state_directory, "ns")
        stray = [id for id in _listdir(pins) if id not in self.records.all]
        if stray:
            await self._launcher.call(lambda: self._unpin(stray))

    def _unpin(self, ids: list[str]) -> None:
        for id in ids:
            self.pins(id).remove()

    def get(self, id: str) -> Sandbox:
        """Raises CRIError NOT_FOUND."""
        sandbox = self.records.find(id)
        if sandbox is None:
            raise CRIError(Code.NOT_FOUND, f'an error occurred when try to find sandbox "{id}": not found')
        return sandbox

    def pins(self, id: str) -> Pins:
        return Pins(os.path.join(self._state_directory, "ns", id))

    def etc(self, id: str) -> str:
        return os.path.join(self.records.directory(id), "etc")

    async def run(self, config: pb.PodSandboxConfig, handler: str) -> Sandbox:
        """Makes a sandbox; what fails leaves nothing behind. Raises CRIError."""
        self._check_name(config)
        id = new_id()
        options = config.linux.security_context.namespace_options
        state = SandboxState(created_at=time.time_ns(), ready=False, boot_id=boot_id(), handler=handler)
        state.cgroup_parent = cgroups.expand(config.linux.cgroup_parent or self._default_cgroup_parent)
        state.network = options.network != NODE
        sandbox = Sandbox(id, config, state)
        self._names[_name(config)] = id
        try:
            self.records.add(sandbox)
            kinds = [kind for kind, mode in (("net", options.network), ("ipc", options.ipc)) if mode != NODE]
            if options.network != NODE:
                kinds.append("uts")
            hostname = config.hostname[:64]
            self._write_etc(sandbox)
            await self._launcher.call(lambda: self.pins(id).make(kinds, hostname, config.linux.sysctls))
            if options.pid == POD:
                program = pause.install(os.path.join(os.path.dirname(self.records.root), "pause"))
                state.pause_pid = await self._launcher.call(lambda: pause.spawn(program, id))
                state.pause_start = process_start(state.pause_pid)
                self.records.save(sandbox)
            if state.network:
                await self._connect(sandbox)
            state.ready = True
            self.records.save(sandbox)
        except BaseException as error:
            await self._undo(sandbox)
            if isinstance(error, (OSError, SysctlError, PodNetworkError)):
                raise CRIError(Code.UNKNOWN, f"failed to create sandbox: {error}") from error
            raise
        return sandbox

    async def stop(self, sandbox: Sandbox) -> None:
        """Its containers are stopped already. Stopped already itself is fine."""
        if sandbox.state.network:
            await self._disconnect(sandbox)
            sandbox.state.network = False
        await self._release(sandbox)
        if sandbox.state.ready:
            sandbox.state.ready = False
            self.records.save(sandbox)
            self._on_event(sandbox, "stopped")

    async def remove(self, sandbox: Sandbox) -> None:
        await self.stop(sandbox)
        self._forget(sandbox)
        self._on_event(sandbox, "deleted")

    def status_network(self, sandbox: Sandbox) -> list[str]:
        return sandbox.state.ips if sandbox.state.ready else []

    async def _connect(self, sandbox: Sandbox) -> None:
        if self._network is None:
            raise PodNetworkError("no pod network is configured")
        result = await self._network.setup(self._request(sandbox))
        sandbox.state.ips = list(result.ips)

    async def _disconnect(self, sandbox: Sandbox) -> None:
        if self._network is None:
            return
        try:
            await self._network.teardown(self._request(sandbox))
        except PodNetworkError as error:
            text = f'failed to destroy network for sandbox "{sandbox.id}": {error}'
            raise CRIError(Code.UNKNOWN, text) from error

    def _request(self, sandbox: Sandbox) -> PodNetworkRequest:
        config = sandbox.config
        return PodNetworkRequest(
            sandbox_id=sandbox.id,
            namespace=config.metadata.namespace,
            name=config.metadata.name,
            uid=config.metadata.uid,
            netns_path=self.pins(sandbox.id).path("net"),
            port_mappings=tuple(
                PortMapping(mapping.container_port, mapping.host_port, _PROTOCOLS[mapping.protocol], mapping.host_ip)
                for mapping in config.port_mappings
                if mapping.host_port
            ),
            annotations=dict(config.annotations),
            cgroup_parent=sandbox.state.cgroup_parent,
        )

    async def _undo(self, sandbox: Sandbox) -> None:
        try:
            if sandbox.state.network:
                await self._disconnect(sandbox)
        except CRIError:
            pass  # the first failure is the one to tell of
        await asyncio.shield(self._release(sandbox))
        self._forget(sandbox)

    async def _release(self, sandbox: Sandbox) -> None:
        state = sandbox.state
        shares_pids = sandbox.config.linux.security_context.namespace_options.pid == POD
        if shares_pids and not state.pause_pid and not state.ready:
            found = find_processes(
                pause.NAME, sandbox.id
            )  # a Berg that was killed at the wrong moment could not note it
        else:
            found = [state.pause_pid] if is_alive(state.pause_pid, state.pause_start) else []
        for pid in found:
            os.kill(pid, signal.SIGKILL)
            # Its end waits for the reaping of every process that was in the namespace, also by others: not our concern.
            threading.Thread(target=_reap, args=(pid,), daemon=True).start()
        state.pause_pid = 0
        await self._launcher.call(self.pins(sandbox.id).remove)

    def _forget(self, sandbox: Sandbox) -> None:
        self._names.pop(_name(sandbox.config), None)
        self.records.remove(sandbox.id)

    def _check_name(self, config: pb.PodSandboxConfig) -> None:
        if not config.metadata.name or not config.metadata.namespace:
            raise CRIError(Code.INVALID_ARGUMENT, "sandbox config must include metadata with name and namespace")
        if config.linux.security_context.namespace_options.userns_options.mode == POD and (
            config.linux.security_context.namespace_options.HasField("userns_options")
        ):
            raise CRIError(Code.UNIMPLEMENTED, "user namespaces are not supported by this runtime")
        other = self._names.get(_name(config))
        if other is not None:
            text = f"failed to reserve sandbox name {'_'.join(map(str, _name(config)))!r}: is reserved for {other!r}"
            raise CRIError(Code.UNKNOWN, text)

    def _write_etc(self, sandbox: Sandbox) -> None:
        etc, config = self.etc(sandbox.id), sandbox.config
        os.makedirs(etc, mode=0o755, exist_ok=True)
        os.chmod(self.records.root, 0o711)
        _write(os.path.join(etc, "hostname"), (config.hostname or os.uname().nodename) + "\n")
        dns = config.dns_config
        if config.HasField("dns_config") and (dns.servers or dns.searches or dns.options):
            text = ""
            if dns.searches:
                text += f"search {' '.join(dns.searches)}\n"
            text += "".join(f"nameserver {server}\n" for server in dns.servers)
            if dns.options:
                text += f"options {' '.join(dns.options)}\n"
        else:
            try:
                with open("/etc/resolv.conf") as file:
                    text = file.read()
            except OSError:
                text = ""
        _write(os.path.join(etc, "resolv.conf"), text)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # a child of an earlier Berg: init reaps it


def _name(config: pb.PodSandboxConfig) -> tuple[str, str, str, int]:
    metadata = config.metadata
    return metadata.name, metadata.namespace, metadata.uid, metadata.attempt


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o644)


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []
