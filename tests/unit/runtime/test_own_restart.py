"""Containers and their logs survive the node agent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.own import containers, sandboxes
from berg.runtime.own.config import OwnConfig

from .conftest import REPOSITORY
from .harness import Harness, leftovers, read, write

pytestmark = pytest.mark.root


class Killed:
    """A harness whose first life was another process, killed with SIGKILL."""

    def __init__(self, tmp_path: Path, archive: Path, *command: str) -> None:
        self.config = OwnConfig(
            str(tmp_path / "root"), str(tmp_path / "state"), default_cgroup_parent=f"/{tmp_path.name}"
        )
        arguments = [self.config.root, self.config.state, str(archive), self.config.default_cgroup_parent, *command]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.runtime.agent_process", *arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.id = self.process.stdout.readline().strip()
        assert len(self.id) == 64 or self.id == "ready"

    def shm(self) -> Path:
        return next(Path(self.config.state, "ns").iterdir()) / "shm"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


COUNT = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; [ $((i % 100)) = 0 ] && sleep 0.02; done; exit 9"


@pytest.mark.parametrize("moment_s", [0.011, 0.057, 0.131, 0.293])
async def test_killed_in_the_middle_of_things_nothing_is_left_over(
    tmp_path: Path, busybox: Path, moment_s: float
) -> None:
    killed = Killed(tmp_path, busybox)
    await asyncio.sleep(moment_s)
    killed.kill()
    harness = Harness(killed.config)
    await harness.start()
    try:
        containers = (await harness.runtime.list_containers(pb.ListContainersRequest())).containers
        for container in containers:
            if container.state == pb.CONTAINER_RUNNING:
                assert (await harness.ended(container.id)).exit_code in (3, 137)
        await harness.remove_all()
        needles = (killed.config.root, killed.config.state, killed.config.default_cgroup_parent + "/")
        await harness.until(lambda: not leftovers(*needles))
        for directory in ("sandboxes", "containers"):
            assert os.listdir(killed.config.under_root(directory)) == []
        for directory in ("ns", "io", "events"):
            path = killed.config.under_state(directory)
            assert directory not in os.listdir(killed.config.state) or os.listdir(path) == []
    finally:
        await harness.stop()


async def test_a_running_container_goes_on_and_no_line_is_lost(tmp_path: Path, busybox: Path) -> None:
    killed = Killed(tmp_path, busybox, "sh", "-c", COUNT)
    killed.kill()
    harness = Harness(killed.config)
    await harness.start()
    try:
        assert (await harness.status(killed.id)).state in (pb.CONTAINER_RUNNING, pb.CONTAINER_EXITED)
        status = await harness.ended(killed.id)
        assert (status.exit_code, status.reason) == (9, "Error")
        text = "".join(content for *_, content in harness.log(status))
        assert text == "".join(f"line {i + 1}\n" for i in range(2000))
    finally:
        await harness.remove_all()
        await harness.stop()


async def test_a_container_that_ends_while_nobody_looks(tmp_path: Path, busybox: Path) -> None:
    killed = Killed(tmp_path, busybox, "sh", "-c", "while [ ! -e /dev/shm/go ]; do sleep 0.01; done; echo done; exit 4")
    killed.kill()
    write(killed.shm() / "go")
    exit_file = Path(killed.config.state, "events", f"{killed.id}.exit")
    harness = Harness(killed.config)
    await harness.until(exit_file.exists)
    await harness.start()
    try:
        status = await harness.ended(killed.id)
        assert status.exit_code == 4
        assert status.finished_at == os.stat(exit_file).st_mtime_ns
        assert [content for *_, content in harness.log(status)] == ["done\n"]
    finally:
        await harness.remove_all()
        await harness.stop()


async def test_a_found_container_can_be_used_as_before(tmp_path: Path, busybox: Path) -> None:
    killed = Killed(tmp_path, busybox, "sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.01; done")
    killed.kill()
    harness = Harness(killed.config)
    await harness.start()
    try:
        assert (await harness.exec(killed.id, "echo", "hello")).stdout == b"hello\n"
        await harness.runtime.stop_container(pb.StopContainerRequest(container_id=killed.id, timeout=10))
        assert (await harness.status(killed.id)).exit_code == 6
    finally:
        await harness.remove_all()
        await harness.stop()


@pytest.mark.parametrize("victim", ["crun", "berg-monitor"])
async def test_who_kills_the_monitors_does_not_kill_the_container(harness: Harness, victim: str) -> None:
    id = await harness.run("sh", "-c", "echo one; while [ ! -e /dev/shm/go ]; do sleep 0.01; done; echo two")
    monitor = harness.runtime.containers.get(id).state.monitor_pid
    children = read(Path(f"/proc/{monitor}/task/{monitor}/children")).split()
    os.kill(int(children[0]) if victim == "crun" else monitor, signal.SIGKILL)
    await harness.until(lambda: "one" in read(Path(harness.log_path(id))))
    if victim == "crun":
        # The monitor believes that the container has ended; Berg knows better once it has looked.
        await harness.until(lambda: id in harness.runtime.containers._ending)
    assert (await harness.status(id)).state == pb.CONTAINER_RUNNING
    write(harness.shm(id) / "go")
    status = await harness.ended(id)
    assert (status.exit_code, status.reason) == (255, "Unknown")
    assert [content for *_, content in harness.log(status)] == ["one\n", "two\n"]


async def test_after_a_reboot_nothing_runs(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await harness.sandbox()
    id = await harness.run("sleep", "1000", sandbox=sandbox)
    ended = await harness.run("sh", "-c", "exit 3", sandbox=sandbox)
    await harness.ended(ended)
    for module in (containers, sandboxes):
        monkeypatch.setattr(module, "boot_id", lambda: "another")
    await harness.restart()
    status = await harness.status(id)
    assert (status.state, status.exit_code, status.reason) == (pb.CONTAINER_EXITED, 255, "Unknown")
    assert (await harness.status(ended)).exit_code == 3
    request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox[0])
    assert (await harness.runtime.pod_sandbox_status(request)).status.state == pb.SANDBOX_NOTREADY


async def test_what_was_interrupted_before_anyone_was_told_is_cleared_away(harness: Harness) -> None:
    half = Path(harness.config.under_root("containers", "f" * 64))
    write(half / "config.pb", "nonsense")
    pins = Path(harness.config.under_state("ns", "e" * 64))
    os.makedirs(pins)
    await harness.restart()
    assert not read(half / "config.pb") and pins.name not in os.listdir(harness.config.under_state("ns"))
    assert not (await harness.runtime.list_containers(pb.ListContainersRequest())).containers
