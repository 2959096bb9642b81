"""The audit log as a file: it is turned over when it has grown to its size; old ones are named by their time, thinned
out by number and age, and compressed when that is asked for.

Source: gopkg.in/natefinch/lumberjack.v2, as upstream configures it.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

log = logging.getLogger(__name__)

_STAMP = "%Y-%m-%dT%H-%M-%S"


class LogFile:
    """Raises OSError when the file cannot be written."""

    def __init__(
        self,
        path: str,
        *,
        max_bytes: int,
        backups: int,
        age_days: int,
        compress: bool,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`max_bytes` 0: never turned over; `backups`, `age_days` 0: all are kept."""
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._backups = backups
        self._age = timedelta(days=age_days)
        self._compress = compress
        self._now = now
        self._tidying: threading.Thread | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        if self._max_bytes and self._size and self._size + len(data) > self._max_bytes:
            self._turn_over()
        os.write(self._fd, data)
        self._size += len(data)

    def _turn_over(self) -> None:
        os.close(self._fd)
        now = self._now()
        stamp = f"{now:{_STAMP}}.{now.microsecond // 1000:03d}"
        os.replace(self.path, self.path.with_name(f"{self.path.stem}-{stamp}{self.path.suffix}"))
        self._open()
        if self._tidying is None or not self._tidying.is_alive():
            self._tidying = threading.Thread(target=self.tidy, args=(now,), name="audit-log")
            self._tidying.start()

    def tidy(self, now: datetime) -> None:
        """Away with what is too old or too many; the rest compressed. Runs beside the loop."""
        try:
            old = self.old()
            if self._backups:
                for path, _ in old[self._backups :]:
                    path.unlink(missing_ok=True)
                old = old[: self._backups]
            if self._age:
                for path, written in old:
                    if now - written > self._age:
                        path.unlink(missing_ok=True)
            if self._compress:
                for path, _ in self.old():
                    if path.suffix != ".gz":
                        _compressed(path)
        except OSError as e:
            log.warning("audit log: %s", e)

    def old(self) -> list[tuple[Path, datetime]]:
        """The newest first."""
        found = []
        head = f"{self.path.stem}-"
        for path in self.path.parent.iterdir():
            name = path.name.removesuffix(".gz")
            if not name.startswith(head) or not name.endswith(self.path.suffix):
                continue
            stamp = name[len(head) : len(name) - len(self.path.suffix)]
            seconds, _, milliseconds = stamp.rpartition(".")
            try:
                written = datetime.strptime(seconds, _STAMP).replace(tzinfo=UTC)
                found.append((path, written + timedelta(milliseconds=int(milliseconds))))
            except ValueError:
                continue
        return sorted(found, key=lambda f: f[1], reverse=True)

    def close(self) -> None:
        os.close(self._fd)
        if self._tidying is not None:
            self._tidying.join()


def _compressed(path: Path) -> None:
    whole = path.with_name(path.name + ".gz")
    with path.open("rb") as source, gzip.open(whole, "wb") as target:
        shutil.copyfileobj(source, target)
    whole.chmod(0o600)
    path.unlink()
