"""What exists only while a container's process lives and this Berg looks after it: the log pumps, the terminal, a
handle to the process. Made when a container starts, and anew, from the pipes, by a Berg that comes later.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from berg.runtime.own import syscalls as sc
from berg.runtime.own.inflight import InFlight
from berg.runtime.own.logs import CHUNK, LogFile, LogPump
from berg.runtime.own.monitor import PTY_FD, Streams
from berg.runtime.own.processes import is_alive
from berg.runtime.own.state import ContainerState

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Running:
    streams: Streams
    log: LogFile
    pumps: dict[str, LogPump] = field(default_factory=dict)
    pty: int = -1
    pidfd: int = -1
    exited: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def attach(cls, streams: Streams, log_path: str, monitor_pid: int, pty: int = -1) -> Running:
        """Takes hold of the streams; `pty` is the terminal when it was just made. A stream that is lost is done
        without: better no log than no container."""
        running = cls(streams, LogFile(log_path))
        try:
            running.log.open()
        except OSError as error:
            log.warning("no container log: %s", error)
        for name in ("stdout",) if streams.tty else ("stdout", "stderr"):
            try:
                if streams.tty:
                    running.pty = pty if pty >= 0 else _pty_of(monitor_pid)
                    fd = os.dup(running.pty)
                else:
                    fd = os.open(streams.path(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                log.warning("%s of a container is lost: %s", name, error)
                continue
            running.pumps[name] = pump = LogPump(fd, name, running.log, _flight(streams.path(f"{name}.read")))
            pump.start()
        return running

    def watch(self, state: ContainerState, on_end: Callable[[], None]) -> bool:
        """Sees the process end, also when its monitor is gone and no file will tell. False: it has ended already."""
        if self.pidfd >= 0:
            return True
        try:
            self.pidfd = os.pidfd_open(state.pid)
        except OSError:
            return False
        if not is_alive(state.pid, state.pid_start):
            return False  # the number is somebody else's by now, or its last moment has come
        asyncio.get_running_loop().add_reader(self.pidfd, on_end)
        return True

    def unwatch(self) -> None:
        if self.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self.pidfd)

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                pass

    def drain(self) -> None:
        """The last of the log; for when the writers are gone."""
        for pump in self.pumps.values():
            pump.drain()

    def close(self) -> None:
        """Lets go of everything; what runs goes on."""
        for pump in self.pumps.values():
            pump.close()
        self.log.close()
        self.unwatch()
        for fd in (self.pidfd, self.pty):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.pty = -1


def _flight(path: str) -> InFlight | None:
    try:
        return InFlight(path, CHUNK)
    except OSError as error:
        log.warning("what is being read would be lost if Berg were killed: %s", error)
        return None


def _pty_of(monitor_pid: int) -> int:
    pidfd = os.pidfd_open(monitor_pid)
    try:
        return sc.pidfd_getfd(pidfd, PTY_FD)
    finally:
        os.close(pidfd)
