"""Container logs in CRI's format: `TIME STREAM TAG CONTENT`, one record per line.

TAG is `F` for a whole line and `P` for a piece of one. What arrives without its newline is written as a piece at
once: then nothing waits in Berg's memory that a crash could lose, and `logs -f` shows a prompt. Everything read in one
go carries one time, so that a chunk of a hundred lines is made with one replace.

`LogPump` carries one stream from a pipe to the file and to whoever is attached. Reading stops while an attached
client is slow: the pipe then holds the container back, and no buffer grows.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime

from berg.runtime.own.inflight import InFlight

CHUNK = 16384
"""what is read in one go: each stream of each container has that much shared memory"""
MAX_PIECE = 16384
"""Longer lines are cut into pieces, as upstream's runtimes do; readers may rely on it."""


def now_text() -> bytes:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()


def format_chunk(data: bytes, stream: bytes, time: bytes) -> bytes:
    """CRI records for `data`, which starts a record."""
    if not data:
        return b""
    full = time + b" " + stream + b" F "
    piece = time + b" " + stream + b" P "
    if len(data) > MAX_PIECE and max(map(len, data.split(b"\n"))) > MAX_PIECE:
        return _cut(data, full, piece)
    whole, newline, rest = data.rpartition(b"\n")
    out = full + whole.replace(b"\n", b"\n" + full) + b"\n" if newline else b""
    return out + piece + rest + b"\n" if rest else out


def _cut(data: bytes, full: bytes, piece: bytes) -> bytes:
    out: list[bytes] = []
    lines = data.split(b"\n")
    rest = lines.pop()
    for line in lines:
        while len(line) > MAX_PIECE:
            out += (piece, line[:MAX_PIECE], b"\n")
            line = line[MAX_PIECE:]
        out += (full, line, b"\n")
    while rest:
        out += (piece, rest[:MAX_PIECE], b"\n")
        rest = rest[MAX_PIECE:]
    return b"".join(out)


class LogFile:
    """The file that both streams of a container are appended to; `reopen` follows a rotation by renaming."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.size_bytes = 0
        self._fd = -1

    def open(self) -> None:
        if self.path:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            self.size_bytes = os.fstat(self._fd).st_size

    def reopen(self) -> None:
        old, self._fd = self._fd, -1
        try:
            self.open()
        finally:
            if old >= 0:
                os.close(old)

    def write(self, data: bytes, stream: bytes) -> None:
        if self._fd < 0:
            return
        record = format_chunk(data, stream, now_text())
        try:
            while record:
                written = os.write(self._fd, record)
                self.size_bytes += written
                record = record[written:]
        except OSError:
            pass  # a full disk must not stop the container: upstream's runtimes drop these lines too

    def cut(self, size_bytes: int) -> None:
        """Drops what lies behind."""
        if self._fd >= 0 and size_bytes < self.size_bytes:
            os.ftruncate(self._fd, size_bytes)
            self.size_bytes = size_bytes

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


Sink = Callable[[bytes], "asyncio.Future[None] | None"]
"""Takes a chunk; when it returns a future, no more is read until that is done."""


class LogPump:
    """One stream of one container, from `fd` (which it owns) to `log` and `sinks`, over `flight` (likewise), where
    the next Berg finds what this one had no time to write."""

    def __init__(self, fd: int, stream: str, log: LogFile, flight: InFlight | None = None) -> None:
        self.stream = stream
        self.sinks: set[Sink] = set()
        self._fd = fd
        self._log = log
        self._flight = flight
        self._name = stream.encode()
        self._reading = False
        self._waiting: set[asyncio.Future[None]] = set()
        os.set_blocking(fd, False)

    def start(self) -> None:
        left = self._flight.left() if self._flight is not None else None
        if left is not None:
            data, log_bytes = left
            self._log.cut(log_bytes)
            self._write(data)
        self._resume()

    def drain(self) -> None:
        """Takes what is left in the pipe; for when its writers are gone."""
        while self._fd >= 0 and self._take(CHUNK):
            pass

    def close(self) -> None:
        if self._fd < 0:
            return
        self._pause()
        os.close(self._fd)
        self._fd = -1
        if self._flight is not None:
            self._flight.close()
            self._flight = None

    def _resume(self) -> None:
        if not self._reading and self._fd >= 0 and not self._waiting:
            self._reading = True
            asyncio.get_running_loop().add_reader(self._fd, self._take)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._fd)

    def _take(self, size: int = CHUNK) -> bool:
        try:
            data = os.read(self._fd, size)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # a terminal whose other side is closed says EIO
        if not data:
            self._pause()
            return False
        self._write(data)
        for sink in tuple(self.sinks):
            busy = sink(data)
            if busy is not None and not busy.done():
                self._waiting.add(busy)
                busy.add_done_callback(self._accepted)
        if self._waiting:
            self._pause()
        return True

    def _write(self, data: bytes) -> None:
        if self._flight is not None:
            self._flight.hold(data, self._log.size_bytes)
        self._log.write(data, self._name)
        if self._flight is not None:
            self._flight.landed()

    def _accepted(self, done: asyncio.Future[None]) -> None:
        self._waiting.discard(done)
        self._resume()
