"""A few words to drive a runtime with, by CRI alone."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.network import PodNetwork, PodNetworkRequest, PodNetworkResult
from berg.runtime.own import cgroups
from berg.runtime.own.config import OwnConfig
from berg.runtime.own.runtime import BergRuntime

IMAGE = "example.org/busybox:test"


class NoNetwork:
    """Connects nobody to anything."""

    async def setup(self, request: PodNetworkRequest) -> PodNetworkResult:
        return PodNetworkResult(["192.0.2.1"])

    async def teardown(self, request: PodNetworkRequest) -> None: ...

    async def status(self) -> str | None:
        return None


class Harness:
    def __init__(self, config: OwnConfig, network: PodNetwork | None = None) -> None:
        self.config = config
        self.network = network or NoNetwork()
        self.logs = Path(config.root) / "logs"
        self._numbers = itertools.count()
        self.runtime = BergRuntime(config, self.network)

    async def start(self) -> None:
        await self.runtime.start()

    async def stop(self) -> None:
        await self.runtime.stop()

    async def restart(self) -> None:
        """As another process would begin."""
        await self.stop()
        self.runtime = BergRuntime(self.config, self.network)
        await self.start()

    async def sandbox(self, **fields: Any) -> tuple[str, pb.PodSandboxConfig]:
        number = next(self._numbers)
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=f"pod{number}", namespace="test", uid=f"uid{number}"),
            hostname=f"pod{number}",
            log_directory=str(self.logs),
        )
        config.linux.security_context.namespace_options.pid = pb.CONTAINER
        config.MergeFrom(pb.PodSandboxConfig(**fields))
        response = await self.runtime.run_pod_sandbox(pb.RunPodSandboxRequest(config=config))
        return response.pod_sandbox_id, config

    async def create(
        self,
        sandbox: tuple[str, pb.PodSandboxConfig],
        *command: str,
        adjust: Callable[[pb.ContainerConfig], object] = lambda _: None,
    ) -> str:
        number = next(self._numbers)
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=f"c{number}"),
            image=pb.ImageSpec(image=IMAGE),
            command=command,
            log_path=f"c{number}.log",
        )
        config.linux.security_context.namespace_options.CopyFrom(sandbox[1].linux.security_context.namespace_options)
        adjust(config)
        request = pb.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=config, sandbox_config=sandbox[1])
        return (await self.runtime.create_container(request)).container_id

    async def run(self, *command: str, **options: Any) -> str:
        """A container that has started, in a sandbox of its own unless one is given."""
        sandbox = options.pop("sandbox", None) or await self.sandbox()
        id = await self.create(sandbox, *command, **options)
        await self.runtime.start_container(pb.StartContainerRequest(container_id=id))
        return id

    async def status(self, id: str) -> pb.ContainerStatus:
        return (await self.runtime.container_status(pb.ContainerStatusRequest(container_id=id))).status

    async def ended(self, id: str, timeout_s: float = 20) -> pb.ContainerStatus:
        await self.until(lambda: self._exited(id), timeout_s)
        return await self.status(id)

    async def until(self, true: Callable[[], Any], timeout_s: float = 20) -> None:
        """Waits for something that the machine does by itself."""
        deadline = time.monotonic() + timeout_s
        while True:
            result = true()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            assert time.monotonic() < deadline, "it did not come true in time"
            await asyncio.sleep(0.005)

    async def exec(self, id: str, *command: str, timeout: int = 10) -> pb.ExecSyncResponse:
        return await self.runtime.exec_sync(pb.ExecSyncRequest(container_id=id, cmd=command, timeout=timeout))

    async def output(self, *command: str, **options: Any) -> str:
        """What a container writes to its standard output until it ends."""
        id = await self.run(*command, **options)
        status = await self.ended(id)
        return "".join(content for _, stream, _, content in self.log(status) if stream == "stdout")

    def log(self, status: pb.ContainerStatus) -> list[tuple[str, str, str, str]]:
        """(time, stream, tag, content with its newline if it is whole) of each record."""
        records = []
        for line in Path(status.log_path).read_text().splitlines():
            time_, stream, tag, content = line.split(" ", 3)
            records.append((time_, stream, tag, content + ("\n" if tag == "F" else "")))
        return records

    def log_path(self, id: str) -> str:
        return str(self.logs / self.runtime.containers.get(id).config.log_path)

    def shm(self, id: str) -> Path:
        """The /dev/shm of a container's pod, seen from outside."""
        return Path(self.config.state, "ns", self.runtime.containers.get(id).state.sandbox_id, "shm")

    async def remove_all(self) -> None:
        for sandbox in (await self.runtime.list_pod_sandbox(pb.ListPodSandboxRequest())).items:
            await self.runtime.remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id))
        cgroups.remove(self.config.default_cgroup_parent)  # a kubelet's part

    async def _exited(self, id: str) -> bool:
        return (await self.status(id)).state == pb.CONTAINER_EXITED


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def leftovers(*needles: str) -> list[str]:
    """Mounts, processes and cgroups that name one of the needles."""
    found = []
    with open("/proc/self/mountinfo") as file:
        found += [line for line in file if any(needle in line for needle in needles)]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(pid) != os.getpid() and any(needle in command for needle in needles):
            found.append(f"process {pid}: {command}")
    for folder, _, _ in os.walk("/sys/fs/cgroup"):
        if any(needle in folder for needle in needles):
            found.append(folder)
    return found
