"""Mounting on the host: bind, tmpfs, unmount, and what is mounted now. Direct system calls, no mount(8).

Nothing here is asynchronous: each call is one or two system calls.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: Path, fstype: str, flags: int = 0, options: str = "") -> None:
    _check(
        _libc.mount(source.encode(), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), options.encode()),
        f"mount {target}",
    )


def bind(source: str | Path, target: Path, *, read_only: bool = False) -> None:
    mount(str(source), target, "", MS_BIND | MS_REC)
    if read_only:
        mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY)


def tmpfs(target: Path, size_bytes: int = 0) -> None:
    target.mkdir(parents=True, exist_ok=True, mode=0o750)
    mount("tmpfs", target, "tmpfs", 0, f"size={size_bytes}" if size_bytes else "")


def unmount(target: Path) -> None:
    """Also what is busy: it goes away with its last user. Nothing mounted there is fine."""
    if _libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW) == 0:
        return
    code = ctypes.get_errno()
    if code in (22, 2):  # EINVAL: no mount point; ENOENT
        return
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW), f"unmount {target}")


def is_mount_point(target: Path) -> bool:
    """Bind mounts within one file system too, which a comparison of devices cannot see."""
    wanted = os.path.realpath(target.parent) + "/" + target.name
    return any(m == wanted for m in mount_points())


def mount_points() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        return [_unescape(line.split(" ", 5)[4]) for line in f]


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def unmount_below(root: Path) -> None:
    """Everything mounted at or below `root`, the deepest first."""
    base = os.path.realpath(root)
    below = [m for m in mount_points() if m == base or m.startswith(base + "/")]
    for point in sorted(below, key=len, reverse=True):
        unmount(Path(point))
