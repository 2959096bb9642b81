"""What a node's processes leave in the kernel when they end: mounts and control groups. Found by their names alone,
so that a cluster whose processes were all killed is cleaned up as well."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

_MNT_DETACH = 2
_CGROUPS = Path("/sys/fs/cgroup")


def unmount_below(directory: Path) -> list[str]:
    """Unmounts everything at or below `directory`, the innermost first. Returns what could not be."""
    root = str(directory)
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == root or point.startswith(f"{root}/"):
            points.append(point)
    libc = ctypes.CDLL(None, use_errno=True)
    return [p for p in reversed(points) if libc.umount2(os.fsencode(p), _MNT_DETACH) != 0]


def remove_groups(name: str) -> None:
    """Removes the control group `name` with all below it, in every hierarchy (v1) or the one (v2).

    Processes in it are moved nowhere: a group that still has some stays.
    """
    hierarchies = [_CGROUPS] if (_CGROUPS / "cgroup.controllers").exists() else [*_CGROUPS.iterdir()]
    for hierarchy in hierarchies:
        top = hierarchy / name
        if not top.is_dir():
            continue
        for directory, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(directory)
            except OSError:
                continue


def remove_tree(directory: Path) -> None:
    """Mounts below it first: what is mounted there must never be deleted through it."""
    if not directory.exists():
        return
    stuck = unmount_below(directory)
    if stuck:
        raise OSError(f"can't unmount {', '.join(stuck)}")
    shutil.rmtree(directory)
