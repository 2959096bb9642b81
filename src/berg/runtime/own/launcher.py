"""The launcher: one thread that may change its namespaces, so that the process need not.

Linux gives each thread its own namespaces. The launcher thread enters a new mount namespace, mounts a container's
root file system there, spawns the container's monitor (which inherits the namespace) and comes back. So a root file
system is on no mount table but its container's, needs no unmounting, and cannot be left behind by a crash. In the
same way it makes the namespaces of a sandbox and pins them in files.

Namespaces are made and left within one `call`; the thread is always back in the host's when a call returns. If it
cannot come back, the thread is given up and the next call starts a fresh one.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from berg.runtime.own import syscalls as sc

T = TypeVar("T")

_KINDS = {"net": sc.CLONE_NEWNET, "ipc": sc.CLONE_NEWIPC, "uts": sc.CLONE_NEWUTS, "mnt": sc.CLONE_NEWNS}


class Launcher:
    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[
            tuple[Callable[[], object], Callable[[object, BaseException | None], None]] | None
        ]
        self._jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def call(self, function: Callable[[], T]) -> T:
        """Runs `function` in the launcher thread. One call at a time, in order."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: object, error: BaseException | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def finish(result: object, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, args=(self._jobs,), name="berg-launcher", daemon=True)
            self._thread.start()
        self._jobs.put((function, finish))
        return await done

    def stop(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
        self._thread = None

    @staticmethod
    def _work(jobs: queue.SimpleQueue) -> None:
        sc.unshare(sc.CLONE_FS)  # a mount namespace can only be entered by who shares its root and cwd with nobody
        while (job := jobs.get()) is not None:
            function, finish = job
            try:
                result = function()
            except StrayThread as stray:
                finish(None, stray)
                return
            except BaseException as error:
                finish(None, error)
            else:
                finish(result, None)


class StrayThread(RuntimeError):
    """The launcher thread could not come back to the host's namespaces."""


@contextmanager
def new_namespaces(*kinds: str) -> Iterator[None]:
    """Within, the calling thread is in new namespaces of these kinds (`net`, `ipc`, `uts`, `mnt`)."""
    home = {kind: os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds}
    flags = 0
    for kind in kinds:
        flags |= _KINDS[kind]
    try:
        sc.unshare(flags)
        try:
            yield
        finally:
            for kind, fd in home.items():
                try:
                    sc.setns(fd, _KINDS[kind])
                except OSError as error:
                    raise StrayThread(str(error)) from error
    finally:
        for fd in home.values():
            os.close(fd)


@contextmanager
def in_namespace(path: str, kind: str) -> Iterator[None]:
    """Within, the calling thread is in the namespace pinned at `path`."""
    there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    home = os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sc.setns(there, _KINDS[kind])
        try:
            yield
        finally:
            try:
                sc.setns(home, _KINDS[kind])
            except OSError as error:
                raise StrayThread(str(error)) from error
    finally:
        os.close(there)
        os.close(home)


def pin_namespace(kind: str, path: str) -> None:
    """Keeps the calling thread's namespace alive in a file, as `ip netns` does."""
    with open(path, "xb"):
        pass
    sc.mount(f"/proc/thread-self/ns/{kind}", path, flags=sc.MS_BIND)


def unpin(path: str) -> None:
    """Lets a pinned namespace (or any mount) go. Done already is done."""
    try:
        while True:
            sc.umount(path, sc.MNT_DETACH)
    except OSError:
        pass  # EINVAL: no mount left there; ENOENT: nothing there at all
    try:
        os.unlink(path)
    except (FileNotFoundError, IsADirectoryError):
        pass
