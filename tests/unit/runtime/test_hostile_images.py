"""Layers and archives of any content: unpacked inside their directory, or refused; nothing outside changes."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berg.runtime.own.images.archive import import_archive
from berg.runtime.own.images.store import ImageError, ImageStore
from berg.runtime.own.images.unpack import BadLayer, unpack

from .images_made import digest, entry, layer

pytestmark = pytest.mark.root

STEPS = st.sampled_from(["a", "b", "..", ".", "", "outside", ".wh.a", ".wh..wh..opq", "up", "secret"])
PATHS = st.lists(STEPS, min_size=1, max_size=5).map("/".join) | st.sampled_from(
    ["/", "..", "../outside/secret", "a\0b"]
)
TARGETS = PATHS | st.sampled_from(["..", "../outside", "/", "../outside/secret", "/etc"])
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"Z"]
)
ENTRIES = st.tuples(PATHS, KINDS, TARGETS, st.binary(max_size=4), st.integers(0, 0o7777))


def made(path: str, kind: bytes, target: str, content: bytes, mode: int) -> tuple[tarfile.TarInfo, bytes]:
    data = content if kind == tarfile.REGTYPE else b""
    return entry(path, data, type=kind, linkname=target, mode=mode, devmajor=1, devminor=3)


def listing(root: Path) -> list[tuple[str, bytes]]:
    return sorted((str(p.relative_to(root)), p.read_bytes() if p.is_file() else b"") for p in root.rglob("*"))


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(st.lists(ENTRIES, max_size=8), st.integers(0, 40))
def test_layers(tmp_path_factory: pytest.TempPathFactory, entries: list[Any], cut: int) -> None:
    base = tmp_path_factory.mktemp("layer")
    try:
        (base / "outside").mkdir()
        (base / "outside" / "secret").write_bytes(b"untouched")
        (base / "up").symlink_to("outside")
        os.chmod(base / "outside", 0o750)
        (base / "root").mkdir()
        data = layer(*(made(*e) for e in entries))
        with contextlib.suppress(BadLayer, OSError):
            unpack(io.BytesIO(data[: len(data) - cut * 64 if cut > 30 else None]), str(base / "root"))
        assert listing(base / "outside") == [("secret", b"untouched")]
        assert (base / "outside").stat().st_mode & 0o7777 == 0o750
        assert sorted(os.listdir(base)) == ["outside", "root", "up"]
    finally:
        shutil.rmtree(base, ignore_errors=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "../../etc/passwd", digest(b"{}")]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["manifests", "digest", "config", "layers", "size", "platform", "annotations", "mediaType"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
DOCKER = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "Config": st.just("blobs/sha256/x") | st.sampled_from(["../outside", "index.json"]) | JSON,
            "Layers": st.lists(st.sampled_from(["../../etc/passwd", "manifest.json", "up"]), max_size=2) | JSON,
            "RepoTags": st.lists(st.sampled_from(["a:b", "!!", ""]), max_size=2) | JSON,
        },
    )
    | JSON,
    max_size=2,
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.sampled_from(["index.json", "manifest.json", "blobs/sha256/x"]), JSON | DOCKER, max_size=3))
def test_archives(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Any]) -> None:
    base = tmp_path_factory.mktemp("archive")
    try:
        contents = [entry(name, orjson.dumps(value)) for name, value in files.items()]
        (base / "archive.tar").write_bytes(layer(*contents, entry("up", type=tarfile.SYMTYPE, linkname="../../x")))
        store = ImageStore(str(base / "store"))
        with contextlib.suppress(ImageError):
            import_archive(store, str(base / "archive.tar"), None, None)
        assert set(os.listdir(base)) <= {"archive.tar", "store"}
    finally:
        shutil.rmtree(base, ignore_errors=True)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=1100))
def test_bytes_that_are_no_archive(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(data)
    store = ImageStore(str(tmp_path_factory.getbasetemp() / "store"))
    with pytest.raises(ImageError):
        import_archive(store, str(path), None, None)


def test_manifests_that_lead_to_manifests_for_ever(tmp_path: Path) -> None:
    inner = orjson.dumps({"manifests": []})
    contents = []
    for _ in range(3000):
        contents.append(entry(f"blobs/sha256/{digest(inner).removeprefix('sha256:')}", inner))
        inner = orjson.dumps({"manifests": [{"digest": digest(inner)}]})
    (tmp_path / "a.tar").write_bytes(layer(entry("index.json", inner), *contents))
    with pytest.raises(ImageError):
        import_archive(ImageStore(str(tmp_path / "store")), str(tmp_path / "a.tar"), None, None)
