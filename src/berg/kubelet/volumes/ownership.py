"""fsGroup: a volume belongs to the pod's group, and the group may write.

Source: pkg/volume/volume_linux.go SetVolumeOwnership; KEP-695 (fsGroupChangePolicy).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

RW, RO, EXEC = 0o660, 0o440, 0o110


def apply(root: Path, group: int, *, read_only: bool = False, policy: str = "Always") -> None:
    """With policy OnRootMismatch nothing is walked when the root is already as it should be."""
    if policy == "OnRootMismatch" and _matches(root, group, read_only):
        return
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            _one(os.path.join(directory, name), group, read_only)
        _one(directory, group, read_only)


def _matches(root: Path, group: int, read_only: bool) -> bool:
    info = root.stat()
    wanted = (RO if read_only else RW) | EXEC | stat.S_ISGID
    return info.st_gid == group and info.st_mode & wanted == wanted


def _one(path: str, group: int, read_only: bool) -> None:
    info = os.lstat(path)
    os.lchown(path, -1, group)
    if stat.S_ISLNK(info.st_mode):
        return
    mask = RO if read_only else RW
    if stat.S_ISDIR(info.st_mode):
        mask |= stat.S_ISGID | EXEC
    os.chmod(path, stat.S_IMODE(info.st_mode) | mask)


def group_of(pod: dict) -> int | None:
    return (pod["spec"].get("securityContext") or {}).get("fsGroup")


def policy_of(pod: dict) -> str:
    return (pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy") or "Always"


def single_user(pod: dict) -> int | None:
    """The user that all containers run as, when there is one: it owns the pod's tokens."""
    shared = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    users = set()
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for c in pod["spec"].get(key) or ():
            users.add((c.get("securityContext") or {}).get("runAsUser", shared))
    return users.pop() if len(users) == 1 else None
