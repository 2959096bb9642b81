"""Containers: create, start, watch, stop, remove.

A container is created as a record and a bundle on disk; its process starts with StartContainer, as a child of its
monitor (`monitor.py`), not of Berg. From then on two files tell of it, and both this process and one that comes after
it learn the same from them. Everything that must not be lost is on disk before anyone is told.

    created ──start──> running ──exit file──> exited ──remove──> gone
       └──────start failed (128, StartError)────┘

What exists only while the process lives stands in `running.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berg.runtime.cri import Code, CRIError
from berg.runtime.own import cgroups
from berg.runtime.own import syscalls as sc
from berg.runtime.own.bundle import Bundle, OCIRuntime, launch
from berg.runtime.own.launcher import Launcher
from berg.runtime.own.monitor import EventFiles, Spawned, Streams, end_monitors, install
from berg.runtime.own.processes import collect_child, is_alive, process_start, readable, signal_number
from berg.runtime.own.running import Running
from berg.runtime.own.state import Container, Records, boot_id

if TYPE_CHECKING:
    from berg.runtime.api import cri_pb2 as pb
    from berg.runtime.own.images.store import ImageStore

log = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0
EXIT_PATIENCE_S = 1.0
LOST_EXIT_CODE = 255
"""The exit code when nobody saw the end: upstream's runtimes say the same."""


@dataclass(frozen=True, slots=True)
class Exit:
    code: int
    at: int
    reason: str


class Containers:
    def __init__(
        self,
        records: Records[Container],
        launcher: Launcher,
        images: ImageStore,
        state_directory: str,
        on_event: Callable[[Container, str], None],
    ) -> None:
        self.records = records
        self._launcher = launcher
        self._images = images
        self._io = os.path.join(state_directory, "io")
        self._monitor = os.path.join(state_directory, "monitor.sh")
        self._files = EventFiles(os.path.join(state_directory, "events"), self._on_file)
        self._on_event = on_event
        self._running: dict[str, Running] = {}
        self._starting: dict[str, asyncio.Future[bool]] = {}
        self._ending: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # Life of the room itself

    async def open(self) -> None:
        """Takes up what an earlier Berg left: attaches to what runs, finishes what has ended."""
        self._files.start()
        install(self._monitor)
        now_boot = boot_id()
        for container in list(self.records.all.values()):
            state = container.state
            self._images.hold_layers(container.id, self.bundle(container.id).load_rootfs().held())
            if state.state != "running" and not self._files.has(container.id, "pid"):
                continue
            if state.boot_id != now_boot:
                if state.state == "running":
                    self._lost(container)
                continue
            self._attach(container)
            if self._files.has(container.id, "exit"):
                self._end_soon(container)
            elif state.state != "running":
                self._started(container)  # Berg was killed between the start and its note of it
            else:
                self._watch(container)
        known = self.records.all
        for id, kind in self._files.existing():
            if id not in known:
                _unlink(self._files.path(id, kind))

    async def close(self) -> None:
        """Lets go of everything; the containers and their monitors go on."""
        self._files.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for id in list(self._running):
            self._detach(id)

    # What CRI asks for

    def get(self, id: str) -> Container:
        """Raises CRIError NOT_FOUND."""
        container = self.records.find(id)
        if container is None:
            text = f'an error occurred when try to find container "{id}": not found'
            raise CRIError(Code.NOT_FOUND, text)
        return container

    def running(self, id: str) -> Running | None:
        return self._running.get(id)

    def bundle(self, id: str) -> Bundle:
        return Bundle(self.records.directory(id))

    async def start(self, container: Container, runtime: OCIRuntime) -> None:
        """Returns when the container's process runs. Raises CRIError; the container is exited then."""
        async with self._lock(container.id):
            if container.state.state != "created":
                text = f'container "{container.id}" is in {container.state.state.upper()} state'
                raise CRIError(Code.FAILED_PRECONDITION, text)
            started: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._starting[container.id] = started
            try:
                await self._launch(container, runtime)
                async with asyncio.timeout(START_TIMEOUT_S):
                    running = await started
            except (OSError, TimeoutError) as error:
                await self._start_failed(container, str(error) or "timed out")
                raise CRIError(Code.UNKNOWN, f'failed to start container "{container.id}": {error}') from error
            finally:
                self._starting.pop(container.id, None)
            if not running:
                text = self.bundle(container.id).error()
                await self._start_failed(container, text)
                raise CRIError(Code.UNKNOWN, f'failed to start container "{container.id}": {text}')

    async def stop(self, container: Container, timeout_s: float) -> None:
        """The stop signal, and after the grace period the end of every process. Stopped already is fine."""
        running = self._running.get(container.id)
        if container.state.state != "running" or running is None:
            return
        if timeout_s > 0:
            running.signal(signal_number(container.state.stop_signal))
            try:
                async with asyncio.timeout(timeout_s):
                    await running.exited.wait()
                return
            except TimeoutError:
                pass
        await self.kill(container)

    async def kill(self, container: Container) -> None:
        running = self._running.get(container.id)
        if container.state.state != "running" or running is None:
            return
        running.signal(signal.SIGKILL)
        if container.state.cgroup:
            await asyncio.to_thread(cgroups.kill, container.state.cgroup)
        try:
            async with asyncio.timeout(60):
                await running.exited.wait()
        except TimeoutError:
            text = f'container "{container.id}" does not die: a process of it hangs in the kernel'
            raise CRIError(Code.DEADLINE_EXCEEDED, text) from None

    async def remove(self, container: Container) -> None:
        """Kills what runs, then removes every trace."""
        await self.kill(container)
        async with self._lock(container.id):
            if container.id not in self.records.all:
                return
            await asyncio.to_thread(self._erase, container)
            self._images.release(container.id)
            self._locks.pop(container.id, None)

    async def update(self, container: Container, resources: pb.LinuxContainerResources) -> None:
        """Sets new limits; what `resources` leaves at zero stays. Raises CRIError."""
        if container.state.state not in ("created", "running"):
            raise CRIError(Code.FAILED_PRECONDITION, f'container "{container.id}" is not running')
        if container.state.state == "running":
            try:
                await asyncio.to_thread(cgroups.apply, container.state.cgroup, resources)
            except (OSError, ValueError) as error:
                raise CRIError(Code.UNKNOWN, f"failed to update resources: {error}") from error
        kept = container.config.linux.resources
        unified = dict(kept.unified)
        kept.MergeFrom(resources)
        kept.unified.update(unified | dict(resources.unified))
        self.records.rewrite(container)

    def reopen_log(self, container: Container) -> None:
        running = self._running.get(container.id)
        if container.state.state != "running" or running is None:
            raise CRIError(Code.FAILED_PRECONDITION, "container is not running")
        running.log.reopen()

    # Starting

    async def _launch(self, container: Container, runtime: OCIRuntime) -> None:
        config, bundle = container.config, self.bundle(container.id)
        streams = self._streams(container)
        exit_file = self._files.path(container.id, "exit")
        for kind in ("pid", "exit"):
            _unlink(self._files.path(container.id, kind))
        command = runtime.command(
            "run",
            "--bundle",
            bundle.directory,
            "--pid-file",
            self._files.path(container.id, "pid"),
            container.id,
            log=bundle.path("start.log"),
        )
        rootfs = bundle.load_rootfs()
        goes_out = any(mount.propagation == 2 for mount in config.mounts)

        def work() -> Spawned:
            streams.make()
            if container.state.cgroup:
                prepare_cgroup(container)
            return launch(
                bundle,
                rootfs,
                self._images.layers_directory,
                self._monitor,
                streams,
                exit_file,
                command,
                mounts_go_out=goes_out,
            )

        # Before the start, so that a Berg that is killed right after it knows the container for this boot's.
        container.state.boot_id = boot_id()
        self.records.save(container)
        spawned = await self._launcher.call(work)
        container.state.monitor_pid = spawned.pid
        container.state.monitor_start = process_start(spawned.pid)
        self.records.save(container)
        self._attach(container, spawned.pty)
        if container.state.state == "running":
            self._watch(container)  # the file was quicker than the launcher's answer

    def _on_file(self, id: str, kind: str) -> None:
        container = self.records.all.get(id)
        if container is None:
            return
        starting = self._starting.get(id)
        if kind == "pid":
            self._started(container)
            if starting is not None and not starting.done():
                starting.set_result(True)
        elif starting is not None and not starting.done():
            starting.set_result(False)
        else:
            self._end_soon(container)

    def _started(self, container: Container) -> None:
        state = container.state
        if state.state != "created":
            return
        path = self._files.path(container.id, "pid")
        try:
            with open(path) as file:
                state.pid = int(file.read())
            state.started_at = os.stat(path).st_mtime_ns
        except (OSError, ValueError):
            return
        state.pid_start = process_start(state.pid)
        state.state = "running"
        self.records.save(container)
        self._on_event(container, "started")
        self._watch(container)

    async def _start_failed(self, container: Container, message: str) -> None:
        state = container.state
        if state.cgroup:
            await asyncio.to_thread(cgroups.kill, state.cgroup)
        state.state, state.exit_code, state.reason, state.message = "exited", 128, "StartError", message
        state.started_at = state.started_at or 0
        state.finished_at = time.time_ns()
        self.records.save(container)
        self._finish(container)
        self._on_event(container, "stopped")

    # While it runs

    def _attach(self, container: Container, pty: int = -1) -> None:
        if container.id not in self._running:
            monitor = container.state.monitor_pid
            streams = self._streams(container)
            log_file = log_path(self.bundle(container.id))
            self._running[container.id] = Running.attach(streams, log_file, monitor, pty)

    def _watch(self, container: Container) -> None:
        running = self._running.get(container.id)
        if running is None:
            return  # still being launched: `_launch` watches as soon as it has attached
        if not running.watch(container.state, lambda: self._end_soon(container)):
            self._end_soon(container)

    def _detach(self, id: str) -> None:
        running = self._running.pop(id, None)
        if running is not None:
            running.close()

    # The end

    def _end_soon(self, container: Container) -> None:
        running = self._running.get(container.id)
        if running is not None:
            running.unwatch()
        if container.id in self._ending:
            return  # the file and the pidfd tell of the same end
        self._ending.add(container.id)
        task = asyncio.get_running_loop().create_task(self._end(container))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ending.discard(container.id))
        task.add_done_callback(self._tasks.discard)

    async def _end(self, container: Container) -> None:
        state = container.state
        if state.state == "created":
            self._started(container)  # it ran and ended while nobody looked
        if state.state != "running":
            return
        exit = await self._exit_status(container)
        if state.cgroup:
            await asyncio.to_thread(cgroups.kill, state.cgroup)
            state.oom_kills = cgroups.oom_kills(state.cgroup)
        state.exit_code, state.finished_at, state.reason = exit.code, exit.at, exit.reason
        if state.oom_kills:
            state.reason = "OOMKilled"
        state.state = "exited"
        self.records.save(container)
        self._finish(container)
        self._on_event(container, "stopped")

    async def _exit_status(self, container: Container) -> Exit:
        """The monitor writes it moments after the process has ended, if it is there."""
        state = container.state
        patience = EXIT_PATIENCE_S
        while (written := self._files.exit_status(container.id)) is None:
            if not is_alive(state.monitor_pid, state.monitor_start):
                patience -= 0.002  # it may be one that was never noted; else it is gone, and its last word is on disk
                if patience < 0:
                    break
            await asyncio.sleep(0.002)
        if written is not None and not is_alive(state.pid, state.pid_start):
            code, at = written
            return Exit(code, at, "Completed" if code == 0 else "Error")
        # The monitors were killed, the container may go on: its end is still to come, and nobody will know more of it.
        if is_alive(state.pid, state.pid_start):
            pidfd = os.pidfd_open(state.pid)
            try:
                await readable(pidfd)
            finally:
                os.close(pidfd)
        return Exit(LOST_EXIT_CODE, time.time_ns(), "Unknown")

    def _finish(self, container: Container) -> None:
        """After the end is on record: the last of the log, and the monitor may go."""
        running = self._running.get(container.id)
        if running is not None:
            running.drain()
            running.streams.acknowledge()
            running.exited.set()
        self._detach(container.id)
        self._reap(container.state.monitor_pid)
        if container.state.cgroup:
            try:
                cgroups.remove(container.state.cgroup)
            except OSError:
                pass  # busy for a moment; removing the container tries again

    def _lost(self, container: Container) -> None:
        """It ran before the machine was started anew."""
        state = container.state
        state.state, state.exit_code, state.reason = "exited", LOST_EXIT_CODE, "Unknown"
        state.message = "the node was restarted"
        state.finished_at = time.time_ns()
        self.records.save(container)

    def _reap(self, pid: int) -> None:
        """The monitor is our child, unless an earlier Berg spawned it. It ends right after it was acknowledged."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return

        async def wait() -> None:
            try:
                await readable(pidfd)
            finally:
                os.close(pidfd)
            collect_child(pid)

        task = asyncio.get_running_loop().create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _erase(self, container: Container) -> None:
        if container.state.cgroup:
            cgroups.kill(container.state.cgroup)
            for attempt in range(50):
                try:
                    cgroups.remove(container.state.cgroup)
                    break
                except OSError:
                    if attempt == 49:
                        log.warning("cgroup %s cannot be removed", container.state.cgroup)
                    time.sleep(0.01)
        streams = self._streams(container)
        end_monitors(container.state, streams)
        for kind in ("pid", "exit"):
            _unlink(self._files.path(container.id, kind))
        for name in ("ack", "stdin", "stdout", "stderr", "hangup", "stdout.read", "stderr.read"):
            _unlink(streams.path(name))
        try:
            os.rmdir(streams.directory)
        except OSError:
            pass
        bundle = self.bundle(container.id)
        try:
            sc.umount(bundle.rootfs, sc.MNT_DETACH)
        except OSError:
            pass  # as a rule it is on nobody's mount table but the container's
        writable = bundle.load_rootfs().writable
        if writable != bundle.directory:
            shutil.rmtree(writable, ignore_errors=True)
        self.records.remove(container.id)

    def _streams(self, container: Container) -> Streams:
        return Streams(os.path.join(self._io, container.id), container.config.tty, container.config.stdin)

    def _lock(self, id: str) -> asyncio.Lock:
        return self._locks.setdefault(id, asyncio.Lock())


def log_path(bundle: Bundle) -> str:
    """Where the container logs to: the sandbox's directory and the container's file, put together at creation."""
    try:
        return os.readlink(bundle.path("log"))
    except OSError:
        return ""


def prepare_cgroup(container: Container) -> None:
    from berg.runtime.own.spec import device_rules

    within = f"/{cgroups.INNER}" if cgroups.hierarchy().version == 2 else ""
    cgroups.create(container.state.cgroup + within)
    cgroups.apply(container.state.cgroup, container.config.linux.resources)
    cgroups.allow_devices(container.state.cgroup, device_rules(container.config))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
