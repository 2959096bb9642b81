"""Figures of containers and pods, from their cgroups, the file system and the pod's network devices."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.own import cgroups
from berg.runtime.own.launcher import Launcher, in_namespace
from berg.runtime.own.sandboxes import NODE, Sandboxes
from berg.runtime.own.state import Container, Sandbox

if TYPE_CHECKING:
    from berg.runtime.own.containers import Containers


FILESYSTEM_LIFE_S = 10.0
"""As old as upstream's runtimes let these figures become."""


class Stats:
    def __init__(self, containers: Containers, sandboxes: Sandboxes) -> None:
        self._containers = containers
        self._sandboxes = sandboxes
        self._filesystems: dict[str, tuple[float, pb.FilesystemUsage]] = {}
        self._last_cpu: dict[str, tuple[int, int, int]] = {}

    def container(self, container: Container) -> pb.ContainerStats:
        usage = cgroups.usage(container.state.cgroup)
        now = time.time_ns()
        config = container.config
        stats = pb.ContainerStats(
            attributes=pb.ContainerAttributes(
                id=container.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
            ),
            cpu=self._cpu(container.id, usage, now),
            memory=memory(usage, now),
            writable_layer=self.filesystem(self._containers.bundle(container.id).load_rootfs().upper),
            swap=pb.SwapUsage(timestamp=now),
        )
        _put(stats.swap.swap_usage_bytes, usage.swap_usage)
        return stats

    async def sandbox(self, sandbox: Sandbox, launcher: Launcher) -> pb.PodSandboxStats:
        config = sandbox.config
        usage = cgroups.usage(sandbox.state.cgroup_parent)
        now = time.time_ns()
        stats = pb.PodSandboxStats(
            attributes=pb.PodSandboxAttributes(
                id=sandbox.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
            ),
            linux=pb.LinuxPodSandboxStats(
                cpu=self._cpu(sandbox.id, usage, now),
                memory=memory(usage, now),
                process=pb.ProcessUsage(timestamp=now),
            ),
        )
        _put(stats.linux.process.process_count, usage.processes)
        if config.linux.security_context.namespace_options.network != NODE:
            path = self._sandboxes.pins(sandbox.id).path("net")
            try:
                stats.linux.network.CopyFrom(await launcher.call(lambda: network(path)))
            except OSError:
                pass  # the sandbox is being stopped
        for container in self._containers.records.all.values():
            if container.state.sandbox_id == sandbox.id and container.state.state == "running":
                stats.linux.containers.append(self.container(container))
        return stats

    def filesystem(self, directory: str) -> pb.FilesystemUsage:
        """Looking through a directory is dear, so what was seen is good for a while."""
        now = time.monotonic()
        at, usage = self._filesystems.get(directory, (0.0, None))
        if usage is None or now - at > FILESYSTEM_LIFE_S:
            usage = filesystem(directory)
            if len(self._filesystems) > 2000:
                self._filesystems.clear()
            self._filesystems[directory] = (now, usage)
        return usage

    def _cpu(self, id: str, usage: cgroups.Usage, now: int) -> pb.CpuUsage:
        """The rate is over the time since somebody last asked, if that was a second ago or more."""
        message = pb.CpuUsage(timestamp=now)
        if usage.cpu_ns is None:
            return message
        message.usage_core_nano_seconds.value = usage.cpu_ns
        at, total, rate = self._last_cpu.get(id, (0, 0, 0))
        if now - at >= 1_000_000_000:
            rate = (usage.cpu_ns - total) * 1_000_000_000 // (now - at) if at else 0
            self._last_cpu[id] = (now, usage.cpu_ns, max(0, rate))
            if len(self._last_cpu) > 10_000:
                self._last_cpu.clear()
        message.usage_nano_cores.value = max(0, rate)
        return message


def memory(usage: cgroups.Usage, now: int) -> pb.MemoryUsage:
    message = pb.MemoryUsage(timestamp=now)
    for field, value in (
        ("working_set_bytes", usage.memory_working_set),
        ("available_bytes", usage.memory_available),
        ("usage_bytes", usage.memory_usage),
        ("rss_bytes", usage.memory_rss),
        ("page_faults", usage.page_faults),
        ("major_page_faults", usage.major_page_faults),
    ):
        _put(getattr(message, field), value)
    return message


def filesystem(directory: str) -> pb.FilesystemUsage:
    """Bytes and inodes below a directory, each file counted once."""
    used = 0
    inodes: set[int] = set()
    stack = [directory]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if status.st_ino not in inodes:
                        inodes.add(status.st_ino)
                        used += status.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
        except OSError:
            continue  # it went away while we looked
    return pb.FilesystemUsage(
        timestamp=time.time_ns(),
        fs_id=pb.FilesystemIdentifier(mountpoint=directory),
        used_bytes=pb.UInt64Value(value=used),
        inodes_used=pb.UInt64Value(value=len(inodes)),
    )


def network(netns: str) -> pb.NetworkUsage:
    """For the launcher thread."""
    with in_namespace(netns, "net"), open("/proc/thread-self/net/dev") as file:
        lines = file.read().splitlines()[2:]
    message = pb.NetworkUsage(timestamp=time.time_ns())
    for line in lines:
        name, _, figures = line.partition(":")
        numbers = [int(number) for number in figures.split()]
        if name.strip() == "lo":
            continue
        message.interfaces.append(
            pb.NetworkInterfaceUsage(
                name=name.strip(),
                rx_bytes=pb.UInt64Value(value=numbers[0]),
                rx_errors=pb.UInt64Value(value=numbers[2]),
                tx_bytes=pb.UInt64Value(value=numbers[8]),
                tx_errors=pb.UInt64Value(value=numbers[10]),
            )
        )
    for interface in message.interfaces:
        if interface.name == "eth0" or len(message.interfaces) == 1:
            message.default_interface.CopyFrom(interface)
    return message


def _put(field: pb.UInt64Value, value: int | None) -> None:
    if value is not None:
        field.value = value
