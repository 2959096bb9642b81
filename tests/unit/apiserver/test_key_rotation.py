"""Encryption at rest through the API: an update that changes nothing writes what an older key had written anew."""

from __future__ import annotations

import base64
from pathlib import Path

from berg import storage
from berg.apiserver.config import Config
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock
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
