"""Exec, attach and port-forward.

An exec is a child of Berg's: `crun exec` in the container's cgroup, with pipes or a terminal. It ends with Berg, as
the client's connection does. The client is served by the streaming server (`runtime/streaming.py`); here is what
happens on the container's side.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import struct
import termios
import tty as tty_module
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import Code, CRIError
from berg.runtime.own import syscalls as sc
from berg.runtime.own.bundle import ENVIRONMENT, Bundle, OCIRuntime, hide_hybrid, joined
from berg.runtime.own.config import OwnConfig
from berg.runtime.own.launcher import Launcher, in_namespace, new_namespaces
from berg.runtime.own.logs import LogPump
from berg.runtime.own.processes import children
from berg.runtime.own.sandboxes import NODE, Sandboxes
from berg.runtime.own.state import Container, Sandbox, new_id
from berg.runtime.streaming import StreamingServer

if TYPE_CHECKING:
    from berg.machinery.streaming.remotecommand import ExecSession
    from berg.machinery.streaming.stream import ByteStream
    from berg.runtime.own.containers import Containers

CHUNK = 65536
END_S = 2.0
TERMINAL_TRIES = 200
DRAIN_S = 1.0
"""How long output is waited for after the command has ended: a process it left behind may hold the pipe for ever."""


class Execs:
    def __init__(
        self,
        containers: Containers,
        sandboxes: Sandboxes,
        launcher: Launcher,
        runtime_of: Callable[[Container], OCIRuntime],
        config: OwnConfig,
    ) -> None:
        self._containers = containers
        self._sandboxes = sandboxes
        self._launcher = launcher
        self._runtime_of = runtime_of
        self._config = config
        self.server = StreamingServer(config.streaming_host, config.streaming_port)

    async def start(self) -> None:
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop()

    # What CRI asks for

    async def exec_sync(self, container: Container, request: pb.ExecSyncRequest) -> pb.ExecSyncResponse:
        _must_run(container)
        process = await self._spawn(container, list(request.cmd), tty=False, stdin=False)
        out, err = (asyncio.create_task(_collect(fd, self._config.log_size_limit)) for fd in process.outputs)
        try:
            async with asyncio.timeout(request.timeout or None):
                code = await process.wait()
        except TimeoutError:
            await process.end()
            text = f"failed to exec in container: timeout {request.timeout}s exceeded: context deadline exceeded"
            raise CRIError(Code.DEADLINE_EXCEEDED, text) from None
        else:
            await asyncio.wait((out, err), timeout=DRAIN_S)
            process.check(code)
            return pb.ExecSyncResponse(stdout=bytes(out.result().data), stderr=bytes(err.result().data), exit_code=code)
        finally:
            for task in (out, err):
                task.cancel()
            await asyncio.gather(out, err, return_exceptions=True)
            process.close()

    def exec_url(self, container: Container, request: pb.ExecRequest) -> str:
        _must_run(container)
        _check_streams(request)

        async def run(session: ExecSession) -> int:
            return await self._exec(container, list(request.cmd), request.tty, session)

        return self.server.exec_url(request, run)

    def attach_url(self, container: Container, request: pb.AttachRequest) -> str:
        _must_run(container)
        _check_streams(request)

        async def run(session: ExecSession) -> int:
            return await self._attach(container, session)

        return self.server.attach_url(request, run)

    def port_forward_url(self, sandbox: Sandbox, request: pb.PortForwardRequest) -> str:
        if not sandbox.state.ready:
            raise CRIError(Code.FAILED_PRECONDITION, f'sandbox container "{sandbox.id}" is not running')

        async def connect(port: int) -> ByteStream:
            return await self._dial(sandbox, port)

        return self.server.port_forward_url(request, connect)

    # Exec

    async def _exec(self, container: Container, command: list[str], tty: bool, session: ExecSession) -> int:
        _must_run(container)
        process = await self._spawn(container, command, tty=tty, stdin=session.stdin is not None)
        writers = (session.write_stdout, session.write_stderr)
        tasks = [asyncio.create_task(_forward(fd, write)) for fd, write in zip(process.outputs, writers, strict=False)]
        helpers = []
        if session.stdin is not None:
            helpers.append(asyncio.create_task(_feed_process(session, process, tty)))
        if tty:
            helpers.append(asyncio.create_task(_resize(session, process.outputs[0], process.pid)))
        helpers.append(asyncio.create_task(_hang_up(session, process)))
        try:
            code = await process.wait()
            await asyncio.wait(tasks, timeout=DRAIN_S)
            process.check(code)
            return code
        finally:
            for task in [*tasks, *helpers]:
                task.cancel()
            await asyncio.gather(*tasks, *helpers, return_exceptions=True)
            await process.end()
            process.close()

    async def _spawn(self, container: Container, command: list[str], *, tty: bool, stdin: bool) -> ExecProcess:
        base = _write_process(self._containers.bundle(container.id), command, tty)
        argv = self._runtime_of(container).command(
            "exec", "--process", f"{base}.json", "--pid-file", f"{base}.pid", container.id, log=f"{base}.log"
        )
        argv = joined(container.state.cgroup, argv)

        def work() -> ExecProcess:
            with new_namespaces("mnt"):
                sc.mount("", "/", flags=sc.MS_REC | sc.MS_SLAVE)
                hide_hybrid()
                return _spawn_terminal(argv, base) if tty else _spawn_pipes(argv, base, stdin)

        process = await self._launcher.call(work)
        process.program = command[0] if command else ""
        return process

    # Attach

    async def _attach(self, container: Container, session: ExecSession) -> int:
        running = self._containers.running(container.id)
        if running is None:
            raise CRIError(Code.FAILED_PRECONDITION, "container is not running")
        wanted = [("stdout", session.write_stdout, session.options.stdout)]
        if not container.config.tty:
            wanted.append(("stderr", session.write_stderr, session.options.stderr))
        ends: list[asyncio.Task[Any]] = [
            asyncio.create_task(running.exited.wait()),
            asyncio.create_task(session.gone.wait()),
        ]
        helpers: list[asyncio.Task[None]] = []
        sinks: list[tuple[LogPump, Callable[[bytes], asyncio.Future[None] | None]]] = []
        if session.stdin is not None and container.config.stdin:
            fd = os.dup(running.pty) if container.config.tty else _open_fifo(running.streams.path("stdin"))
            entered = asyncio.create_task(self._attach_input(container, session, fd))
            # Input that ends for good (stdin_once) waits for what the container makes of it. Otherwise the end of
            # the client's input ends its session, and the container goes on. Source: containerd, ContainerIO.Attach
            for_good = container.config.stdin_once and not container.config.tty
            (helpers if for_good else ends).append(entered)
        if container.config.tty:
            helpers.append(
                asyncio.create_task(_resize(session, running.pty, container.state.monitor_pid, monitor=True))
            )
        for name, write, yes in wanted:
            pump = running.pumps.get(name)
            if pump is not None and yes:
                sink = _sink(write)
                pump.sinks.add(sink)
                sinks.append((pump, sink))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump, sink in sinks:
                pump.sinks.discard(sink)
            for task in [*ends, *helpers]:
                task.cancel()
            await asyncio.gather(*ends, *helpers, return_exceptions=True)
        return 0

    async def _attach_input(self, container: Container, session: ExecSession, fd: int) -> None:
        try:
            await _feed(session, fd)
        finally:
            os.close(fd)  # as long as anybody could write, the container's input does not end
            # The client's end of input is the container's only when it said so: stdin_once.
            if container.config.stdin_once and not container.config.tty:
                running = self._containers.running(container.id)
                if running is not None:
                    running.streams.hang_up()

    # Port-forward

    async def _dial(self, sandbox: Sandbox, port: int) -> ByteStream:
        """A connection to a port on the loopback of the pod. Raises OSError."""
        from berg.machinery.streaming.stream import StreamPair

        own = sandbox.config.linux.security_context.namespace_options.network != NODE
        path = self._sandboxes.pins(sandbox.id).path("net")
        error: OSError | None = None
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):

            def make(family: int = family) -> socket.socket:
                if not own:
                    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                with in_namespace(path, "net"):  # a socket stays in the namespace that it was made in
                    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

            try:
                connection = await self._launcher.call(make)
            except OSError as failure:
                error = error or failure
                continue
            try:
                await asyncio.get_running_loop().sock_connect(connection, (host, port))
            except OSError as failure:
                connection.close()
                error = error or failure
                continue
            return StreamPair(*await asyncio.open_connection(sock=connection))
        raise error or ConnectionRefusedError(f"port {port}")


@dataclass(slots=True)
class ExecProcess:
    pid: int
    outputs: list[int]
    """stdout and stderr, or the terminal alone."""
    input: int
    base: str
    """The files of this exec: `.json`, `.pid`, `.log`."""
    program: str = ""
    code: int | None = None

    async def wait(self) -> int:
        pidfd = os.pidfd_open(self.pid)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        return self._reap()

    def _reap(self) -> int:
        if self.code is None:
            _, status = os.waitpid(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            self.code = 128 - code if code < 0 else code
        return self.code

    def check(self, code: int) -> None:
        """Raises CRIError when it was not the command that failed, but its start."""
        if code == 0 or os.path.exists(f"{self.base}.pid"):
            return
        from berg.runtime.own.bundle import oci_error

        text = oci_error(f"{self.base}.log", self.program)
        if text:
            what = "OCI runtime exec failed: exec failed: unable to start container process"
            raise CRIError(Code.UNKNOWN, f"failed to exec in container: {what}: {text}")

    def kill(self) -> None:
        """Kills the process in the container. Its parent sees it end, takes its status, and ends too."""
        if self.code is not None:
            return
        try:
            with open(f"{self.base}.pid") as file:
                os.kill(int(file.read()), signal.SIGKILL)
        except (OSError, ValueError):
            os.kill(self.pid, signal.SIGKILL)  # not started yet: then there is no process to take care of

    async def end(self) -> None:
        """Returns when the command has ended, by force if need be."""
        self.kill()
        if self.code is None:
            try:
                async with asyncio.timeout(END_S):
                    await self.wait()
            except TimeoutError:
                os.kill(self.pid, signal.SIGKILL)
                self._reap()

    def close(self) -> None:
        for fd in {*self.outputs, self.input} - {-1}:
            os.close(fd)
        self.outputs, self.input = [], -1
        for suffix in (".json", ".pid", ".log"):
            try:
                os.unlink(self.base + suffix)
            except FileNotFoundError:
                pass


def _write_process(bundle: Bundle, command: list[str], tty: bool) -> str:
    """The exec's process is the container's own with another command. Returns the base of this exec's file names."""
    with open(bundle.path("config.json"), "rb") as file:
        process = orjson.loads(file.read())["process"]
    process |= {"args": command, "terminal": tty}
    if tty and not any(entry.startswith("TERM=") for entry in process["env"]):
        process["env"].append("TERM=xterm")
    base = bundle.path(f"exec-{new_id()[:12]}")
    with open(f"{base}.json", "wb") as file:
        file.write(orjson.dumps(process))
    return base


def _spawn_pipes(argv: list[str], base: str, stdin: bool) -> ExecProcess:
    mine: list[int] = []
    theirs: list[int] = []
    try:
        for _ in range(2):
            reader, writer = os.pipe()
            mine.append(reader)
            theirs.append(writer)
        actions: list[tuple] = [(os.POSIX_SPAWN_DUP2, theirs[0], 1), (os.POSIX_SPAWN_DUP2, theirs[1], 2)]
        if stdin:
            reader, writer = os.pipe()
            mine.append(writer)
            theirs.append(reader)
            actions.append((os.POSIX_SPAWN_DUP2, reader, 0))
        else:
            actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
        pid = os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=actions, setsid=True)
    except BaseException:
        for fd in mine:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    for fd in mine:
        os.set_blocking(fd, False)
    return ExecProcess(pid, mine[:2], mine[2] if stdin else -1, base)


def _spawn_terminal(argv: list[str], base: str) -> ExecProcess:
    master, slave = os.openpty()
    try:
        tty_module.setraw(slave)
        actions = [(os.POSIX_SPAWN_DUP2, slave, fd) for fd in range(3)]
        pid = os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=actions, setsid=True)
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    os.set_blocking(master, False)
    return ExecProcess(pid, [master], master, base)


def _open_fifo(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _must_run(container: Container) -> None:
    if container.state.state != "running":
        text = f"container is in {'CONTAINER_' + container.state.state.upper()} state"
        raise CRIError(Code.FAILED_PRECONDITION, text)


def _check_streams(request: pb.ExecRequest | pb.AttachRequest) -> None:
    if not (request.stdin or request.stdout or request.stderr):
        raise CRIError(Code.INVALID_ARGUMENT, "one of stdin, stdout, or stderr must be set")
    if request.tty and request.stderr:
        raise CRIError(Code.INVALID_ARGUMENT, "tty and stderr cannot both be true")


async def _read(fd: int) -> bytes:
    """A chunk from a pipe or terminal that does not block; empty at the end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            pass
        except OSError:
            return b""  # a terminal whose other side is closed says EIO
        ready = asyncio.Event()
        loop.add_reader(fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(fd)


async def _write(fd: int, data: bytes) -> None:
    """Raises OSError when nobody reads any more."""
    loop = asyncio.get_running_loop()
    while data:
        try:
            data = data[os.write(fd, data) :]
            continue
        except BlockingIOError:
            pass
        ready = asyncio.Event()
        loop.add_writer(fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(fd)


@dataclass(slots=True)
class _Collected:
    data: bytearray


async def _collect(fd: int, limit: int) -> _Collected:
    collected = _Collected(bytearray())
    try:
        while chunk := await _read(fd):
            collected.data += chunk[: max(0, limit - len(collected.data))]
    except asyncio.CancelledError:
        pass  # what came so far is the answer
    return collected


async def _forward(fd: int, write) -> None:  # type: ignore[no-untyped-def]
    while chunk := await _read(fd):
        await write(chunk)


async def _feed(session: ExecSession, fd: int) -> None:
    assert session.stdin is not None
    try:
        while chunk := await session.stdin.read():
            await _write(fd, chunk)
    except OSError:
        pass  # the command reads no more


async def _feed_process(session: ExecSession, process: ExecProcess, tty: bool) -> None:
    """From the client to the command; the end of input closes the pipe."""
    await _feed(session, process.input)
    if not tty and process.input >= 0:
        os.close(process.input)
        process.input = -1


async def _resize(session: ExecSession, outer: int, pid: int, *, monitor: bool = False) -> None:
    """The client's size for the outer terminal and for the command's own, which the OCI runtime keeps: runc passes a
    size on when it is told (SIGWINCH), crun leaves its terminal as it is."""
    async for width, height in session.sizes():
        size = struct.pack("HHHH", height, width, 0, 0)
        try:
            fcntl.ioctl(outer, termios.TIOCSWINSZ, size)
            for keeper in children(pid) if monitor else [pid]:
                for terminal in await _terminals_of(keeper):
                    try:
                        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
                    finally:
                        os.close(terminal)
                os.kill(keeper, signal.SIGWINCH)
        except OSError:
            return  # it has ended


async def _terminals_of(pid: int) -> list[int]:
    """Duplicates of the terminals (their master sides) that a process keeps. One that has just started has none yet,
    and is given a moment."""
    pidfd = os.pidfd_open(pid)
    try:
        for _ in range(TERMINAL_TRIES):
            held = [int(number) for number in os.listdir(f"/proc/{pid}/fd") if _is_terminal(pid, number)]
            if held:
                return [sc.pidfd_getfd(pidfd, number) for number in held]
            await asyncio.sleep(0.01)
        return []
    finally:
        os.close(pidfd)


def _is_terminal(pid: int, number: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/{number}").endswith("/ptmx")
    except FileNotFoundError:
        return False


async def _hang_up(session: ExecSession, process: ExecProcess) -> None:
    """A client that goes away takes its command along."""
    await session.gone.wait()
    process.kill()


def _sink(write) -> Callable[[bytes], asyncio.Future[None] | None]:  # type: ignore[no-untyped-def]
    """A log pump's chunks to a client, one write after the other."""
    last: asyncio.Future[None] | None = None

    async def send(data: bytes, before: asyncio.Future[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            await write(data)
        except OSError:
            pass  # the client is gone; its session ends by itself

    def sink(data: bytes) -> asyncio.Future[None]:
        nonlocal last
        last = asyncio.ensure_future(send(data, last if last is not None and not last.done() else None))
        return last

    return sink
