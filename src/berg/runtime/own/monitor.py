"""The monitor: what keeps a container when Berg is gone.

A container's first process is a child of the OCI runtime (`crun run`, in the foreground), and that of a shell:

    sh monitor ─ crun run ─ the container's process

Together they cost about half a megabyte of their own. They hold what must not be lost when the node agent is killed:
the exit code, and the ends of the container's standard streams, so that nothing that was written is lost and no
write fails. The streams are named pipes opened for reading and writing: whoever reads the log may go and come back.

Berg learns of two facts through files in one directory that it watches:

    EVENTS/ID.pid     the container's process has started (written by the OCI runtime)
    EVENTS/ID.exit    it has ended, with this status; the file's time is the time of the end

After that the monitor waits for a line on `ack`, and so keeps the pipes until their last byte is in the log.

A killed monitor harms nobody: the container goes on, its pipes are its own, only the exit code is unknown then.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import signal
import struct
import time
import tty
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from berg.runtime.own.processes import children, find_processes, is_alive, process_start
from berg.runtime.own.state import ContainerState

# $1 the directory of the pipes, $2 the file for the exit status, then the command of the OCI runtime.
# What the shell itself has to say (that a child was killed) is not for the container's log: it gets another stderr.
# A closed standard input is announced by closing the pipe's last writer, which therefore is a process of its own.
SCRIPT = """\
if [ -p "$1/stdin" ]; then
  { read _ <&4; } 3<>"$1/stdin" 4<>"$1/hangup" 5>&- 6>&- </dev/null >/dev/null 2>&1 &
  exec <"$1/stdin"
fi
exit=$2 dir=$1
shift 2
exec 7>&2 2>/dev/null
(exec 2>&7 5>&- 6>&- 7>&-; exec "$@")
echo $? >"$exit"
[ -p "$dir/hangup" ] && echo 1<>"$dir/hangup"
read _ <&5
"""

NAME = "berg-monitor"
PTY_FD = 6
ACK_FD = 5


@dataclass(frozen=True, slots=True)
class Streams:
    """The files through which one container's standard streams run, all in `directory`."""

    directory: str
    tty: bool
    stdin: bool

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def make(self) -> None:
        os.makedirs(self.directory, exist_ok=True)
        names = ["ack"]
        if not self.tty:
            names += ["stdout", "stderr"]
            if self.stdin:
                names += ["stdin", "hangup"]
        for name in names:
            try:
                os.mkfifo(self.path(name), 0o600)
            except FileExistsError:
                pass

    def acknowledge(self) -> None:
        """Lets the monitor go."""
        self._say("ack")

    def hang_up(self) -> None:
        """Ends the container's standard input."""
        self._say("hangup")

    def _say(self, name: str) -> None:
        try:
            fd = os.open(self.path(name), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                return  # nobody listens: the monitor is gone
            raise
        try:
            os.write(fd, b"\n")
        finally:
            os.close(fd)


@dataclass(slots=True)
class Spawned:
    pid: int
    pty: int = -1
    """The pseudo-terminal's master side, for a container with a terminal."""


def install(path: str) -> None:
    """Writes the monitor's program. Running monitors have the old file open, so it is replaced, never changed."""
    with open(path + ".new", "w") as file:
        file.write(SCRIPT)
    os.replace(path + ".new", path)


def spawn(
    program: str, streams: Streams, exit_file: str, command: Sequence[str], environment: Mapping[str, str]
) -> Spawned:
    """Starts a monitor that runs `command`. The caller's namespaces are inherited; the caller reaps the process."""
    argv = [NAME, program, streams.directory, exit_file, *command]
    ack = (os.POSIX_SPAWN_OPEN, ACK_FD, streams.path("ack"), os.O_RDWR, 0)
    if not streams.tty:
        actions: list[tuple] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, streams.path("stdout"), os.O_RDWR, 0),
            (os.POSIX_SPAWN_OPEN, 2, streams.path("stderr"), os.O_RDWR, 0),
            ack,
        ]
        return Spawned(os.posix_spawn("/bin/sh", argv, environment, file_actions=actions, setsid=True))
    # The OCI runtime copies between the container's own terminal and this outer one, which the monitor keeps open.
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        actions = [
            (os.POSIX_SPAWN_DUP2, slave, 0),
            (os.POSIX_SPAWN_DUP2, slave, 1),
            (os.POSIX_SPAWN_DUP2, slave, 2),
            ack,
            (os.POSIX_SPAWN_DUP2, master, PTY_FD),
        ]
        pid = os.posix_spawn("/bin/sh", argv, environment, file_actions=actions, setsid=True)
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return Spawned(pid, master)


def end_monitors(state: ContainerState, streams: Streams) -> None:
    """For the monitor of a container that never came to run, or whose start nobody could note: a Berg that is killed at
    the wrong moment leaves one that nobody will ever acknowledge."""
    if is_alive(state.monitor_pid, state.monitor_start):
        monitors = [state.monitor_pid]
    elif state.boot_id and not state.monitor_pid:
        monitors = find_processes(NAME, streams.directory)
    else:
        return
    streams.acknowledge()
    for attempt in range(100):
        monitors = [pid for pid in monitors if process_start(pid)]
        if not monitors:
            return
        if attempt == 50:
            for pid in monitors:
                for victim in (*children(pid), pid):
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
        time.sleep(0.01)


class EventFiles:
    """Watches the directory of `ID.pid` and `ID.exit`; tells of each file once it is written whole."""

    _IN_CLOSE_WRITE = 0x8
    _IN_MOVED_TO = 0x80
    _HEADER = struct.Struct("iIII")

    def __init__(self, directory: str, on_file: Callable[[str, str], None]) -> None:
        self.directory = directory
        self._on_file = on_file
        self._fd = -1

    def start(self) -> None:
        """What is there already is reported by `existing()`, and nothing is missed between the two if this comes
        first."""
        os.makedirs(self.directory, exist_ok=True)
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = self._IN_CLOSE_WRITE | self._IN_MOVED_TO
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(self.directory), mask) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}", self.directory)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def stop(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def existing(self) -> list[tuple[str, str]]:
        names = (name.rpartition(".") for name in os.listdir(self.directory))
        return [(id, kind) for id, _, kind in names if id and kind in ("pid", "exit")]

    def has(self, id: str, kind: str) -> bool:
        return os.path.exists(self.path(id, kind))

    def exit_status(self, id: str) -> tuple[int, int] | None:
        """Exit code and time in nanoseconds, once the monitor has written them."""
        try:
            with open(self.path(id, "exit")) as file:
                text = file.read()
                return (int(text), os.fstat(file.fileno()).st_mtime_ns) if text.endswith("\n") else None
        except FileNotFoundError:
            return None

    def path(self, id: str, kind: str) -> str:
        return os.path.join(self.directory, f"{id}.{kind}")

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            _, _, _, length = self._HEADER.unpack_from(data, offset)
            offset += self._HEADER.size
            name = data[offset : offset + length].rstrip(b"\0").decode()
            offset += length
            id, _, kind = name.rpartition(".")
            if id and kind in ("pid", "exit"):
                self._on_file(id, kind)
