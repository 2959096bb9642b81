"""Pulling from a real registry (Debian's docker-registry) on loopback."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import Code
from berg.runtime.own.images.registry import Credentials, PullError, Registries
from berg.runtime.own.images.store import ImageStore, Progress

from .harness import read
from .images_made import ARCHITECTURE, entry, layer, oci_archive
from .registry_push import push, push_index

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
]

PASSWORDS = "berg:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"  # bcrypt of "secret"
USER = ("berg", "secret")
LAYERS = [layer(entry("base", os.urandom(300_000))), layer(entry("top", b"top"))]


@dataclass
class Registry:
    port: int
    storage: Path

    def large_blob(self) -> tuple[str, bytes]:
        content = self._large().read_bytes()
        return hashlib.sha256(content).hexdigest(), content

    def damage_large_blob(self) -> None:
        self._large().write_bytes(bytes(self._large().stat().st_size))

    def _large(self) -> Path:
        return next(path for path in self.storage.rglob("data") if path.stat().st_size > 200_000)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


def serve(directory: Path, auth: str = "") -> Iterator[Registry]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = directory / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n{auth}"
    )
    with subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(500):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.01)
            yield Registry(port, directory / "data")
        finally:
            process.terminate()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    yield from serve(tmp_path)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "passwords").write_text(PASSWORDS)
    yield from serve(tmp_path, f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/passwords}}}}\n")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(str(tmp_path / "store"), Registries())
    store.open()
    return store


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    oci_archive(tmp_path / "image.tar", LAYERS)
    return tmp_path / "image.tar"


def begin_download(store: ImageStore, digest: str, content: bytes) -> None:
    Path(store.ingest_path(f"blob-{digest}")).write_bytes(content)


async def test_by_tag_and_by_digest(registry: Registry, store: ImageStore, archive: Path) -> None:
    digest = push(archive, "127.0.0.1", registry.port, "team/app", "v1")
    steps: list[Progress] = []
    image = await store.pull(f"{registry.host}/team/app:v1", progress=steps.append)
    assert image.tags == [f"{registry.host}/team/app:v1"]
    assert image.digests == [f"{registry.host}/team/app@{digest}"]
    assert read(Path(store.layer_paths(image)[0], "top")) == "top"
    assert {step.stage for step in steps} == {"resolve", "download", "unpack", "done"}
    assert os.listdir(Path(store.directory, "ingest")) == []
    store.remove(image.id)
    again = await store.pull(f"{registry.host}/team/app@{digest}")
    assert (again.id, again.tags) == (image.id, [])


async def test_a_manifest_list_leads_to_this_machines_image(
    registry: Registry, store: ImageStore, archive: Path, tmp_path: Path
) -> None:
    ours = push(archive, "127.0.0.1", registry.port, "app", "ours")
    oci_archive(tmp_path / "other.tar", LAYERS[:1], architecture="vax")
    theirs = push(tmp_path / "other.tar", "127.0.0.1", registry.port, "app", "theirs")
    index = push_index("127.0.0.1", registry.port, "app", "v1", {"vax": (theirs, 1), ARCHITECTURE: (ours, 1)})
    image = await store.pull(f"{registry.host}/app:v1")
    assert image.digests == [f"{registry.host}/app@{index}"] and len(image.layers) == 2
    push_index("127.0.0.1", registry.port, "app", "v2", {"vax": (theirs, 1)})
    with pytest.raises(PullError, match="no match for platform"):
        await store.pull(f"{registry.host}/app:v2")


async def test_what_is_there_is_not_fetched_again(registry: Registry, store: ImageStore, archive: Path) -> None:
    push(archive, "127.0.0.1", registry.port, "app", "v1")
    push(archive, "127.0.0.1", registry.port, "app", "v2")
    await store.pull(f"{registry.host}/app:v1")
    steps: list[Progress] = []
    image = await store.pull(f"{registry.host}/app:v2", progress=steps.append)
    assert [step.stage for step in steps] == ["resolve", "done"]
    assert image.tags == [f"{registry.host}/app:v1", f"{registry.host}/app:v2"]


async def test_an_image_that_is_not_there(registry: Registry, store: ImageStore) -> None:
    with pytest.raises(PullError, match="not found") as failure:
        await store.pull(f"{registry.host}/app:v1")
    assert failure.value.code is Code.NOT_FOUND


async def test_a_registry_that_is_not_there(store: ImageStore) -> None:
    with pytest.raises(PullError) as failure:
        await store.pull("127.0.0.1:1/app:v1")
    assert failure.value.code is Code.UNAVAILABLE


async def test_credentials(private: Registry, store: ImageStore, archive: Path) -> None:
    push(archive, "127.0.0.1", private.port, "app", "v1", USER)
    name = f"{private.host}/app:v1"
    for wrong in (None, Credentials("berg", "wrong")):
        with pytest.raises(PullError) as failure:
            await store.pull(name, wrong)
        assert failure.value.code is Code.UNAUTHENTICATED
    assert (await store.pull(name, Credentials(*USER))).tags == [name]


def test_credentials_as_cri_has_them() -> None:
    encoded = base64.b64encode(b"berg:se:cret").decode()
    assert Credentials.of(pb.AuthConfig(auth=encoded)) == Credentials("berg", "se:cret")
    assert Credentials.of(pb.AuthConfig(username="a", password="b")) == Credentials("a", "b")
    with pytest.raises(PullError):
        Credentials.of(pb.AuthConfig(auth="%%%"))


async def test_a_mirror_comes_first(registry: Registry, tmp_path: Path, archive: Path) -> None:
    push(archive, "127.0.0.1", registry.port, "library/app", "latest")
    store = ImageStore(str(tmp_path / "mirrored"), Registries(mirrors={"*": [f"http://{registry.host}"]}))
    store.open()
    assert (await store.pull("app")).tags == ["docker.io/library/app:latest"]


async def test_a_broken_off_download_is_resumed(registry: Registry, store: ImageStore, archive: Path) -> None:
    push(archive, "127.0.0.1", registry.port, "app", "v1")
    digest, content = registry.large_blob()
    begin_download(store, digest, content[:200_000])
    steps: list[Progress] = []
    await store.pull(f"{registry.host}/app:v1", progress=steps.append)
    first = next(step for step in steps if step.stage == "download" and step.item == f"sha256:{digest}")
    assert first.current > 200_000


async def test_a_damaged_beginning_is_fetched_anew(registry: Registry, store: ImageStore, archive: Path) -> None:
    push(archive, "127.0.0.1", registry.port, "app", "v1")
    digest, _ = registry.large_blob()
    begin_download(store, digest, bytes(1000))
    image = await store.pull(f"{registry.host}/app:v1")
    assert image.tags == [f"{registry.host}/app:v1"]


async def test_a_registry_that_sends_something_else(registry: Registry, store: ImageStore, archive: Path) -> None:
    push(archive, "127.0.0.1", registry.port, "app", "v1")
    registry.damage_large_blob()
    with pytest.raises(PullError, match="damaged") as failure:
        await store.pull(f"{registry.host}/app:v1")
    assert failure.value.code is Code.DATA_LOSS
    assert os.listdir(store.layers_directory) == [] and store.all() == []


async def test_a_token_from_the_service_that_the_registry_names(tmp_path: Path) -> None:
    """The registry of this test is three answers: a challenge, a token for who says the password, a manifest's 404."""
    from aiohttp import web

    asked: list[tuple[str, str]] = []

    async def token(request: web.Request) -> web.Response:
        asked.append((request.headers.get("Authorization", ""), request.query["scope"]))
        return web.json_response({"token": "the-token"})

    async def manifest(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == "Bearer the-token":
            return web.json_response({"errors": []}, status=404)
        challenge = f'Bearer realm="http://{request.host}/token",service="s",scope="repository:app:pull"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    application = web.Application()
    application.add_routes([web.get("/token", token), web.get("/v2/app/manifests/v1", manifest)])
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    store = ImageStore(str(tmp_path), Registries(insecure=frozenset([f"127.0.0.1:{port}"])))
    try:
        with pytest.raises(PullError) as failure:
            await store.pull(f"127.0.0.1:{port}/app:v1", Credentials(*USER))
    finally:
        await runner.cleanup()
    assert failure.value.code is Code.NOT_FOUND
    assert asked == [(Credentials(*USER).basic(), "repository:app:pull")]
