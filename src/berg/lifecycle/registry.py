"""The clusters of this machine: found by their directories."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from berg.lifecycle.errors import BadDataDir, LifecycleError
from berg.lifecycle.layout import default_root, machine_root
from berg.lifecycle.spec import ClusterSpec
from berg.lifecycle.supervisor import process_of, read_pid

_BRIDGE = re.compile(r"berg(\d+)(-n)?")


def clusters() -> dict[str, Path]:
    """Name → directory of every cluster in the default place."""
    root = default_root()
    if not root.is_dir():
        return {}
    return {d.name: d for d in sorted(root.iterdir()) if (d / "spec.json").exists()}


def take_index(root: Path) -> int:
    """The lowest number that no cluster of this machine has, from now on that of the cluster in `root`. 0–99.

    It chooses address ranges, bridges and tables, so clusters under different roots must not have the same: for the
    whole machine there is one directory of links from numbers to clusters, and one writer of it at a time.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _numbers() as numbers:
        # A cluster that nobody wrote down (another machine's `/var/lib`, an older Berg) shows by its bridge.
        bridges = (_BRIDGE.fullmatch(p.name) for p in Path("/sys/class/net").glob("berg*"))
        taken = {int(m[1]) for m in bridges if m} | {_index_of(directory) for directory in clusters().values()}
        for number in range(100):
            holder = _holder(numbers, number)
            if holder == root or (holder is None and number not in taken):
                _give(numbers, number, root)
                return number
    raise LifecycleError("this machine has 100 clusters already", "End some with: berg down --purge")


def keep_index(root: Path, number: int) -> None:
    """Of a cluster that exists: nobody else gets its number."""
    with _numbers() as numbers:
        if _holder(numbers, number) is None:
            _give(numbers, number, root)


def return_index(root: Path, number: int) -> None:
    with _numbers() as numbers:
        if _holder(numbers, number) in (None, root):
            (numbers / str(number)).unlink(missing_ok=True)


@contextmanager
def _numbers() -> Iterator[Path]:
    directory = machine_root() / ".numbers"
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield directory
    finally:
        os.close(fd)


def _holder(numbers: Path, number: int) -> Path | None:
    """None where there is none any more: its directory is gone, or belongs to a cluster that has another number."""
    try:
        root = (numbers / str(number)).readlink()
    except OSError:
        return None
    if not root.is_dir() or _index_of(root) not in (None, number):
        return None
    return root


def _give(numbers: Path, number: int, root: Path) -> None:
    (numbers / str(number)).unlink(missing_ok=True)
    (numbers / str(number)).symlink_to(root)


def _index_of(root: Path) -> int | None:
    """None while it is not written yet."""
    try:
        return ClusterSpec.read(root / "spec.json").index if (root / "spec.json").exists() else None
    except BadDataDir:
        return None


def supervisor_of(root: Path) -> int | None:
    """Also of a cluster whose `run/` somebody deleted."""
    return read_pid(root / "run" / "supervisor.pid") or process_of("berg.lifecycle.supervisor", str(root))
