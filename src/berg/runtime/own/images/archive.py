"""Images from archives: OCI layouts (`oci-layout`, `index.json`, `blobs/`) and `docker save` (`manifest.json`), as a
tar file, a compressed one, or a directory.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from typing import IO, Any, Protocol, cast

import orjson

from berg.runtime.own.images import names
from berg.runtime.own.images.store import (
    ARCHITECTURE,
    Image,
    ImageError,
    ImageStore,
    LayerSource,
    Progress,
    ProgressCallback,
    decompressed,
)

_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_INDEX = frozenset(
    ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
)
_MANIFEST_LIMIT = 8 << 20


class _Files(Protocol):
    def open(self, path: str) -> IO[bytes]:
        """Raises FileNotFoundError."""
        ...

    def size(self, path: str) -> int: ...


def import_archive(store: ImageStore, path: str, name: str | None, progress: ProgressCallback | None) -> list[Image]:
    """Raises ImageError."""
    override = _tags([name], "") if name else None
    try:
        if os.path.isdir(path):
            return _import(store, _Directory(path), override, progress)
        with _plain(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            return _import(store, _Tar(archive), override, progress)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: not found: {error.filename or error}") from error
    except (tarfile.TarError, ValueError, LookupError, TypeError, AttributeError, EOFError, RecursionError) as error:
        raise ImageError(f"{path} is not an image archive: {error}") from error
    except OSError as error:
        raise ImageError(f"{path}: {error}") from error


def _plain(path: str) -> IO[bytes]:
    """The archive, seekable: a compressed one is unpacked to a nameless file first."""
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    stream = decompressed(file)
    if type(stream).__name__ == "_Joined":
        file.seek(0)
        return file
    with file:
        spooled = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(stream, spooled, 1 << 20)
    spooled.seek(0)
    return cast("IO[bytes]", spooled)


def _import(
    store: ImageStore, files: _Files, override: list[str] | None, progress: ProgressCallback | None
) -> list[Image]:
    try:
        index = _json(files, "index.json")
    except FileNotFoundError:
        images = _docker(store, files, override, progress)
    else:
        images = _oci(store, files, index, override, progress)
    if not images:
        raise ImageError("the archive has no image for this machine")
    if progress:
        for image in images:
            progress(Progress("done", (image.tags or [image.id])[0]))
    return images


def _docker(
    store: ImageStore, files: _Files, override: list[str] | None, progress: ProgressCallback | None
) -> list[Image]:
    images = []
    for entry in _json(files, "manifest.json"):
        with files.open(entry["Config"]) as file:
            config = file.read(_MANIFEST_LIMIT)
        layers = [LayerSource("", files.size(path), _opener(files, path)) for path in entry["Layers"]]
        tags = override if override is not None else _tags(entry.get("RepoTags") or [], "")
        images.append(store.store(config, layers, tags=tags, progress=progress))
    return images


def _oci(
    store: ImageStore, files: _Files, index: Any, override: list[str] | None, progress: ProgressCallback | None
) -> list[Image]:
    images = []
    for descriptor in index["manifests"]:
        manifest, digest = _manifest(files, descriptor)
        if manifest is None:
            continue
        annotations = descriptor.get("annotations") or {}
        found = [annotations[key] for key in _NAMES if key in annotations]
        tags = override if override is not None else _tags(found[:1], found[0] if found else "")
        with files.open(_blob(manifest["config"]["digest"])) as file:
            config = file.read(_MANIFEST_LIMIT)
        _verify(config, manifest["config"]["digest"])
        layers = [
            LayerSource(layer["digest"], layer["size"], _opener(files, _blob(layer["digest"])))
            for layer in manifest["layers"]
        ]
        digests = {f"{names.parse(tag).repository}@{digest}" for tag in tags}
        images.append(store.store(config, layers, tags=tags, digests=sorted(digests), progress=progress))
    return images


def _manifest(files: _Files, descriptor: Any) -> tuple[Any, str]:
    """The manifest for this machine that a descriptor leads to, with the descriptor's own digest."""
    platform = descriptor.get("platform") or {}
    if platform and (platform.get("os", "linux") != "linux" or platform.get("architecture") != ARCHITECTURE):
        return None, ""
    with files.open(_blob(descriptor["digest"])) as file:
        data = file.read(_MANIFEST_LIMIT)
    _verify(data, descriptor["digest"])
    parsed = orjson.loads(data)
    if "manifests" in parsed or parsed.get("mediaType") in _INDEX:
        for inner in parsed["manifests"]:
            manifest, _ = _manifest(files, inner)
            if manifest is not None:
                return manifest, descriptor["digest"]
        return None, ""
    if "config" not in parsed or "layers" not in parsed:
        return None, ""
    return parsed, descriptor["digest"]


def _verify(data: bytes, digest: str) -> None:
    import hashlib

    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise ImageError(f"{digest} is damaged in the archive")


def _tags(found: list[str], whole: str) -> list[str]:
    """Full names. A reference that is only a tag (as some tools write into OCI layouts) names nothing."""
    result = []
    for text in found:
        if whole and not set(text) & set("/:@"):
            continue
        try:
            name = names.parse(text)
        except names.InvalidName as error:
            raise ImageError(str(error)) from error
        if name.tagged:
            result.append(name.tagged)
    return result


def _blob(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if not names.image_id(digest):
        raise ImageError(f'unsupported digest "{digest}"')
    return f"blobs/{algorithm}/{value}"


def _json(files: _Files, path: str) -> Any:
    with files.open(path) as file:
        return orjson.loads(file.read(_MANIFEST_LIMIT))


def _opener(files: _Files, path: str) -> Callable[[], IO[bytes]]:
    return lambda: files.open(path)


class _Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = {os.path.normpath(member.name): member for member in archive}

    def open(self, path: str) -> IO[bytes]:
        member = self._members.get(os.path.normpath(path))
        file = self._archive.extractfile(member) if member is not None else None
        if file is None:
            raise FileNotFoundError(2, "not in the archive", path)
        return file

    def size(self, path: str) -> int:
        member = self._members.get(os.path.normpath(path))
        if member is None:
            raise FileNotFoundError(2, "not in the archive", path)
        return member.size


class _Directory:
    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)

    def open(self, path: str) -> IO[bytes]:
        return open(self._path(path), "rb")

    def size(self, path: str) -> int:
        return os.path.getsize(self._path(path))

    def _path(self, path: str) -> str:
        real = os.path.realpath(os.path.join(self._root, path))
        if not real.startswith(self._root + "/"):
            raise ImageError(f'"{path}" leads out of the directory')
        return real
