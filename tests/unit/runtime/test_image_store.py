"""Importing archives, and what the store does with damaged ones. Unpacking needs root."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from pathlib import Path

import pytest

from berg.runtime.own.images.store import ImageError, ImageStore, Progress, chain_ids, layer_name

from .images_made import digest, docker_archive, entry, layer, oci_archive, write_tar

pytestmark = pytest.mark.root

BASE = layer(entry("etc/"), entry("etc/name", b"base"))
TOP = layer(entry("etc/name", b"top"), entry("etc/.wh.gone", b""))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(str(tmp_path / "store"))
    store.open()
    return store


def files_under(store: ImageStore) -> int:
    return sum(len(files) + len(folders) for _, folders, files in os.walk(store.layers_directory))


def of(store: ImageStore, archive: Path, name: str | None = None) -> list:
    return asyncio.run(store.import_archive(str(archive), name))


@pytest.mark.parametrize("compress", [True, False])
def test_an_oci_archive(store: ImageStore, tmp_path: Path, compress: bool) -> None:
    id = oci_archive(
        tmp_path / "a.tar", [BASE, TOP], name="example.org/app:v1", compress=compress, config={"Cmd": ["x"]}
    )
    [image] = of(store, tmp_path / "a.tar")
    assert (image.id, image.tags) == (id, ["example.org/app:v1"])
    assert store.config(image)["config"] == {"Cmd": ["x"]}
    top, base = store.layer_paths(image)
    assert Path(top, "etc/name").read_text() == "top" and Path(base, "etc/name").read_text() == "base"
    for reference in ("example.org/app:v1", id, id.removeprefix("sha256:"), id[7:19], image.digests[0]):
        assert store.get(reference) is image


def test_a_docker_archive_also_compressed_as_a_whole(store: ImageStore, tmp_path: Path) -> None:
    id = docker_archive(tmp_path / "a.tar", [BASE], ["app:1", "other/app:2"])
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    [image] = of(store, tmp_path / "a.tar.gz")
    assert (image.id, image.tags) == (id, ["docker.io/library/app:1", "docker.io/other/app:2"])


def test_any_name_can_be_given_and_a_name_moves(store: ImageStore, tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", [BASE], name="example.org/app:v1")
    oci_archive(tmp_path / "b.tar", [BASE, TOP])
    [first] = of(store, tmp_path / "a.tar", "registry.k8s.io/e2e-test-images/agnhost:2.63.0")
    assert first.tags == ["registry.k8s.io/e2e-test-images/agnhost:2.63.0"]
    [second] = of(store, tmp_path / "b.tar", "registry.k8s.io/e2e-test-images/agnhost:2.63.0")
    assert store.get("registry.k8s.io/e2e-test-images/agnhost:2.63.0") is second and first.tags == []


def test_images_share_layers_and_leave_no_garbage(store: ImageStore, tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", [BASE], name="a.example/a:1")
    oci_archive(tmp_path / "b.tar", [BASE, TOP], name="a.example/b:1")
    of(store, tmp_path / "a.tar")
    of(store, tmp_path / "b.tar")
    assert len(os.listdir(store.layers_directory)) == 2
    assert store.remove("a.example/b:1") and len(os.listdir(store.layers_directory)) == 1
    assert store.remove("a.example/a:1") and os.listdir(store.layers_directory) == []
    assert os.listdir(Path(store.directory, "blobs/sha256")) == []
    assert not store.remove("a.example/a:1")


def test_what_was_stored_is_there_after_a_restart(store: ImageStore, tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", [BASE], name="a.example/a:1")
    [image] = of(store, tmp_path / "a.tar")
    os.mkdir(store.ingest_path("unpack-half"))
    os.mkdir(Path(store.layers_directory, "stray"))
    again = ImageStore(store.directory)
    again.open()
    assert again.get("a.example/a:1") == image
    assert os.listdir(Path(store.directory, "ingest")) == []
    assert os.listdir(store.layers_directory) == image.layers


def test_an_image_whose_layer_is_gone_is_not_offered(store: ImageStore, tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", [BASE], name="a.example/a:1")
    [image] = of(store, tmp_path / "a.tar")
    os.rename(store.layer_paths(image)[0], tmp_path / "elsewhere")
    again = ImageStore(store.directory)
    again.open()
    assert again.all() == []


def rewritten(archive: Path, change: dict[str, bytes]) -> Path:
    import tarfile

    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    write_tar(archive, files | change)
    return archive


def test_a_damaged_layer_is_refused(store: ImageStore, tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", [BASE], name="a.example/a:1", compress=False)
    other = layer(entry("etc/"), entry("etc/name", b"evil"))
    with pytest.raises(ImageError, match="damaged"):
        of(store, rewritten(tmp_path / "a.tar", {f"blobs/sha256/{digest(BASE)[7:]}": other}))
    assert store.all() == [] and files_under(store) == 0
    assert os.listdir(Path(store.directory, "ingest")) == []


def test_a_layer_that_is_not_what_the_configuration_says_is_refused(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="content's digest"):
        oci_archive(tmp_path / "a.tar", [BASE], rootfs={"diff_ids": [digest(TOP)]})
        of(store, tmp_path / "a.tar")
    assert files_under(store) == 0


def test_a_damaged_manifest_is_refused(store: ImageStore, tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", [BASE])
    import tarfile

    with tarfile.open(tmp_path / "a.tar") as tar:
        index = json.loads(tar.extractfile("index.json").read())  # type: ignore[union-attr]
    path = f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"
    with pytest.raises(ImageError, match="damaged"):
        of(store, rewritten(tmp_path / "a.tar", {path: b"{}"}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "vax"}, "architecture vax"),
        ({"os": "windows"}, "os windows"),
        ({"rootfs": {"diff_ids": []}}, "disagree"),
        ({"rootfs": None}, "no usable configuration"),
    ],
)
def test_an_image_that_cannot_run_here_is_refused(
    store: ImageStore, tmp_path: Path, fields: dict, message: str
) -> None:
    oci_archive(tmp_path / "a.tar", [BASE], **fields)
    with pytest.raises(ImageError, match=message):
        of(store, tmp_path / "a.tar")


@pytest.mark.parametrize("content", [b"", b"not a tar file" * 100])
def test_what_is_no_archive_is_refused(store: ImageStore, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ImageError):
        of(store, tmp_path / "a.tar")
    with pytest.raises(ImageError, match="not found"):
        of(store, tmp_path / "missing.tar")


def test_an_archive_cannot_name_files_outside(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "index.json").write_text(json.dumps({"manifests": [{"digest": "sha256:../../../secret"}]}))
    with pytest.raises(ImageError, match="unsupported digest"):
        of(store, layout)
    os.remove(layout / "index.json")
    (layout / "manifest.json").write_text(json.dumps([{"Config": "../secret", "Layers": []}]))
    with pytest.raises(ImageError, match="leads out"):
        of(store, layout)


async def test_progress_is_told(store: ImageStore, tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", [BASE, TOP], name="a.example/a:1")
    steps: list[Progress] = []
    await store.import_archive(str(tmp_path / "a.tar"), progress=steps.append)
    assert [step.stage for step in steps] == ["unpack", "unpack", "done"]


def test_held_layers_outlive_their_image(store: ImageStore, tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", [BASE], name="a.example/a:1")
    [image] = of(store, tmp_path / "a.tar")
    store.hold("container", image)
    store.remove("a.example/a:1")
    assert os.listdir(store.layers_directory) == image.layers
    store.release("container")
    assert os.listdir(store.layers_directory) == []


def test_chain_ids() -> None:
    """The image specification's own definition, by hand."""
    import hashlib

    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    expected = "sha256:" + hashlib.sha256(f"{one} {two}".encode()).hexdigest()
    assert chain_ids([one, two]) == [one, expected]
    assert len(layer_name(one)) == 20 and layer_name(one) != layer_name(expected)
