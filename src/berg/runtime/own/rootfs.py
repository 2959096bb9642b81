"""What is mounted for a container before it starts: its root file system, and the images it has as volumes.

Both are overlays of the image store's layers, made in the mount namespace of the container's monitor alone, so nothing
has to be unmounted. What to mount stands in the bundle (`mounts.json`), where a restarted Berg also reads which layers
the container holds.

The upper directory usually lies beside the bundle. Where that file system cannot be one (a data directory that is an
overlay itself, as within a container), it lies with the runtime's state, which is memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import orjson

from berg.runtime.own import syscalls as sc


@dataclass(slots=True)
class ImageMount:
    layers: list[str]
    """Names of the layers, the uppermost first."""
    target: str
    sub_path: str = ""

    @property
    def source(self) -> str:
        """What to bind into the container."""
        return f"{self.target}-part" if self.sub_path else self.target


@dataclass(slots=True)
class Rootfs:
    layers: list[str]
    """Names of the layers, the uppermost first."""
    writable: str
    """Holds `upper` and `work`."""
    images: list[ImageMount] = field(default_factory=list)

    @property
    def upper(self) -> str:
        return os.path.join(self.writable, "upper")

    def make(self) -> None:
        for name in ("upper", "work"):
            os.makedirs(os.path.join(self.writable, name), mode=0o755, exist_ok=True)

    def held(self) -> set[str]:
        return {name for layers in (self.layers, *(image.layers for image in self.images)) for name in layers}

    def mount(self, target: str, layers_directory: str) -> None:
        """For the launcher thread, which has a working directory of its own: short names keep a hundred layers within
        the page of memory that mount takes."""
        os.chdir(layers_directory)
        options = f"lowerdir={':'.join(self.layers)},upperdir={self.upper},workdir={self.writable}/work"
        sc.mount("overlay", target, "overlay", 0, options)
        for image in self.images:
            _mount_image(image)

    def save(self, path: str) -> None:
        with open(path, "wb") as file:
            file.write(orjson.dumps(asdict(self)))

    @classmethod
    def load(cls, path: str) -> Rootfs:
        """Without the file (a removal that was interrupted): one that holds nothing."""
        try:
            with open(path, "rb") as file:
                written = orjson.loads(file.read())
        except FileNotFoundError:
            return cls([], os.path.dirname(path))
        images = [ImageMount(**image) for image in written.pop("images")]
        return cls(**written, images=images)


def _mount_image(image: ImageMount) -> None:
    os.makedirs(image.target, exist_ok=True)
    empty = f"{image.target}-empty"
    os.makedirs(empty, exist_ok=True)
    # Without an upper directory an overlay wants two others.
    sc.mount("overlay", image.target, "overlay", sc.MS_RDONLY, f"lowerdir={':'.join([*image.layers, empty])}")
    if not image.sub_path:
        return
    # A link in the image may point anywhere: it leads nowhere but into the image.
    root = os.open(image.target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        part = sc.open_in_root(root, image.sub_path, os.O_PATH)
    finally:
        os.close(root)
    try:
        if stat.S_ISDIR(os.fstat(part).st_mode):
            os.makedirs(image.source, exist_ok=True)
        else:
            with open(image.source, "ab"):
                pass
        sc.mount(f"/proc/thread-self/fd/{part}", image.source, flags=sc.MS_BIND)
    finally:
        os.close(part)


def writable_root(candidates: Sequence[str]) -> str:
    """The first directory that can hold upper directories; for the launcher thread. Raises OSError when none can."""
    failure: OSError | None = None
    for directory in candidates:
        probe = os.path.join(directory, ".probe")
        for name in ("lower", "upper", "work", "merged"):
            os.makedirs(os.path.join(probe, name), exist_ok=True)
        options = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
        try:
            sc.mount("overlay", f"{probe}/merged", "overlay", 0, options)
        except OSError as error:
            failure = failure or error
            continue
        else:
            sc.umount(f"{probe}/merged", sc.MNT_DETACH)
            return directory
        finally:
            _remove(probe)
    assert failure is not None
    raise failure


def _remove(directory: str) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
