"""Small image archives for tests, made by hand: any layer content, also content that nobody should accept."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def entry(name: str, content: bytes | None = None, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A tar entry: a file when there is content, a directory when the name ends with a slash."""
    info = tarfile.TarInfo(name.rstrip("/") if name != "/" else name)
    if name.endswith("/"):
        info.type = tarfile.DIRTYPE
        info.mode = 0o755
    for key, value in fields.items():
        setattr(info, key, value)
    data = content or b""
    info.size = len(data)
    return info, data


def link(name: str, target: str, *, hard: bool = False) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, linkname=target)


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config(layers: Sequence[bytes], **fields: Any) -> bytes:
    written = {
        "os": "linux",
        "architecture": ARCHITECTURE,
        "rootfs": {"type": "layers", "diff_ids": list(map(digest, layers))},
    }
    return json.dumps(written | fields).encode()


def oci_archive(path: Path, layers: Sequence[bytes], *, name: str = "", compress: bool = True, **fields: Any) -> str:
    """Returns the image's ID."""
    packed = [gzip.compress(data, mtime=0) if compress else data for data in layers]
    written = config(layers, **fields)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"digest": digest(written), "size": len(written)},
            "layers": [{"digest": digest(data), "size": len(data)} for data in packed],
        }
    ).encode()
    descriptor: dict[str, Any] = {"digest": digest(manifest), "size": len(manifest)}
    descriptor["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    if name:
        descriptor["annotations"] = {"io.containerd.image.name": name}
    files = {"index.json": json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()}
    files |= {f"blobs/sha256/{digest(data)[7:]}": data for data in [written, manifest, *packed]}
    write_tar(path, files)
    return digest(written)


def docker_archive(path: Path, layers: Sequence[bytes], tags: Sequence[str], **fields: Any) -> str:
    written = config(layers, **fields)
    files = {f"{number}/layer.tar": data for number, data in enumerate(layers)}
    manifest = [{"Config": "config.json", "RepoTags": list(tags), "Layers": list(files)}]
    write_tar(path, {**files, "config.json": written, "manifest.json": json.dumps(manifest).encode()})
    return digest(written)


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
