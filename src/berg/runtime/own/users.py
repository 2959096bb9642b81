"""Who a container runs as: CRI's choice, or the image's, looked up in the image's own /etc/passwd and /etc/group.

Source: CRI LinuxContainerSecurityContext; the image specification's `config.User`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berg.runtime.own.syscalls import open_in_root

if TYPE_CHECKING:
    from berg.runtime.api import cri_pb2 as pb


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]
    """Supplemental groups, sorted; the primary group is one of them, as upstream's runtimes have it."""
    home: str = "/"


class UnknownUser(Exception):
    pass


def resolve(layers: Sequence[str], image_user: str, security: pb.LinuxContainerSecurityContext) -> User:
    """`layers`: the image's directories, the uppermost first. Raises UnknownUser."""
    passwd = _rows(read_file(layers, "etc/passwd"), 4)
    group = _rows(read_file(layers, "etc/group"), 3)
    if security.HasField("run_as_group") and not (security.HasField("run_as_user") or security.run_as_username):
        raise UnknownUser("runAsGroup is specified without a runAsUser or username")
    name, _, group_name = image_user.partition(":")
    if security.HasField("run_as_user"):
        name, group_name = str(security.run_as_user.value), ""
    elif security.run_as_username:
        name, group_name = security.run_as_username, ""
    uid, gid, login = _user(passwd, name or "0")
    if group_name:
        gid = _group(group, group_name)
    if security.HasField("run_as_group"):
        gid = security.run_as_group.value
    groups = {gid, *security.supplemental_groups}
    if security.supplemental_groups_policy == 0 and login:  # Merge: what the image says of its user counts too
        groups.update(int(row[2]) for row in group if len(row) > 3 and login in row[3].split(",") and row[2].isdigit())
    home = next((row[5] for row in passwd if len(row) > 5 and row[2] == str(uid) and row[5].startswith("/")), "/")
    return User(uid, gid, tuple(sorted(groups)), home)


def _user(passwd: list[list[str]], name: str) -> tuple[int, int, str]:
    for row in passwd:
        if row[0] == name and row[2].isdigit():
            return int(row[2]), int(row[3]) if row[3].isdigit() else 0, row[0]
    if not name.isdigit():
        raise UnknownUser(f"unable to find user {name}: no matching entries in passwd file")
    for row in passwd:
        if row[2] == name:
            return int(name), int(row[3]) if row[3].isdigit() else 0, row[0]
    return int(name), 0, ""


def _group(group: list[list[str]], name: str) -> int:
    for row in group:
        if row[0] == name and row[2].isdigit():
            return int(row[2])
    if name.isdigit():
        return int(name)
    raise UnknownUser(f"unable to find group {name}: no matching entries in group file")


def _rows(text: str, least: int) -> list[list[str]]:
    rows = (line.split(":") for line in text.splitlines() if line and not line.startswith("#"))
    return [row for row in rows if len(row) >= least]


def read_file(layers: Sequence[str], path: str) -> str:
    """A small text file as the merged layers have it; empty when there is none. Never follows a link out."""
    for layer in layers:
        try:
            root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        finally:
            os.close(root)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""  # a whiteout: deleted from here on down
            return file.read(1 << 20).decode(errors="replace")
    return ""
