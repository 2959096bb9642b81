"""Changes of files in a directory, told to a plain function on the loop (inotify, Linux)."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 2, 8, 64, 128, 256, 512
EVENTS = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_CREATE

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    def __init__(self, changed: Callable[[], None]) -> None:
        fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._fd = fd
        self._changed = changed
        asyncio.get_running_loop().add_reader(fd, self._read)

    def add(self, path: Path) -> None:
        if _libc.inotify_add_watch(self._fd, os.fsencode(path), EVENTS) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))

    def _read(self) -> None:
        try:
            while os.read(self._fd, 1 << 16):
                pass
        except BlockingIOError:
            pass
        self._changed()

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
