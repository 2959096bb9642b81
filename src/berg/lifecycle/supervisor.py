"""Keeps a cluster's processes alive: the smallest program of Berg, standard library only.

    python -m berg.lifecycle.supervisor DATA_DIR ROLE...

It starts one process for each role and starts again what ends, with a growing pause. It locks the data directory
itself while it lives, so two can't serve one, whatever is deleted in it, and writes `run/ROLE.pid`; where such a file
is gone, the process is found by its command line. SIGHUP writes the files anew. Each process watches its supervisor in
turn (`guard`): when that is killed, one of them starts a new supervisor, which takes over the processes it finds.
SIGTERM ends all, in the reverse order of their start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 30.0
"""What has run this long counts as healthy: the next pause is the shortest again."""
_STOP_S = 20.0


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def read_pid(path: Path) -> int | None:
    """The process written in a pid file, when it is still the same one (told by its start time)."""
    try:
        pid, started = path.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if alive(int(pid)) and _start_time(int(pid)) == started else None


def process_of(module: str, *arguments: str) -> int | None:
    """A process of this user that runs `python -m MODULE ARGUMENTS…`: found by that alone, without any file."""
    wanted = [os.fsencode(part) for part in ("-m", module, *arguments)]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parts = (entry / "cmdline").read_bytes().split(b"\0")
            ours = entry.stat().st_uid == os.geteuid()
        except OSError:
            continue
        if ours and parts[1 : 1 + len(wanted)] == wanted and alive(int(entry.name)):
            return int(entry.name)
    return None


def write_pid(path: Path, pid: int) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(f"{pid} {_start_time(pid)}")
    temporary.replace(path)


def _start_time(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


@dataclass
class Child:
    role: str
    pid: int = 0
    pidfd: int = -1
    started: float = 0.0
    pause: float = _FIRST_PAUSE_S
    due: float = 0.0
    restarts: int = 0

    @property
    def running(self) -> bool:
        return self.pidfd >= 0


@dataclass
class Supervisor:
    root: Path
    roles: list[str]
    children: list[Child] = field(default_factory=list)
    stopping: bool = False

    def run(self) -> int:
        self.root.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # another supervisor was quicker
        self._write_pids()
        wake, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._write_pids)
        self.children = [Child(role) for role in self.roles]
        for child in self.children:
            self._adopt_or_start(child)
        while not self.stopping:
            self._turn(wake)
        self._end_all()
        (self.root / "run" / "supervisor.pid").unlink(missing_ok=True)
        return 0

    def _write_pids(self, *_: object) -> None:
        run = self.root / "run"
        run.mkdir(parents=True, exist_ok=True)
        write_pid(run / "supervisor.pid", os.getpid())
        for child in self.children:
            if child.running:
                write_pid(run / f"{child.role}.pid", child.pid)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _turn(self, wake: int) -> None:
        """Waits until a child ends, a pause is over, or a signal comes."""
        waiting = {c.pidfd: c for c in self.children if c.running}
        pauses = [c.due - time.monotonic() for c in self.children if not c.running]
        timeout = max(0.0, min(pauses)) if pauses else None
        ready, _, _ = select.select([wake, *waiting], [], [], timeout)
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 512)
        for fd in ready:
            if fd in waiting:
                self._ended(waiting[fd])
        for child in self.children:
            if not self.stopping and not child.running and child.due <= time.monotonic():
                self._start(child)

    def _adopt_or_start(self, child: Child) -> None:
        path = self.root / "run" / f"{child.role}.pid"
        pid = read_pid(path)
        if pid is None and (pid := process_of("berg.cli.role", child.role, str(self.root))):
            write_pid(path, pid)
        if pid is None:
            self._start(child)
            return
        child.pid, child.pidfd, child.started = pid, os.pidfd_open(pid), time.monotonic()
        self._say(f"{child.role}: took over process {pid}")

    def _start(self, child: Child) -> None:
        for name in ("run", "logs"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        log = os.open(self.root / "logs" / f"{child.role}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        with open(os.devnull, "rb") as nothing:
            process = subprocess.Popen(
                [sys.executable, "-m", "berg.cli.role", child.role, str(self.root)],
                stdin=nothing,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.close(log)
        process.returncode = 0  # reaped by _ended, not by Popen
        child.pid, child.pidfd, child.started = process.pid, os.pidfd_open(process.pid), time.monotonic()
        write_pid(self.root / "run" / f"{child.role}.pid", process.pid)

    def _ended(self, child: Child) -> None:
        os.close(child.pidfd)
        child.pidfd = -1
        code = "?"
        with contextlib.suppress(ChildProcessError):  # an adopted process is not ours to wait for
            code = str(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
        if self.stopping:
            return
        steady = time.monotonic() - child.started > _STEADY_S
        child.pause = _FIRST_PAUSE_S if steady else min(child.pause * 2, _LONGEST_PAUSE_S)
        child.due = time.monotonic() + child.pause
        child.restarts += 1
        self._say(f"{child.role}: process {child.pid} ended ({code}); starting it again in {child.pause:.1f} s")

    def _end_all(self) -> None:
        for child in reversed(self.children):
            if not child.running:
                continue
            _signal(child.pidfd, signal.SIGTERM)
            if not select.select([child.pidfd], [], [], _STOP_S)[0]:
                self._say(f"{child.role}: did not end in {_STOP_S:.0f} s, killed")
                _signal(child.pidfd, signal.SIGKILL)
                select.select([child.pidfd], [], [], 5)
            self._ended(child)
            (self.root / "run" / f"{child.role}.pid").unlink(missing_ok=True)

    def _say(self, message: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        with contextlib.suppress(OSError), (self.root / "logs" / "supervisor.log").open("a") as log:
            log.write(f"{stamp}Z {message}\n")


def _signal(pidfd: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def spawn(root: Path, roles: list[str]) -> None:
    """Starts a supervisor that outlives this process."""
    (root / "logs").mkdir(parents=True, exist_ok=True)
    with (root / "logs" / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "berg.lifecycle.supervisor", str(root), *roles],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    process.returncode = 0  # it is meant to outlive us: no warning about it


def main() -> int:
    return Supervisor(Path(sys.argv[1]), sys.argv[2:]).run()


if __name__ == "__main__":
    sys.exit(main())
