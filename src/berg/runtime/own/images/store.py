"""The image store: configurations by digest, unpacked layers by chain, names.

    DIR/index.json                 every image: names, digests, size, layers
    DIR/blobs/sha256/HEX           image configurations
    DIR/layers/NAME/               a layer, unpacked for overlayfs; NAME is made from its chain ID
    DIR/ingest/                    downloads and layers in the making; what is there at a start can be resumed or goes

A layer is checked against both of its digests (as sent, and as unpacked) before it gets its name, so what has a name
is whole. Archives of layers are not kept: an unpacked layer is all that is ever used. Layers that no image and no
container needs are removed with the last image that named them; there is no garbage to collect.

Callers on the event loop use the async methods; the heavy work runs in threads. One `ImageStore` owns a directory.
"""

from __future__ import annotations

import asyncio
import base64
import bz2
import gzip
import hashlib
import lzma
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any, cast

import orjson

from berg.runtime.own.images import names
from berg.runtime.own.images.unpack import BadLayer, unpack

if TYPE_CHECKING:
    from berg.runtime.own.images.registry import Credentials, Registries

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}.get(
    platform.machine(), platform.machine()
)


class ImageError(Exception):
    """An image cannot be had or used; the text is for the user."""


class ImageNotFound(ImageError):
    pass


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of an import or a pull: `stage` is `resolve`, `download`, `unpack` or `done`."""

    stage: str
    item: str
    current: int = 0
    total: int = 0


ProgressCallback = Callable[[Progress], None]


@dataclass(slots=True)
class Image:
    id: str
    """The digest of the configuration."""
    layers: list[str]
    """Names of the layers' directories, the lowest first."""
    size: int
    tags: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    pinned: bool = False
    user: str = ""
    """Whom the configuration names, as it names them."""


@dataclass(frozen=True, slots=True)
class LayerSource:
    """One layer of an image that is being stored: where its bytes come from."""

    digest: str
    """Of the bytes as they come; empty when the source does not say (docker archives)."""
    size: int
    open: Callable[[], IO[bytes]]


class ImageStore:
    def __init__(self, directory: str, registries: Registries | None = None) -> None:
        self.directory = directory
        self.registries = registries
        self.layers_directory = os.path.join(directory, "layers")
        # Replaced, never changed: it is read on the event loop while threads store images.
        self._images: dict[str, Image] = {}
        self._held: dict[str, frozenset[str]] = {}
        self._lock = threading.RLock()
        self._unpacking: dict[str, threading.Lock] = {}

    def open(self) -> None:
        """Reads the index and clears away what an interrupted run left."""
        for name in ("layers", "ingest", "blobs/sha256"):
            os.makedirs(os.path.join(self.directory, name), mode=0o700, exist_ok=True)
        try:
            with open(os.path.join(self.directory, "index.json"), "rb") as file:
                stored = orjson.loads(file.read())
        except FileNotFoundError:
            stored = {"images": []}
        except ValueError as error:
            raise ImageError(f"the image index in {self.directory} is damaged: {error}") from error
        self._images = {entry["id"]: Image(**entry) for entry in stored["images"]}
        self._images = {id: image for id, image in self._images.items() if self._is_whole(image)}
        for name in os.listdir(os.path.join(self.directory, "ingest")):
            if name.startswith("unpack-"):
                shutil.rmtree(os.path.join(self.directory, "ingest", name), ignore_errors=True)
        self.sweep()

    # Reading

    def all(self) -> list[Image]:
        return list(self._images.values())

    def get(self, reference: str) -> Image | None:
        """By ID (also its beginning, as crictl's users type it), tag or digest."""
        if id := names.image_id(reference):
            return self._images.get(id)
        try:
            name = names.parse(reference)
        except names.InvalidName:
            name = None
        if name is not None:
            wanted = f"{name.repository}@{name.digest}" if name.digest else name.tagged
            for image in self._images.values():
                if wanted in (image.digests if name.digest else image.tags):
                    return image
        prefix = reference.removeprefix("sha256:")
        if len(prefix) >= 6 and not prefix.strip("0123456789abcdef"):
            found = [image for id, image in self._images.items() if id.startswith(f"sha256:{prefix}")]
            return found[0] if len(found) == 1 else None
        return None

    def config(self, image: Image) -> dict[str, Any]:
        """The image's configuration as its author wrote it."""
        with open(self._blob(image.id), "rb") as file:
            return cast("dict[str, Any]", orjson.loads(file.read()))

    def layer_paths(self, image: Image) -> list[str]:
        """The layers' directories, the uppermost first."""
        return [os.path.join(self.layers_directory, name) for name in reversed(image.layers)]

    # Adding and removing

    async def import_archive(
        self, path: str, name: str | None = None, progress: ProgressCallback | None = None
    ) -> list[Image]:
        """Stores the images of an OCI or docker archive (also compressed); `name` overrides the names it carries.
        Raises ImageError."""
        from berg.runtime.own.images.archive import import_archive

        return await asyncio.to_thread(import_archive, self, path, name, progress)

    async def pull(
        self, name: str, credentials: Credentials | None = None, progress: ProgressCallback | None = None
    ) -> Image:
        """Fetches an image from its registry, or finds that it is there already. Raises ImageError."""
        from berg.runtime.own.images.registry import Registries, pull

        return await pull(self, self.registries or Registries(), name, credentials, progress)

    def remove(self, reference: str) -> bool:
        """Removes the image with all its names. False: there is none."""
        with self._lock:
            image = self.get(reference)
            if image is None:
                return False
            self._images = {id: other for id, other in self._images.items() if id != image.id}
            self._save()
            try:
                os.unlink(self._blob(image.id))
            except FileNotFoundError:
                pass
            self.sweep()
            return True

    def untag(self, tag: str) -> None:
        with self._lock:
            for image in self._images.values():
                if tag in image.tags:
                    image.tags.remove(tag)
            self._save()

    def hold(self, owner: str, image: Image) -> None:
        """Keeps the image's layers, even if it is removed, until `release(owner)`."""
        self.hold_layers(owner, image.layers)

    def hold_layers(self, owner: str, layers: Iterable[str]) -> None:
        with self._lock:
            self._held[owner] = frozenset(layers)

    def release(self, owner: str) -> None:
        with self._lock:
            layers = self._held.pop(owner, frozenset())
        if layers and not any(layers <= set(image.layers) for image in self._images.values()):
            self.sweep()

    def sweep(self) -> None:
        """Removes layers that nothing names."""
        with self._lock:
            if self._unpacking:
                return  # an image in the making names its layers only when it is whole; the next sweep will do
            used = {name for image in self._images.values() for name in image.layers}
            for held in self._held.values():
                used |= held
            for name in os.listdir(self.layers_directory):
                if name not in used:
                    shutil.rmtree(os.path.join(self.layers_directory, name), ignore_errors=True)

    def store(
        self,
        config: bytes,
        layers: Sequence[LayerSource],
        *,
        tags: Iterable[str] = (),
        digests: Iterable[str] = (),
        progress: ProgressCallback | None = None,
    ) -> Image:
        """Unpacks the layers that are missing and adds the image. Blocks; raises ImageError."""
        id = f"sha256:{hashlib.sha256(config).hexdigest()}"
        diff_ids = _diff_ids(config, len(layers))
        chains = chain_ids(diff_ids)
        paths: list[str] = []
        marker = f"image-{id}-{threading.get_ident()}"
        with self._lock:
            self._unpacking[marker] = threading.Lock()
        try:
            for source, diff_id, chain in zip(layers, diff_ids, chains, strict=True):
                if progress:
                    progress(Progress("unpack", source.digest or diff_id, 0, source.size))
                self._add_layer(source, diff_id, chain, paths)
                paths.insert(0, os.path.join(self.layers_directory, layer_name(chain)))
            with self._lock:
                return self._add(id, config, layers, chains, tags, digests)
        finally:
            with self._lock:
                del self._unpacking[marker]

    def name(self, image: Image, *, tags: Iterable[str] = (), digests: Iterable[str] = ()) -> None:
        """Gives the image further names; a tag moves to it from whoever had it."""
        with self._lock:
            for tag in tags:
                for other in self._images.values():
                    if other is not image and tag in other.tags:
                        other.tags.remove(tag)
                if tag not in image.tags:
                    image.tags.append(tag)
            for digest in digests:
                if digest not in image.digests:
                    image.digests.append(digest)
            self._save()

    def ingest_path(self, name: str) -> str:
        return os.path.join(self.directory, "ingest", name)

    def has_chain(self, chain: str) -> bool:
        return os.path.isdir(os.path.join(self.layers_directory, layer_name(chain)))

    def _add(
        self,
        id: str,
        config: bytes,
        layers: Sequence[LayerSource],
        chains: Sequence[str],
        tags: Iterable[str],
        digests: Iterable[str],
    ) -> Image:
        image = self._images.get(id)
        if image is None:
            path = self._blob(id)
            with open(path + ".new", "wb") as file:
                file.write(config)
            os.replace(path + ".new", path)
            size = len(config) + sum(source.size for source in layers)
            user = (orjson.loads(config).get("config") or {}).get("User") or ""
            image = Image(id=id, layers=[layer_name(chain) for chain in chains], size=size, user=user)
            self._images = {**self._images, id: image}
        self.name(image, tags=tags, digests=digests)
        return image

    def _add_layer(self, source: LayerSource, diff_id: str, chain: str, lower: Sequence[str]) -> None:
        target = os.path.join(self.layers_directory, layer_name(chain))
        if os.path.isdir(target):
            return
        temporary = self.ingest_path(f"unpack-{layer_name(chain)}-{threading.get_ident()}-{time.monotonic_ns()}")
        os.mkdir(temporary, 0o755)
        try:
            with source.open() as raw:
                sent = _Hashing(raw)
                content = _Hashing(decompressed(sent))
                unpack(cast("IO[bytes]", content), temporary, lower)
                content.drain()
                sent.drain()
            if source.digest and sent.digest() != source.digest:
                raise ImageError(f"layer {source.digest} is damaged: its digest is {sent.digest()}")
            if content.digest() != diff_id:
                raise ImageError(f"layer {diff_id} is damaged: its content's digest is {content.digest()}")
            try:
                os.rename(temporary, target)
            except OSError:
                if not os.path.isdir(target):  # someone else was faster: the same content
                    raise
        except (BadLayer, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise ImageError(f"layer {source.digest or diff_id}: {error}") from error
        except OSError as error:
            raise ImageError(f"layer {source.digest or diff_id}: cannot be unpacked: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _blob(self, digest: str) -> str:
        return os.path.join(self.directory, "blobs/sha256", digest.removeprefix("sha256:"))

    def _is_whole(self, image: Image) -> bool:
        here = os.path.isfile(self._blob(image.id))
        return here and all(os.path.isdir(os.path.join(self.layers_directory, name)) for name in image.layers)

    def _save(self) -> None:
        path = os.path.join(self.directory, "index.json")
        with open(path + ".new", "wb") as file:
            file.write(orjson.dumps({"images": [asdict(image) for image in self._images.values()]}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)


def layer_name(chain: str) -> str:
    """A short name (overlayfs takes all of them in one page of memory): 100 bits of the chain's digest."""
    return base64.b32encode(bytes.fromhex(chain.removeprefix("sha256:")))[:20].decode().lower()


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Source: OCI image specification, config.md, ChainID."""
    chains: list[str] = []
    for diff_id in diff_ids:
        text = f"{chains[-1]} {diff_id}" if chains else ""
        chains.append(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else diff_id)
    return chains


def _diff_ids(config: bytes, count: int) -> list[str]:
    try:
        parsed = orjson.loads(config)
        diff_ids = parsed["rootfs"]["diff_ids"]
    except (ValueError, KeyError, TypeError):
        raise ImageError("the image has no usable configuration (not a container image?)") from None
    if len(diff_ids) != count or not all(isinstance(d, str) and names.image_id(d) for d in diff_ids):
        raise ImageError("the image's configuration and manifest disagree about its layers")
    for key, here in (("os", "linux"), ("architecture", ARCHITECTURE)):
        if parsed.get(key, here) not in (here, ""):
            raise ImageError(f"the image is for {key} {parsed[key]}, this node is {here}")
    return cast("list[str]", diff_ids)


class _Hashing:
    """A reader that digests what passes through."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        return data

    def readable(self) -> bool:
        return True

    def drain(self) -> None:
        while self.read(1 << 20):
            pass

    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class _Joined:
    """The bytes that were looked at, then the rest."""

    def __init__(self, head: bytes, source: Any) -> None:
        self._head = head
        self._source = source

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return cast(bytes, self._source.read(size))
        if size < 0:
            size = len(self._head)
        data, self._head = self._head[:size], self._head[size:]
        return data

    def readable(self) -> bool:
        return True


def decompressed(source: Any) -> IO[bytes]:
    """By what the first bytes say. Raises ImageError."""
    head = b""
    while len(head) < 6 and (more := source.read(6 - len(head))):
        head += more
    stream = cast("IO[bytes]", _Joined(head, source))
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream, mode="rb"))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(stream)
    if head.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.BZ2File(stream))
    if head.startswith(b"\xfd7zXZ\0"):
        return cast("IO[bytes]", lzma.LZMAFile(stream))
    return stream


def _zstd(stream: IO[bytes]) -> IO[bytes]:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14

        return cast("IO[bytes]", zstd.ZstdFile(stream))
    except ImportError:
        pass
    import subprocess

    if shutil.which("zstd") is None:
        raise ImageError("a layer is compressed with zstd: install the program zstd, or use Python 3.14")
    child = subprocess.Popen(["zstd", "-dc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    threading.Thread(target=_feed, args=(stream, child.stdin), daemon=True).start()
    return child.stdout


def _feed(stream: IO[bytes], sink: IO[bytes]) -> None:
    try:
        shutil.copyfileobj(stream, sink, 1 << 20)
    except BrokenPipeError:
        pass
    finally:
        sink.close()
