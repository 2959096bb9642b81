"""Encryption at rest through the API: an update that changes nothing writes what an older key had written anew."""

from __future__ import annotations

import asyncio
import base64
import re
from pathlib import Path

import pytest

from berg import storage
from berg.apiserver.config import Config
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock
from berg.storage.encryption import InvalidConfiguration, load
from berg.storage.interface import RangeRequest, Store

from .served_api import Served

CONFIG = """\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
"""


def config(*keys: str) -> str:
    secrets = {k: base64.b64encode(k.encode().ljust(32, b".")).decode() for k in keys}
    providers = [f"      - aescbc: {{keys: [{{name: {k}, secret: {s}}}]}}\n" for k, s in secrets.items()]
    return CONFIG + "".join(providers) + "      - identity: {}\n"


async def stored(store: Store) -> bytes:
    found = await store.range(RangeRequest(b"/registry/secrets/default/s"))
    return found.kvs[0].value[:40]


async def test_writing_the_same_again_uses_the_new_key(tmp_path: Path) -> None:
    store = storage.open("memory:", compaction_interval_s=0)
    await store.start()
    path = tmp_path / "encryption.yaml"
    for keys in (("old",), ("new", "old")):
        path.write_text(config(*keys))
        options = Config(
            secure_port=-1, store=store, advertise_address="10.0.0.5", encryption_provider_config=str(path)
        )
        server = APIServer(options)
        await server.start()
        api = Served(server, FakeClock())
        if keys == ("old",):
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "Yg=="}}
            await api.create("/api/v1/namespaces/default/secrets", body)
            assert b"aescbc:v1:old:" in await stored(store)
        else:
            secret = await api.get("/api/v1/namespaces/default/secrets/s")
            assert (await api.ask("PUT", "/api/v1/namespaces/default/secrets/s", secret))[0] == 200
            assert b"aescbc:v1:new:" in await stored(store)
        await server.stop()
    await store.close()


async def test_a_configuration_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    store = storage.open("memory:", compaction_interval_s=0)
    await store.start()
    path = tmp_path / "encryption.yaml"
    path.write_text(config("old"))
    options = Config(
        secure_port=-1,
        store=store,
        advertise_address="10.0.0.5",
        encryption_provider_config=str(path),
        encryption_provider_config_automatic_reload=True,
    )
    server = APIServer(options)
    await server.start()
    api = Served(server, FakeClock())
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "Yg=="}}
    secret = await api.create("/api/v1/namespaces/default/secrets", body)
    taken, encryption = asyncio.Event(), server.services.encryption
    rotated = server.services.rotated

    def noted() -> None:
        rotated()
        taken.set()

    server.services.rotated = noted  # type: ignore[method-assign]
    path.write_text(config("new", "old"))
    await asyncio.wait_for(taken.wait(), 10)
    assert (await api.get("/api/v1/namespaces/default/secrets/s"))["data"] == {"a": "Yg=="}
    assert b"aescbc:v1:old:" in await stored(store)
    assert (await api.ask("PUT", "/api/v1/namespaces/default/secrets/s", secret))[0] == 200
    assert b"aescbc:v1:new:" in await stored(store)
    before = encryption.current
    path.write_text("nonsense: [")
    with pytest.raises(InvalidConfiguration):
        await encryption.reload()
    assert encryption.current is before
    metrics = (await api.raw("GET", "/metrics")).body.decode()
    assert re.search(r'apiserver_encryption_config_controller_automatic_reloads_total\{.*status="success"\} 1', metrics)
    assert (await api.raw("GET", "/readyz/kms-providers")).body == b"ok"
    assert (await api.raw("GET", "/livez/kms-providers")).status == 404
    await server.stop()
    await store.close()


def test_resources_that_nothing_reaches(tmp_path: Path) -> None:
    path = tmp_path / "encryption.yaml"
    text = config("a")
    rest = text.partition("resources:\n")[2]
    path.write_text(text.replace("[secrets]", "['*.*']") + rest)
    with pytest.raises(InvalidConfiguration, match='resource "secrets" is masked by earlier rule'):
        load(path)
