"""Unpacking a layer into a directory that overlayfs can use.

A layer is a tar archive from somebody else, unpacked as root. No entry may touch anything outside of the directory:
each parent directory is opened by the kernel as if the layer were the root (`openat2` with RESOLVE_IN_ROOT), so
neither `..` nor a symbolic link, also one that the same layer brought, leads out; and the entry itself is made with
calls relative to that handle which follow no link.

Whiteouts become overlayfs' own: `.wh.NAME` a character device 0:0, `.wh..wh..opq` the `trusted.overlay.opaque` mark.
A directory that the layer uses without bringing it takes its owner and mode from the layers below, as a copy-up
would give.

Source: OCI image specification, layer.md; kernel documentation, overlayfs.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Sequence
from typing import IO

from berg.runtime.own.syscalls import open_in_root

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

_XATTR = "SCHILY.xattr."
_DIRECTORY = os.O_PATH | os.O_DIRECTORY


class BadLayer(Exception):
    """The archive cannot be unpacked faithfully."""


def unpack(stream: IO[bytes], directory: str, lower: Sequence[str] = ()) -> int:
    """Unpacks a tar stream into the (empty) directory; `lower` are the layers below, the uppermost first.
    Returns the bytes of file content. Raises BadLayer or OSError; what is in the directory then is worthless."""
    root = os.open(directory, _DIRECTORY | os.O_CLOEXEC)
    unpacker = _Unpacker(root, lower)
    try:
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
            for member in archive:
                unpacker.member(archive, member)
        unpacker.finish()
    except (tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
        raise BadLayer(f"broken layer archive: {error}") from error
    finally:
        unpacker.close()
        os.close(root)
    return unpacker.size


class _Unpacker:
    def __init__(self, root: int, lower: Sequence[str]) -> None:
        self.size = 0
        self._root = root
        self._lower = lower
        self._parent_path: str | None = None
        self._parent = -1
        self._times: list[tuple[str, float]] = []

    def close(self) -> None:
        if self._parent >= 0:
            os.close(self._parent)
            self._parent = -1

    def member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = os.path.normpath("/" + member.name.lstrip("/")).lstrip("/")
        if "\0" in path or "\0" in member.linkname:
            raise BadLayer(f'a name with a zero byte: "{member.name}"')
        if not path:
            if member.isdir():
                self._own(self._root, ".", member)
            return
        folder, name = os.path.split(path)
        parent = self._open_parent(folder)
        if name.startswith(WHITEOUT):
            self._whiteout(parent, name)
            return
        self._make(archive, member, parent, name, path)

    def finish(self) -> None:
        """Directories get their times last: making an entry changes its directory's."""
        self.close()
        for path, time in reversed(self._times):
            folder, name = os.path.split(path)
            try:
                parent = open_in_root(self._root, folder or ".", _DIRECTORY)
            except OSError:
                continue
            try:
                os.utime(name, (time, time), dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                pass
            finally:
                os.close(parent)

    def _open_parent(self, folder: str) -> int:
        if folder != self._parent_path:
            self.close()
            self._parent = self._open_directory(folder)
            self._parent_path = folder
        return self._parent

    def _open_directory(self, folder: str) -> int:
        try:
            return open_in_root(self._root, folder or ".", _DIRECTORY)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise BadLayer(f'"{folder}" is not a directory in the layer') from None
        above, name = os.path.split(folder)
        parent = self._open_directory(above)
        try:
            self._make_implicit(parent, name, folder)
            return os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileExistsError:
            # The name is there and leads nowhere: a dangling link. Its target is somebody else's business.
            raise BadLayer(f'"{folder}" is a link to nowhere in the layer') from None
        finally:
            os.close(parent)

    def _make_implicit(self, parent: int, name: str, path: str) -> None:
        os.mkdir(name, 0o755, dir_fd=parent)
        for layer in self._lower:
            below = os.open(layer, _DIRECTORY | os.O_CLOEXEC)
            try:
                found = open_in_root(below, path, os.O_PATH | os.O_NOFOLLOW)
            except OSError:
                continue
            finally:
                os.close(below)
            try:
                status = os.fstat(found)
            finally:
                os.close(found)
            if stat.S_ISDIR(status.st_mode):
                os.chown(name, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
                self._chmod(parent, name, stat.S_IMODE(status.st_mode))
            return

    def _whiteout(self, parent: int, name: str) -> None:
        if name == OPAQUE:
            os.setxattr(f"/proc/self/fd/{parent}", "trusted.overlay.opaque", b"y")
            return
        if name.startswith(".wh..wh."):
            return  # aufs' own bookkeeping
        hidden = name.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            raise BadLayer(f'invalid whiteout "{name}"')
        self._clear(parent, hidden)
        os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str, path: str) -> None:
        if member.isdir():
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    self._clear(parent, name)
                    os.mkdir(name, 0o700, dir_fd=parent)
            self._times.append((path, member.mtime))
        else:
            self._clear(parent, name)
            if member.isreg():
                self._file(archive, member, parent, name)
            elif member.issym():
                os.symlink(member.linkname, name, dir_fd=parent)
            elif member.islnk():
                self._hard_link(member, parent, name)
                return  # an owner and a mode it has already
            elif member.isfifo():
                os.mkfifo(name, 0o600, dir_fd=parent)
            elif member.ischr() or member.isblk():
                kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
                os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
            else:
                raise BadLayer(f'an entry of unknown type {member.type!r}: "{member.name}"')
        self._own(parent, name, member)

    def _file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        source = archive.extractfile(member)
        with open(fd, "wb", buffering=0) as target:
            if source is not None:
                shutil.copyfileobj(source, target, 1 << 20)
        self.size += member.size

    def _hard_link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        target = os.path.normpath("/" + member.linkname.lstrip("/")).lstrip("/")
        folder, linked = os.path.split(target)
        try:
            source = open_in_root(self._root, folder or ".", _DIRECTORY)
        except OSError:
            raise BadLayer(f'a link to what is not in the layer: "{member.linkname}"') from None
        try:
            os.link(linked, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, PermissionError):
            raise BadLayer(f'a link to what is not in the layer: "{member.linkname}"') from None
        finally:
            os.close(source)

    def _own(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if not member.issym():
            self._chmod(parent, name, member.mode & 0o7777)
        for key, value in member.pax_headers.items():
            if key.startswith(_XATTR):
                self._xattr(parent, name, key.removeprefix(_XATTR), value)
        if not member.isdir():
            os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)

    def _chmod(self, parent: int, name: str, mode: int) -> None:
        # The name was made by us a moment ago as no link, and nobody else writes here.
        os.chmod(name, mode, dir_fd=parent)

    def _xattr(self, parent: int, name: str, key: str, value: str) -> None:
        if key.startswith("trusted.overlay."):
            raise BadLayer("a layer may not speak overlayfs' own language")
        try:
            data = value.encode("utf-8", "surrogateescape")
            os.setxattr(f"/proc/self/fd/{parent}/{name}", key, data, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise

    def _clear(self, parent: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=parent)
            self._parent_path = None  # the handle may stand in what is gone
