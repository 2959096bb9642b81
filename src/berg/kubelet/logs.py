"""Container logs: where they lie, and reading the CRI log format, whole, from the end, or following.

A line is `2026-01-01T00:00:00.000000000Z stdout F text`; `P` instead of `F` marks a part of a longer line. The
newest file is NAME/N.log; what was rotated away lies beside it with a time in its name and is read first.

Source: pkg/kubelet/kuberuntime/logs, staging cri-client pkg/logs.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 16


def pod_log_dir(root: str | Path, namespace: str, name: str, uid: str) -> Path:
    return Path(root) / f"{namespace}_{name}_{uid}"


def container_log_path(container: str, restart_count: int) -> str:
    """Relative to the pod's directory."""
    return f"{container}/{restart_count}.log"


def restart_count_by_logs(directory: Path) -> int:
    """The next attempt, when the runtime has forgotten the earlier ones."""
    highest = -1
    try:
        for entry in directory.iterdir():
            head = entry.name.partition(".")[0]
            if ".log" in entry.name and head.isdigit():
                highest = max(highest, int(head))
    except FileNotFoundError:
        return 0
    return highest + 1


@dataclass(slots=True)
class Line:
    timestamp: bytes
    stream: bytes
    partial: bool
    text: bytes
    """With its newline unless it is partial."""


def parse(line: bytes) -> Line | None:
    """None for what is no CRI log line."""
    parts = line.rstrip(b"\n").split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    partial = parts[2].split(b":")[0] == b"P"
    text = parts[3] if len(parts) == 4 else b""
    return Line(parts[0], parts[1], partial, text if partial else text + b"\n")


def files(path: Path) -> list[Path]:
    """The rotated files of this log, oldest first, then the log itself."""
    rotated = sorted(
        f for f in path.parent.glob(path.name + ".*") if not f.name.endswith(".tmp") and f.name != path.name
    )
    return [*rotated, path]


def open_log(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def tail_offset(f: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines of the file start."""
    end = f.seek(0, 2)
    if lines <= 0:
        return end
    position, found = end, 0
    while position > 0:
        size = min(BLOCK, position)
        position -= size
        f.seek(position)
        block = f.read(size)
        at = len(block)
        if position + size == end and block.endswith(b"\n"):
            at -= 1  # the newline that ends the last line starts none
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found == lines:
                return position + at + 1
    return 0


def last_lines(path: Path, lines: int, limit: int) -> str:
    """The end of a log as a termination message."""
    try:
        with path.open("rb") as f:
            f.seek(tail_offset(f, lines))
            text = b"".join(line.text for raw in f if (line := parse(raw)) is not None)
    except OSError as e:
        return f"Error on reading termination message from logs: {e}"
    return text[-limit:].decode("utf-8", "replace")


def read_lines(f: BinaryIO) -> Iterator[bytes]:
    """Whole lines up to the end of the file; a line that is not finished is left for the next call."""
    while True:
        at = f.tell()
        raw = f.readline()
        if not raw.endswith(b"\n"):
            f.seek(at)
            return
        yield raw
