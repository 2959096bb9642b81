"""The supervisor with real, tiny processes in the place of the roles."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from berg.lifecycle import supervisor
from berg.lifecycle.registry import supervisor_of
from berg.lifecycle.supervisor import read_pid, write_pid


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A directory whose supervisor runs `sleep` for every role."""
    package = tmp_path / "fake" / "berg" / "cli"
    package.mkdir(parents=True)
    for p in (package, package.parent):
        (p / "__init__.py").touch()
    (package / "role.py").write_text("import signal; signal.pause()\n")
    lifecycle = package.parent / "lifecycle"
    lifecycle.mkdir()
    (lifecycle / "__init__.py").touch()
    (lifecycle / "supervisor.py").write_text(Path(supervisor.__file__).read_text())
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    yield data
    for path in (data / "run").glob("*.pid"):
        if pid := read_pid(path):
            os.kill(pid, signal.SIGKILL)


def start(root: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(root.parent / "fake")}
    return subprocess.Popen([sys.executable, "-m", "berg.lifecycle.supervisor", str(root), "a", "b"], env=environment)


def wait_for(root: Path, role: str, other_than: int | None = None) -> int:
    """The process of a role, once there is one (a new one)."""
    tick = threading.Event()
    for _ in range(500):
        pid = read_pid(root / "run" / f"{role}.pid")
        if pid and pid != other_than:
            return pid
        tick.wait(0.02)
    pytest.fail(f"no process for {role}")


def test_it_starts_restarts_and_ends_its_roles(root: Path) -> None:
    process = start(root)
    a, b = wait_for(root, "a"), wait_for(root, "b")
    os.kill(a, signal.SIGKILL)
    again = wait_for(root, "a", other_than=a)
    assert wait_for(root, "b") == b
    process.terminate()
    assert process.wait(20) == 0
    assert not supervisor.alive(again)
    assert not supervisor.alive(b)
    assert not list((root / "run").glob("*.pid"))
    assert "starting it again" in (root / "logs" / "supervisor.log").read_text()


def test_a_second_one_leaves_at_once(root: Path) -> None:
    first = start(root)
    wait_for(root, "b")
    assert start(root).wait(10) == 0
    assert first.poll() is None
    first.terminate()
    first.wait(20)


def test_a_new_one_takes_over_what_runs(root: Path) -> None:
    first = start(root)
    a, b = wait_for(root, "a"), wait_for(root, "b")
    first.kill()
    first.wait()
    second = start(root)
    wait_for(root, "supervisor", other_than=first.pid)
    assert (wait_for(root, "a"), wait_for(root, "b")) == (a, b)
    second.terminate()
    assert second.wait(20) == 0
    assert not supervisor.alive(a)


def test_a_pid_file_of_another_process_is_not_believed(tmp_path: Path) -> None:
    write_pid(tmp_path / "x.pid", os.getpid())
    assert read_pid(tmp_path / "x.pid") == os.getpid()
    (tmp_path / "x.pid").write_text(f"{os.getpid()} 12345")
    assert read_pid(tmp_path / "x.pid") is None
    (tmp_path / "x.pid").write_text("nonsense")
    assert read_pid(tmp_path / "x.pid") is None


def test_run_may_be_deleted_under_a_live_cluster(root: Path) -> None:
    first = start(root)
    a = wait_for(root, "a")
    wait_for(root, "b")
    shutil.rmtree(root / "run")
    assert start(root).wait(10) == 0, "a second one is still kept out"
    assert supervisor_of(root) == first.pid
    first.send_signal(signal.SIGHUP)
    assert wait_for(root, "a") == a
    first.terminate()
    assert first.wait(20) == 0
    assert supervisor_of(root) is None


def test_what_runs_is_found_without_its_files(root: Path) -> None:
    first = start(root)
    a, b = wait_for(root, "a"), wait_for(root, "b")
    first.kill()
    first.wait()
    shutil.rmtree(root / "run")
    second = start(root)
    assert (wait_for(root, "a"), wait_for(root, "b")) == (a, b)
    second.terminate()
    assert second.wait(20) == 0
    assert not supervisor.alive(a)
