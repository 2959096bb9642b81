"""What was read of a container's stream and may not be in its log yet.

A pipe gives its bytes away when they are read: a Berg that is killed before it has written them would lose them. So
they lie in shared memory meanwhile, with the log's length from before. Who comes next cuts the log there and writes
them again.
"""

from __future__ import annotations

import mmap
import os
import struct

_HEAD = struct.Struct("<QQ")
"""how many bytes, 0 for none; the log's length before them"""


class InFlight:
    """For chunks of up to `size` bytes, kept in the file `path`. It is put there when it is missing. Raises OSError."""

    def __init__(self, path: str, size: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _HEAD.size + size)  # now: a page that can't be had later would end the process
            self._map = mmap.mmap(fd, _HEAD.size + size)
        finally:
            os.close(fd)

    def hold(self, data: bytes, log_bytes: int) -> None:
        self._map[_HEAD.size : _HEAD.size + len(data)] = data
        self._map[: _HEAD.size] = _HEAD.pack(len(data), log_bytes)

    def landed(self) -> None:
        self._map[: _HEAD.size] = bytes(_HEAD.size)

    def left(self) -> tuple[bytes, int] | None:
        """What an earlier Berg held when it was killed, and the log's length before it."""
        count, log_bytes = _HEAD.unpack(self._map[: _HEAD.size])
        return (self._map[_HEAD.size : _HEAD.size + count], log_bytes) if count else None

    def close(self) -> None:
        self._map.close()
