"""A container's log as `kubectl logs` wants it: tail, since, timestamps, limit, and following through rotations.

Source: pkg/kubelet/kuberuntime/logs, kubelet_pods.go validateContainerLogStatus.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from berg.kubelet import logs
from berg.kubelet.server.http import Request
from berg.machinery.clock import parse_rfc3339, rfc3339
from berg.machinery.inotify import Inotify
from berg.machinery.status import Obj

CHUNK = 1 << 16


class LogError(Exception):
    """A 400 with this text."""


@dataclass(slots=True)
class Options:
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: str = ""
    """RFC 3339, compared as text with the lines' own times."""
    tail: int | None = None
    limit: int | None = None
    stream: bytes = b""
    """stdout or stderr, or nothing for both."""


def options(request: Request, now: datetime) -> Options:
    """Raises LogError."""

    def number(name: str) -> int | None:
        text = request.value(name)
        if not text:
            return None
        try:
            value = int(text)
        except ValueError as e:
            raise LogError(f"Unable to decode query. {name}: {text}") from e
        return value

    since, seconds = "", number("sinceSeconds")
    if seconds is not None:
        since = rfc3339(now - timedelta(seconds=seconds))
    elif text := request.value("sinceTime"):
        try:
            since = rfc3339(parse_rfc3339(text))
        except ValueError as e:
            raise LogError(f"Unable to decode query. sinceTime: {text}") from e
    limit, tail = number("limitBytes"), number("tailLines")
    if limit is not None and limit < 1:
        raise LogError("limitBytes must be greater than 0")
    stream = request.value("stream")
    return Options(
        follow=request.flag("follow"),
        previous=request.flag("previous"),
        timestamps=request.flag("timestamps"),
        since=since,
        tail=tail if tail is None or tail >= 0 else None,
        limit=limit,
        stream=stream.lower().encode() if stream and stream != "All" else b"",
    )


def container_id(pod_name: str, status: Obj, container: str, previous: bool) -> str:
    """The container whose log is meant. Raises LogError with upstream's words when there is none."""
    found = next(
        (
            s
            for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
            for s in status.get(key) or ()
            if s["name"] == container
        ),
        None,
    )
    if found is None:
        raise LogError(f'container "{container}" in pod "{pod_name}" is not available')
    state, last = found.get("state") or {}, (found.get("lastState") or {}).get("terminated")
    id = ""
    if previous:
        if last is None or not last.get("containerID"):
            raise LogError(f'previous terminated container "{container}" in pod "{pod_name}" not found')
        id = last["containerID"]
    elif "running" in state:
        id = found.get("containerID") or ""
    elif "terminated" in state and state["terminated"].get("containerID"):
        id = state["terminated"]["containerID"]
    elif last is not None and last.get("containerID"):
        id = last["containerID"]
    elif "waiting" in state:
        reason = state["waiting"].get("reason") or ""
        if reason in ("ErrImagePull", "ImagePullBackOff"):
            word = "image can't be pulled" if reason == "ErrImagePull" else "trying and failing to pull image"
            raise LogError(f'container "{container}" in pod "{pod_name}" is waiting to start: {word}')
        raise LogError(f'container "{container}" in pod "{pod_name}" is waiting to start: {reason}')
    if not id:
        raise LogError(f'container "{container}" in pod "{pod_name}" is not available')
    return id.partition("://")[2]


class Reader:
    """Reads one log. `running` says whether more may come."""

    def __init__(self, path: Path, o: Options, running: Callable[[], Awaitable[bool]]) -> None:
        self._path = path
        self._o = o
        self._running = running
        self._left = o.limit

    async def chunks(self) -> AsyncIterator[bytes]:
        changed = asyncio.Event()
        watch: Inotify | None = None
        if self._o.follow and self._path.parent.is_dir():
            watch = Inotify(changed.set)
            watch.add(self._path.parent)
        try:
            async for chunk in self._read(changed):
                yield chunk
                if self._left == 0:
                    return
        finally:
            if watch is not None:
                watch.close()

    async def _read(self, changed: asyncio.Event) -> AsyncIterator[bytes]:
        files = [f for f in logs.files(self._path) if f.exists()]
        start = self._start(files)
        if start is None:
            return
        index, offset = start
        for file in files[index:-1]:
            with logs.open_log(file) as f:
                f.seek(offset)
                offset = 0
                for out in self._format(f):
                    yield out
        if not files:
            return
        f = logs.open_log(files[-1])
        try:
            f.seek(offset)
            while True:
                changed.clear()
                alive = self._o.follow and await self._running()
                for out in self._format(f):
                    yield out
                if not self._o.follow:
                    return
                rotated = self._rotated(f)
                if rotated is not None:
                    for out in self._format(f):
                        yield out
                    f.close()
                    f = rotated
                    continue
                if not alive:
                    return
                await self._wait(changed)
        finally:
            f.close()

    async def _wait(self, changed: asyncio.Event) -> None:
        """Until the directory changes; the end of the container may leave no trace there, so look now and then."""
        try:
            async with asyncio.timeout(1.0):
                await changed.wait()
        except TimeoutError:
            pass

    def _rotated(self, f: BinaryIO) -> BinaryIO | None:
        try:
            if os.stat(self._path).st_ino != os.fstat(f.fileno()).st_ino:
                return self._path.open("rb")
        except FileNotFoundError:
            pass
        return None

    def _start(self, files: list[Path]) -> tuple[int, int] | None:
        """(file, offset) where the wanted tail begins."""
        if self._o.tail is None:
            return 0, 0
        left = self._o.tail
        for index in range(len(files) - 1, -1, -1):
            with logs.open_log(files[index]) as f:
                offset = logs.tail_offset(f, left)
                if offset > 0 or index == 0 or left == 0:
                    return index, offset
                f.seek(0)
                left -= sum(1 for _ in f)
                if left <= 0:
                    return index, 0
        return 0, 0

    def _format(self, f: BinaryIO) -> list[bytes]:
        """All that can be read now, in pieces of a fair size."""
        out: list[bytes] = []
        buffer: list[bytes] = []
        size = 0
        for raw in logs.read_lines(f):
            line = logs.parse(raw)
            if line is None or (self._o.stream and line.stream != self._o.stream):
                continue
            if self._o.since and line.timestamp.decode() < self._o.since[:-1]:
                continue
            text = line.timestamp + b" " + line.text if self._o.timestamps else line.text
            if self._left is not None:
                text = text[: self._left]
                self._left -= len(text)
            buffer.append(text)
            size += len(text)
            if size >= CHUNK:
                out.append(b"".join(buffer))
                buffer, size = [], 0
            if self._left == 0:
                break
        if buffer:
            out.append(b"".join(buffer))
        return out


def now() -> datetime:
    return datetime.now(UTC)
