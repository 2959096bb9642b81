"""Writing a directory of files so that a reader never sees half of an update.

All files of one version lie in a directory named after its time, `..data` is a link to it, and the visible names
are links through `..data`. An update makes a new directory and renames the new link over the old one: one system
call, and every file has changed.

    token -> ..data/token     ..data -> ..2026_01_01_00_00_00.123456789

Source: pkg/volume/util/atomic_writer.go.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

DATA = "..data"
MAX_PATH = 4096
MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class File:
    data: bytes
    mode: int
    uid: int | None = None


def check_path(path: str) -> None:
    """Raises ValueError on a path that would leave the volume or clash with the writer's own names."""
    if not path or path.startswith("/"):
        raise ValueError(f"invalid path: must be relative path: {path}")
    parts = path.split("/")
    if ".." in parts:
        raise ValueError(f"invalid path: must not contain '..': {path}")
    if parts[0].startswith(".."):
        raise ValueError(f"invalid path: must not start with '..': {path}")
    if len(path) > MAX_PATH or any(len(x) > MAX_NAME for x in parts):
        raise ValueError("invalid path: too long")


def write(
    target: Path,
    files: Mapping[str, File],
    now: datetime,
    own: Callable[[Path], None] = lambda directory: None,
) -> bool:
    """Makes `target` show exactly `files`; False when it did already. `own` sets the owner of a new version."""
    for path in files:
        check_path(path)
    current = _current(target)
    if current is not None and _same(current, files):
        return False
    stamp = now.strftime("..%Y_%m_%d_%H_%M_%S.") + f"{secrets.randbelow(10**9):09d}"
    version = target / stamp
    version.mkdir(mode=0o755)
    version.chmod(0o755)
    for path, file in files.items():
        _write_file(version / path, file)
    own(version)
    link = target / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(stamp)
    link.rename(target / DATA)
    _show(target, files)
    if current is not None:
        shutil.rmtree(current, ignore_errors=True)
    return True


def _current(target: Path) -> Path | None:
    try:
        return target / os.readlink(target / DATA)
    except OSError:
        return None


def _same(version: Path, files: Mapping[str, File]) -> bool:
    found: set[str] = set()
    for directory, _, names in os.walk(version):
        for name in names:
            path = os.path.relpath(os.path.join(directory, name), version)
            wanted = files.get(path)
            if wanted is None or Path(directory, name).read_bytes() != wanted.data:
                return False
            found.add(path)
    return found == set(files)


def _write_file(path: Path, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(file.data)
        os.fchmod(f.fileno(), file.mode)  # the umask does not count
        if file.uid is not None:
            os.fchown(f.fileno(), file.uid, -1)


def _show(target: Path, files: Mapping[str, File]) -> None:
    """The visible names: one link for each first component; those of older versions go."""
    wanted = {path.split("/", 1)[0] for path in files}
    for entry in os.listdir(target):
        if not entry.startswith("..") and entry not in wanted:
            (target / entry).unlink(missing_ok=True)
    for name in wanted:
        link = target / name
        if not link.is_symlink():
            link.symlink_to(f"{DATA}/{name}")
